"""The port directory on Neutron's tables.

What must stand still while a report is judged is in our row for the port (see
``rows``); the rest is read after that row is locked.
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
from agent_flows.neutron.server import block_policy, live_migration
from agent_flows.neutron.server.models import GatedPort
from agent_flows.report import PortStatus, SyncState
from agent_flows.server.core import clock
from agent_flows.server.core.casts import Casts, Ids
from agent_flows.server.core.database import Transactions, retried
from agent_flows.server.core.directory import KnownPort, PortDirectory
from agent_flows.server.core.gate import PortState
from agent_flows.spec import Spec
from agent_flows.validation import Invalid

_Row = GatedPort
# Mostly the machine's interface follows its binding at once, and the agent's report that.
_UNTIL_PLUGGED = datetime.timedelta(seconds=10)
_MOST_ASKED = 500


@dataclass(frozen=True)
class Newcomer(KnownPort):
    """A bound port without a row: its host got our extension after it was bound.

    The first report taken for it makes the row.
    """

    gated: bool


@dataclass(frozen=True)
class Arriving(KnownPort):
    """A port as it is for the host it is being moved to, while it is bound to another.

    It has no row for that host: what is reported of it goes into the history,
    and Nova hears when it is proven.
    """


@dataclass(frozen=True)
class _Facts:
    """What Neutron says of a port."""

    host: str
    bound: bool
    device_owner: str
    active: bool
    admin_state_up: bool
    revision: int
    filtered: bool


class NeutronDirectory(PortDirectory):
    """``settle_soon`` brings about what was decided of ports, after the commit; ``forgotten`` are
    those for which nobody did. ``arrived`` is called with ports that are proven on the host they
    are being moved to, ``ask`` with what agents are asked to look at.

    Rows are locked in the order of their ids, so that workers do not lock each other out.
    """

    def __init__(
        self,
        settle_soon: Callable[[Collection[str]], None],
        forgotten: Callable[[], Collection[str]],
        arrived: Callable[[Collection[str]], None],
        ask: Callable[[Casts], object],
        database: Transactions,
    ) -> None:
        self._settle_soon = settle_soon
        self._forgotten = forgotten
        self._arrived = arrived
        self._ask = ask
        self._database = database

    def lock(self, session: Session, port_ids: Collection[str], host: str) -> dict[str, KnownPort]:
        rows = _locked(session, sa.select(_Row).where(_Row.port_id.in_(list(port_ids))))
        # After the locks: a change that is being made has been waited for.
        facts = _facts(session, port_ids)
        groups = _group_revisions(session, [each for each in facts if facts[each].filtered])
        known: dict[str, KnownPort] = {}
        for row in rows:
            if row.port_id not in facts:
                continue
            known[row.port_id] = _known(
                row,
                latest_revision=facts[row.port_id].revision,
                security_group_revisions=groups.get(row.port_id, {}),
            )
        for port_id in facts.keys() - known.keys():
            known[port_id] = _newcomer(port_id, facts[port_id], groups.get(port_id, {}))
        elsewhere = [each for each, port in known.items() if port.state.host != host]
        for port_id in live_migration.moving_to(session, host, elsewhere):
            known[port_id] = _arriving(known[port_id].state, host)
        return known

    def move(self, session: Session, ports: Sequence[KnownPort]) -> None:
        ports = [port for port in ports if not isinstance(port, Arriving)]
        new = [port for port in ports if isinstance(port, Newcomer)]
        if new:
            session.connection().execute(sa.insert(_Row), [_new_row(port) for port in new])
        moved = [_moved(port) for port in ports if not isinstance(port, Newcomer)]
        if moved:
            session.connection().execute(_MOVE, moved)

    def moved(self, ports: Sequence[KnownPort]) -> None:
        if here := {port.state.id for port in ports if not isinstance(port, Arriving)}:
            self._settle_soon(here)
        arrived = {
            port.state.id
            for port in ports
            if isinstance(port, Arriving) and port.state.status is PortStatus.ACTIVE
        }
        if arrived:
            self._arrived(arrived)

    def settle(self) -> None:
        if left_over := self._forgotten():
            self._settle_soon(left_over)
        if unheard := self._unheard():
            self._ask(Casts(resyncs=unheard))

    @retried
    def _unheard(self) -> Ids:
        """Bound ports that no report has come of, by host. Neutron's agents speak of a port when it
        is plugged in; of one that is not, they say so when they are asked."""
        since = clock.now() - _UNTIL_PLUGGED
        query = (
            sa.select(_Row.host, _Row.port_id)
            .where(
                _Row.sync_state == SyncState.SYNCING.value,
                _Row.sequence == 0,
                _Row.syncing_since < since,
            )
            .limit(_MOST_ASKED)
        )
        by_host: dict[str, set[str]] = {}
        with self._database.reader() as session:
            for row in session.execute(query):
                by_host.setdefault(row.host, set()).add(row.port_id)
        return {host: frozenset(ids) for host, ids in by_host.items()}

    def specs(self, session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
        self._refuse()

    def asked_for(
        self, session: Session, host: str, port_ids: Collection[str], now: datetime.datetime
    ) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise Invalid("port_ids", None, "in Neutron, agents know desired state from Neutron")

    def overdue(
        self,
        session: Session,
        before: datetime.datetime,
        ahead: datetime.datetime,
        limit: int,
    ) -> list[KnownPort]:
        since = _Row.syncing_since
        late = _Row.sync_state == SyncState.SYNCING.value, sa.or_(since < before, since > ahead)
        return _list(session, sa.select(_Row).where(*late).limit(limit))

    def in_states(
        self,
        session: Session,
        hosts: Collection[str],
        states: Collection[SyncState],
        limit: int | None = None,
    ) -> list[KnownPort]:
        theirs = _Row.host.in_(list(hosts)), _Row.sync_state.in_(list(states))
        return _list(session, sa.select(_Row).where(*theirs).limit(limit))

    def hosts_in_states(self, session: Session, states: Collection[SyncState]) -> set[str]:
        found = session.scalars(
            sa.select(_Row.host).where(_Row.sync_state.in_(list(states))).distinct()
        )
        return set(found)

    def with_ports(self, session: Session, hosts: Collection[str]) -> set[str]:
        return set(
            session.scalars(sa.select(_Row.host).where(_Row.host.in_(list(hosts))).distinct())
        )

    def counts(self, session: Session) -> Mapping[tuple[str, str, str], int]:
        query = sa.select(_Row.host, _Row.status, _Row.sync_state, sa.func.count())
        rows = session.execute(query.group_by(_Row.host, _Row.status, _Row.sync_state))
        return {(host, status, state): number for host, status, state, number in rows}


# ``unsettled`` comes first: MariaDB would compare with the status just written.
_MOVE = (
    sa.update(_Row.__table__)
    .where(_Row.__table__.c.port_id == sa.bindparam("moved_port"))
    .ordered_values(
        (
            "unsettled",
            sa.case(
                (_Row.__table__.c.status != sa.bindparam("new_status"), True),
                else_=_Row.__table__.c.unsettled,
            ),
        ),
        ("status", sa.bindparam("new_status")),
        ("sync_state", sa.bindparam("new_sync_state")),
        ("sequence", sa.bindparam("new_sequence")),
        ("proven_revision", sa.bindparam("new_proven_revision")),
        ("syncing_since", sa.bindparam("new_syncing_since")),
        ("updated_at", sa.bindparam("new_updated_at")),
    )
)


def _moved(port: KnownPort) -> dict[str, Any]:
    return {"moved_port": port.state.id} | {f"new_{k}": v for k, v in _written(port).items()}


def _written(port: KnownPort) -> dict[str, Any]:
    return {
        "status": port.state.status.value,
        "sync_state": port.state.sync_state.value,
        "sequence": port.state.sequence,
        "proven_revision": port.state.proven_revision,
        "syncing_since": port.syncing_since,
        "updated_at": port.updated_at,
    }


def _new_row(port: Newcomer) -> dict[str, Any]:
    return {
        **_written(port),
        "port_id": port.state.id,
        "host": port.state.host,
        "gated": port.gated,
        "revision": port.state.revision,
        "admin_state_up": port.state.admin_state_up,
        "unsettled": True,
    }


def _locked(session: Session, query: sa.Select[Any]) -> Sequence[GatedPort]:
    return session.scalars(
        query.order_by(_Row.port_id).with_for_update().execution_options(populate_existing=True)
    ).all()


def _list(session: Session, query: sa.Select[Any]) -> list[KnownPort]:
    return [_known(row) for row in _locked(session, query)]


def _known(row: GatedPort, **judged_by: Any) -> KnownPort:
    state = PortState(
        id=row.port_id,
        host=row.host,
        revision=row.revision,
        status=PortStatus(row.status),
        sync_state=SyncState(row.sync_state),
        admin_state_up=row.admin_state_up,
        sequence=row.sequence,
        proven_revision=row.proven_revision,
        **judged_by,
    )
    return KnownPort(state, row.syncing_since, row.updated_at)


def _newcomer(port_id: str, facts: _Facts, groups: Mapping[str, int]) -> Newcomer:
    """As the port would be known had it a row.

    At which revision its wiring last changed is not known, so only a report of
    the newest is about the desired state of now.
    """
    return Newcomer(
        state=PortState(
            id=port_id,
            host=facts.host if facts.bound else None,
            revision=facts.revision,
            status=PortStatus.ACTIVE if facts.active else PortStatus.DOWN,
            sync_state=SyncState.ABSENT,
            admin_state_up=facts.admin_state_up,
            security_group_revisions=groups,
        ),
        syncing_since=None,
        updated_at=_NEVER,
        gated=block_policy.is_gated(facts.device_owner),
    )


def _arriving(state: PortState, host: str) -> Arriving:
    """Nothing is known of it there yet, whatever is proven where it is bound."""
    state = dataclasses.replace(
        state,
        host=host,
        status=PortStatus.DOWN,
        sync_state=SyncState.ABSENT,
        sequence=0,
        proven_revision=None,
    )
    return Arriving(state, None, _NEVER)


_NEVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


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
            filtered=_is_filtered(row.device_owner or "", row.port_security_enabled),
        )
        for row in session.execute(query)
    }


def _is_filtered(device_owner: str, port_security: bool | None) -> bool:
    """Whether security groups apply: not to trusted ports (neutron.common.utils.is_port_trusted).

    Without the extension driver ``port_security`` there is no such row, and they apply.
    """
    trusted = device_owner.startswith(constants.DEVICE_OWNER_NETWORK_PREFIX)
    return port_security is not False and not trusted


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
    revisions = {group: rules_digest.of_objects(said) for group, said in rules.items()}
    found: dict[str, dict[str, int]] = {}
    for port_id, group in bound:
        found.setdefault(port_id, {})[group] = revisions[group]
    return found
