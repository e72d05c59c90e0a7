"""The port directory: where the store and the sweeper read ports and write their states.

Ports are in the standalone server's own tables or in Neutron's. The caller owns
the transaction: every method takes its session.
"""

import abc
import datetime
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from agent_flows.report import PortStatus, SyncState
from agent_flows.rpc.desired import Known, Update
from agent_flows.rpc.revisions import Revisions
from agent_flows.server.core import records
from agent_flows.server.core.gate import GroupAtHost, PortState, Settings, StatusFrom
from agent_flows.server.core.models import PortRow
from agent_flows.server.core.records import Records
from agent_flows.spec import Spec
from agent_flows.validation import Invalid

# The states of a port whose agent looked, reported or is to report.
CLAIMED = frozenset(SyncState) - {SyncState.UNKNOWN}


class PortDirectory(abc.ABC):
    """Ports in ``table``, whose id and revision are these columns.

    Rows are locked in the order of their ids, so that workers do not lock each other out.
    """

    reports_name_all_desired = True
    """Whether a report names everything that :meth:`desired` contains. Otherwise a report of a host
    that lacks something may be right in all that it names."""

    agents_report_all_at_start = True
    """Whether an agent that starts reports every port bound to its host, also one that is not
    plugged. If it was asked for them meanwhile, it would do everything twice."""

    status_without_gating = StatusFrom.REPORTS
    """What the status of a port follows while gating is off on its host."""

    def __init__(
        self,
        table: type[PortRow],
        port_id: InstrumentedAttribute[str],
        revision: InstrumentedAttribute[int],
    ) -> None:
        self._table = table
        self._id = port_id
        self._revision = revision

    @abc.abstractmethod
    def lock(self, session: Session, port_ids: Collection[str], host: str) -> dict[str, PortState]:
        """The ports that exist, as they are for ``host``, which reports on them.

        They do not change until the transaction ends.
        """

    @abc.abstractmethod
    def move(self, session: Session, ports: Sequence[PortState]) -> None:
        """Write the new states of locked ports."""

    def lock_groups(
        self, session: Session, groups: Collection[str], host: str
    ) -> dict[str, GroupAtHost]:
        """The security groups on which ports of ``host`` depend, as they are there; locked.

        None where ports are reported one by one.
        """
        return {}

    def move_groups(
        self, session: Session, groups: Sequence[GroupAtHost], settings: Settings
    ) -> None:
        """Write the new states of locked groups, and the status of ports that follows from them."""
        raise NotImplementedError

    def to_activate(
        self, session: Session, hosts: Collection[str], limit: int
    ) -> Sequence[PortState]:
        """At most ``limit`` ports, locked, on hosts where gating is off, that are to become ACTIVE
        without waiting for a report."""
        return ()

    def moved(self, ports: Sequence[PortState]) -> None:
        """Called after the transaction of :meth:`move` committed."""
        return

    def catch_up(self) -> None:
        """Do what :meth:`moved` may have left undone; called with every sweep."""
        return

    @abc.abstractmethod
    def specs(self, session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
        """The ports bound to ``host`` (of those in ``port_ids``), and each of their groups once.

        A group's revision is never newer than its content, so that a report that
        names it proves no more than the agent has read.
        """

    def changes(
        self, session: Session, host: str, port_ids: Collection[str], known: Known
    ) -> Update:
        """As :meth:`specs`, of groups only what ``host`` does not have; raises
        :class:`agent_flows.validation.Invalid` if its agent gets that from elsewhere."""
        raise Invalid("call", "get_desired", "agents get the desired state from elsewhere")

    @abc.abstractmethod
    def asked_for(
        self, session: Session, host: str, port_ids: Collection[str], now: datetime.datetime
    ) -> None:
        """An agent found interfaces for these ports: from ABSENT they become SYNCING."""

    def desired(self, session: Session, host: str) -> Revisions | None:
        """What is desired of ``host``, whose digest its agent calculates of what it has
        (:mod:`agent_flows.rpc.revisions`); None if there is nothing to compare.

        Called for every heartbeat: it may cost a few milliseconds.
        """
        return None

    def revisions(self, session: Session, host: str) -> Revisions:
        """What is desired of ``host``; raises :class:`agent_flows.validation.Invalid` if its agent
        gets that from elsewhere."""
        raise Invalid("call", "get_revisions", "agents get the desired state from elsewhere")

    def members(self, session: Session, security_group: str) -> Mapping[str, int]:
        """A revision of each port in the security group that has an address; raises
        :class:`agent_flows.validation.Invalid` if agents get them with the group's spec."""
        raise Invalid("call", "get_members", "agents get members with the spec of the group")

    def _locked(
        self, session: Session, *where: sa.ColumnElement[bool], limit: int | None = None
    ) -> list[PortState]:
        """The rows that meet ``where``; without revisions of groups, which only reports need."""
        table = self._table
        query = sa.select(
            self._id.label("id"), self._revision.label("revision"), table.host, table.status,
            table.sync_state, table.admin_state_up, table.sequence, table.proven_revision,
            table.sync_since, table.updated_at,
        )  # fmt: skip
        query = query.where(*where).order_by(self._id).limit(limit).with_for_update()
        return [
            PortState(
                **{
                    **row,
                    "status": PortStatus(row["status"]),
                    "sync_state": SyncState(row["sync_state"]),
                }
            )
            for row in session.execute(query).mappings()
        ]

    def _write(self, session: Session, ports: Sequence[PortState]) -> None:
        """Write the states of locked ports."""
        self._update(session, ports, lambda moved: {name: moved.c[name] for name in _WRITTEN})

    def _update(
        self,
        session: Session,
        ports: Sequence[PortState],
        values: Callable[[Records], Mapping[str, Any]],
        *where: Callable[[Records], sa.ColumnElement[bool]],
    ) -> None:
        """Give the rows of locked ports ``values``, in one statement however many they are.

        Both are made of a table that contains the states of ``ports``.
        """
        if not ports:
            return
        table = sa.inspect(self._table).local_table
        types = {"id": records.Id, **{name: table.c[name].type for name in _WRITTEN}}
        moved = Records("moved", sa.bindparam("moved", type_=sa.Text()), types)
        statement = (
            sa.update(table)
            .where(self._id == moved.c.id, *(condition(moved) for condition in where))
            .values(values(moved))
        )
        rows = records.document({"id": port.id, **written(port)} for port in ports)
        session.connection().execute(statement, {"moved": rows})

    def overdue(
        self,
        session: Session,
        before: datetime.datetime,
        ahead: datetime.datetime,
        limit: int,
    ) -> list[PortState]:
        """At most ``limit`` ports, locked, SYNCING with a clock that started before ``before``.

        Or after ``ahead``, a time in the future: the server's clock was set back.
        """
        since = self._table.sync_since
        syncing = self._table.sync_state == SyncState.SYNCING.value
        return self._locked(session, syncing, sa.or_(since < before, since > ahead), limit=limit)

    def in_states(
        self,
        session: Session,
        hosts: Collection[str],
        states: Collection[SyncState],
        limit: int | None = None,
    ) -> list[PortState]:
        """At most ``limit`` ports bound to one of ``hosts``, locked, in one of ``states``."""
        theirs = self._table.host.in_(list(hosts)), self._table.sync_state.in_(list(states))
        return self._locked(session, *theirs, limit=limit)

    def hosts_in_states(self, session: Session, states: Collection[SyncState]) -> set[str]:
        """The hosts to which a port in one of ``states`` is bound."""
        host = self._table.host
        found = session.scalars(
            sa.select(host).where(self._table.sync_state.in_(list(states))).distinct()
        )
        return {host for host in found if host}

    def with_ports(self, session: Session, hosts: Collection[str]) -> set[str]:
        """Those of ``hosts`` to which a port is bound."""
        host = self._table.host
        found = session.scalars(sa.select(host).where(host.in_(list(hosts))).distinct())
        return {host for host in found if host}

    def counts(self, session: Session) -> Mapping[tuple[str, str, str], int]:
        """How many ports there are, by host ("" for none), status and sync_state."""
        shown = self._shown_ports()
        key = shown.c.host, shown.c.status, shown.c.state
        rows = session.execute(sa.select(*key, sa.func.count()).group_by(*key))
        return {(host or "", status, state): number for host, status, state, number in rows}

    def _shown_ports(self) -> sa.Subquery:
        """All ports with ``host``, ``status`` and the sync_state as it is shown, ``state``."""
        port = self._table
        return sa.select(port.host, port.status, port.sync_state.label("state")).subquery()


_WRITTEN = (
    "status", "sync_state", "sequence", "proven_revision", "sync_since", "updated_at",
)  # fmt: skip


def written(port: PortState) -> dict[str, Any]:
    """What a report changes of a port's row."""
    values = {name: getattr(port, name) for name in _WRITTEN}
    return {**values, "status": port.status.value, "sync_state": port.sync_state.value}
