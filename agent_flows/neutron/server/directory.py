"""The port directory on Neutron's tables.

What must not change while a report is judged is in our row for the port (see
:class:`GatedPort`); the rest is read after that row is locked.
"""

import dataclasses
import datetime
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import securitygroup
from neutron.db.port_security.models import PortSecurityBinding
from neutron.plugins.ml2.models import PortBinding
from neutron_lib import constants
from neutron_lib.db.standard_attr import StandardAttribute
from sqlalchemy.orm import Session

from agent_flows.neutron import rules_digest
from agent_flows.neutron.server import block_policy, desired, gating_sweep, live_migration
from agent_flows.neutron.server.models import GatedPort
from agent_flows.report import PortStatus, SyncState
from agent_flows.rpc.revisions import Revisions
from agent_flows.server.core import clock
from agent_flows.server.core.casts import Casts, Ids, by_host
from agent_flows.server.core.database import Transactions, retried
from agent_flows.server.core.directory import PortDirectory, written
from agent_flows.server.core.gate import PortState, StatusFrom
from agent_flows.server.core.gating import RecentGating
from agent_flows.spec import Spec
from agent_flows.validation import Invalid

_Row = GatedPort
# Mostly a port is plugged right after its binding, and reported right after that.
_UNTIL_PLUGGED = datetime.timedelta(seconds=10)
_MOST_ASKED = 500


@dataclass(frozen=True)
class Newcomer(PortState):
    """A bound port without a row: its host got our extension after it was bound.

    The first report about it inserts the row.
    """

    gated: bool = False


@dataclass(frozen=True)
class Arriving(PortState):
    """A port on the host it is being moved to, while it is bound to another.

    It has no row for that host: reports about it go into the history, and Nova
    is notified when it is proven.
    """


@dataclass(frozen=True)
class _Facts:
    """The fields of a port in Neutron that the gate needs."""

    host: str
    bound: bool
    device_owner: str
    active: bool
    admin_state_up: bool
    revision: int
    filtered: bool


class NeutronDirectory(PortDirectory):
    """``apply_soon`` is called after the commit with ports whose verdict may have changed;
    ``unsettled`` answers those for which that did not happen. ``arrived`` is called with ports that
    are proven on the host they are being moved to, ``ask`` with casts to agents.
    """

    # They name no members of remote groups and no address groups.
    reports_name_all_desired = False
    status_without_gating = StatusFrom.NEUTRON
    # Neutron's agent passes in plugged ports only.
    agents_report_all_at_start = False

    def __init__(
        self,
        apply_soon: Callable[[Collection[str]], None],
        unsettled: Callable[[], Collection[str]],
        arrived: Callable[[Collection[str]], None],
        ask: Callable[[Casts], object],
        database: Transactions,
    ) -> None:
        self._apply_soon = apply_soon
        self._unsettled = unsettled
        self._arrived = arrived
        self._ask = ask
        self._database = database
        self._content = desired.DesiredContent()
        self._gating = RecentGating()
        super().__init__(_Row, _Row.port_id, _Row.revision)

    def lock(self, session: Session, port_ids: Collection[str], host: str) -> dict[str, PortState]:
        rows = self._locked(session, _Row.port_id.in_(list(port_ids)))
        # After the locks, so that a change in progress is waited for.
        facts = _facts(session, port_ids)
        groups = _group_revisions(session, [port for port in facts if facts[port].filtered])
        known: dict[str, PortState] = {
            row.id: dataclasses.replace(
                row,
                latest_revision=facts[row.id].revision,
                security_group_revisions=groups.get(row.id, {}),
            )
            for row in rows
            if row.id in facts
        }
        for port_id in facts.keys() - known.keys():
            if facts[port_id].device_owner == constants.DEVICE_OWNER_DVR_INTERFACE:
                # Every host with a machine behind the router reports it. It is bound to none of
                # them, and nothing waits for it.
                continue
            known[port_id] = _newcomer(port_id, facts[port_id], groups.get(port_id, {}))
        elsewhere = [port.id for port in known.values() if port.host != host]
        for port_id in live_migration.moving_to(session, host, elsewhere):
            known[port_id] = _arriving(known[port_id], host)
        return known

    def move(self, session: Session, ports: Sequence[PortState]) -> None:
        ports = [port for port in ports if not isinstance(port, Arriving)]
        new = [port for port in ports if isinstance(port, Newcomer)]
        if new:
            session.connection().execute(sa.insert(_Row), [_new_row(port) for port in new])
        moved = [port for port in ports if not isinstance(port, Newcomer)]
        # Before the new status is written.
        self._update(
            session,
            moved,
            lambda _: {"unsettled": True},
            lambda states: _Row.status != states.c.status,
        )
        self._write(session, moved)

    def moved(self, ports: Sequence[PortState]) -> None:
        if here := {port.id for port in ports if not isinstance(port, Arriving)}:
            self._apply_soon(here)
        arrived = {
            port.id
            for port in ports
            if isinstance(port, Arriving) and port.status is PortStatus.ACTIVE
        }
        if arrived:
            self._arrived(arrived)

    def catch_up(self) -> None:
        if released := gating_sweep.follow(self._database, self._gating):
            self._apply_soon(released)
        live_migration.notify_of_ungated()
        if left := self._unsettled():
            self._apply_soon(left)
        if unreported := self._unreported():
            self._ask(Casts(resyncs=unreported))

    @retried
    def _unreported(self) -> Ids:
        """Bound ports without any report, by host. An agent reports a port when it is plugged; one
        that is not plugged it reports when asked."""
        since = clock.now() - _UNTIL_PLUGGED
        query = (
            sa.select(_Row.host, _Row.port_id)
            .where(
                _Row.sync_state == SyncState.SYNCING.value,
                _Row.sequence == 0,
                _Row.sync_since < since,
            )
            .limit(_MOST_ASKED)
        )
        with self._database.reader() as session:
            return by_host((row.host, row.port_id) for row in session.execute(query))

    def specs(self, session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
        self._refuse()

    def asked_for(
        self, session: Session, host: str, port_ids: Collection[str], now: datetime.datetime
    ) -> None:
        self._refuse()

    def desired(self, session: Session, host: str) -> Revisions:
        return self._content.of_host(session, host)

    def revisions(self, session: Session, host: str) -> Revisions:
        return self.desired(session, host)

    def members(self, session: Session, security_group: str) -> Mapping[str, int]:
        return desired.members(session, security_group)

    def _refuse(self) -> NoReturn:
        raise Invalid("port_ids", None, "in Neutron, agents get the desired state from Neutron")


def _new_row(port: Newcomer) -> dict[str, Any]:
    return {
        **written(port),
        "port_id": port.id,
        "host": port.host,
        "gated": port.gated,
        "revision": port.revision,
        "admin_state_up": port.admin_state_up,
        "unsettled": True,
        "ungated": False,
        "fell_at": None,
    }


def _newcomer(port_id: str, facts: _Facts, groups: Mapping[str, int]) -> Newcomer:
    """The port as if it had a row.

    At which revision its wiring last changed is not known, so only a report of
    the newest is about the current desired state.
    """
    return Newcomer(
        id=port_id,
        host=facts.host if facts.bound else None,
        revision=facts.revision,
        status=PortStatus.ACTIVE if facts.active else PortStatus.DOWN,
        sync_state=SyncState.ABSENT,
        admin_state_up=facts.admin_state_up,
        security_group_revisions=groups,
        gated=block_policy.is_gated(facts.device_owner),
        updated_at=clock.now(),
    )


def _arriving(port: PortState, host: str) -> Arriving:
    """Nothing is known of the port on ``host`` yet."""
    return Arriving(
        id=port.id,
        host=host,
        revision=port.revision,
        status=PortStatus.DOWN,
        sync_state=SyncState.ABSENT,
        admin_state_up=port.admin_state_up,
        security_group_revisions=port.security_group_revisions,
        latest_revision=port.latest_revision,
    )


def _facts(session: Session, port_ids: Collection[str]) -> dict[str, _Facts]:
    port = models_v2.Port
    query = (
        sa.select(
            port.id,
            port.device_owner,
            port.status,
            port.admin_state_up,
            StandardAttribute.revision_number,
            PortBinding.host,
            PortBinding.vif_type,
            PortSecurityBinding.port_security_enabled,
        )
        .join(StandardAttribute, StandardAttribute.id == port.standard_attr_id)
        .outerjoin(
            PortBinding,
            sa.and_(PortBinding.port_id == port.id, PortBinding.status == constants.ACTIVE),
        )
        .outerjoin(PortSecurityBinding, PortSecurityBinding.port_id == port.id)
        .where(port.id.in_(list(port_ids)))
    )
    return {
        row.id: _Facts(
            host=row.host or "",
            bound=block_policy.is_bound(row.host, row.vif_type),
            device_owner=row.device_owner or "",
            active=row.status == constants.PORT_STATUS_ACTIVE,
            admin_state_up=row.admin_state_up,
            revision=row.revision_number,
            filtered=block_policy.is_filtered(row.device_owner or "", row.port_security_enabled),
        )
        for row in session.execute(query)
    }


def _group_revisions(session: Session, port_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """The revisions of each port's groups, as :mod:`agent_flows.neutron.rules_digest` has them."""
    if not port_ids:
        return {}
    binding, rule = securitygroup.SecurityGroupPortBinding, securitygroup.SecurityGroupRule
    bound = session.execute(
        sa.select(binding.port_id, binding.security_group_id).where(binding.port_id.in_(port_ids))
    ).all()
    rules: dict[str, list[object]] = {group: [] for _, group in bound}
    columns = [getattr(rule, name) for name in rules_digest.NAMES]
    query = sa.select(rule.security_group_id, *columns).where(
        rule.security_group_id.in_(list(rules))
    )
    for row in session.execute(query) if rules else ():
        rules[row.security_group_id].append(row)
    revisions = {group: rules_digest.of_objects(rows) for group, rows in rules.items()}
    found: dict[str, dict[str, int]] = {}
    for port_id, group in bound:
        found.setdefault(port_id, {})[group] = revisions[group]
    return found
