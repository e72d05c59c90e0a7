"""The store: takes what agents send, one transaction for each message.

It answers after the commit. All state is in the database, so any number of
workers may take reports, even of the same port: its row is locked while the
gate decides, and its sequence only rises.
"""

import contextlib
import dataclasses
import datetime
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.report import FlowReport, ResourceType
from agent_flows.rpc.answers import MOVED_AWAY, NO_SUCH_PORT, Held, Receipt
from agent_flows.rpc.desired import Known, Update
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.revisions import Revisions, digest_of
from agent_flows.server.core import agents, clock, condition, gate, history
from agent_flows.server.core.agents import Heartbeat
from agent_flows.server.core.casts import Caster, Casts, to_hosts
from agent_flows.server.core.database import Transactions, retried
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.gate import GroupAtHost, PortState, Ruling
from agent_flows.server.core.gating import RecentGating
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.metrics import Metrics
from agent_flows.spec import Spec
from agent_flows.tracing import UNTRACED, Judged, Traces

LOG = log.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Taken:
    answer: Receipt
    casts: Casts
    ports: Sequence[PortState]
    rulings: Counter[str]
    redelivered: int
    judged: Judged


class Store:
    """Implements :class:`agent_flows.rpc.server.Consumer`."""

    def __init__(
        self,
        database: Transactions,
        directory: PortDirectory,
        caster: Caster,
        metrics: Metrics,
        settings: gate.Settings,
        *,
        rules: Rules,
        traces: Traces = UNTRACED,
    ) -> None:
        self._traces = traces
        self._rules = rules
        self._database = database
        self._directory = directory
        self._caster = caster
        self._metrics = metrics
        self._settings = settings
        self._gating = RecentGating()

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        """Store ``reports`` and move their ports.

        Raises DBError if it cannot be done now, and HostTaken if another agent
        reports for the host.
        """
        with self._metrics.store_seconds.time():
            began = time.time_ns()
            taken = self._take(host, reports, agent)
        self._traces.judged(taken.judged, began, time.time_ns())
        self._directory.moved(taken.ports)
        for ruling, number in taken.rulings.items():
            self._metrics.reports.labels(ruling).inc(number)
        self._metrics.redelivered.inc(taken.redelivered)
        self._caster.cast(taken.casts)
        return taken.answer

    @retried
    def _take(self, host: str, reports: Sequence[FlowReport], agent: Identity | None) -> _Taken:
        now = clock.now()
        with self._admitted(Heartbeat(host, agent, now)) as (session, admitted):
            named = {
                kind: {report.resource_id for report in reports if report.resource_type is kind}
                for kind in ResourceType
            }
            named_ports, named_groups = named[ResourceType.PORT], named[ResourceType.SECURITY_GROUP]
            ports = self._directory.lock(session, named_ports, host) if named_ports else {}
            groups = (
                self._directory.lock_groups(session, named_groups, host) if named_groups else {}
            )
            elsewhere = [id_ for id_, port in ports.items() if port.host not in (host, None)]
            left = history.reported_by(session, host, elsewhere)
            # Known only after the locks: another worker may just have stored the same.
            counted = history.known(session, [report.id for report in reports])
            settings, status_from = self._settings, None
            if self._gating.current(session, now).off(host, now) is not None:
                # Rules that a host could not install take no port DOWN.
                settings = dataclasses.replace(settings, keep_active_on_refresh_failure=True)
                status_from = self._directory.status_without_gating
            batch = _Batch(
                ports, groups, counted, settings, left=left, now=now, status_from=status_from
            )
            for report in sorted(reports, key=lambda each: each.sequence):
                batch.take(report)
            if batch.moved:
                self._directory.move(session, list(batch.moved.values()))
            if batch.moved_groups:
                self._directory.move_groups(session, list(batch.moved_groups.values()), settings)
            history.add(session, batch.kept, now)
            sequence = agents.hold(admitted.row, batch.sequence, now)
        # An agent that reports an old desired state may have missed that there
        # is a newer one.
        outdated = Casts(
            ports=to_hosts([host], batch.outdated), groups=to_hosts([host], batch.outdated_groups)
        )
        return _Taken(
            Receipt(sequence, accepted=batch.accepted, rejected=batch.rejected),
            admitted.casts | outdated,
            list(batch.moved.values()),
            batch.rulings,
            batch.redelivered,
            batch.judged,
        )

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]:
        """Specs for an agent, which is to report on the ports that it asks for by id.

        Raises HostTaken if another agent reports for the host.
        """
        return self._desired(
            host,
            port_ids or (),
            agent,
            lambda session: self._directory.specs(session, host, port_ids),
        )

    def get_desired(
        self, host: str, port_ids: Collection[str], known: Known, agent: Identity | None = None
    ) -> Update:
        """As :meth:`get_ports`, and of groups only what the agent does not know."""
        return self._desired(
            host,
            port_ids,
            agent,
            lambda session: self._directory.changes(session, host, port_ids, known),
        )

    def _desired(
        self,
        host: str,
        port_ids: Collection[str],
        agent: Identity | None,
        read: Callable[[Session], T],
    ) -> T:
        found, casts = self._read_desired(host, port_ids, agent, read)
        self._caster.cast(casts)
        return found

    @retried
    def _read_desired(
        self,
        host: str,
        port_ids: Collection[str],
        agent: Identity | None,
        read: Callable[[Session], T],
    ) -> tuple[T, Casts]:
        now = clock.now()
        if not port_ids:
            with self._database.reader() as session:
                if agents.reports_for(session, host, agent):
                    return read(session), Casts()
        with self._admitted(Heartbeat(host, agent, now)) as (session, admitted):
            if port_ids:
                self._directory.asked_for(session, host, port_ids, now)
            return read(session), admitted.casts

    def get_revisions(self, host: str, agent: Identity | None = None) -> Revisions:
        """What is desired of the host. Raises HostTaken if another agent reports for it."""
        return self._read(host, agent, lambda session: self._directory.revisions(session, host))

    def get_members(
        self, host: str, security_group: str, agent: Identity | None = None
    ) -> Mapping[str, int]:
        """A revision of each member of the group. Raises HostTaken as above."""
        return self._read(
            host, agent, lambda session: self._directory.members(session, security_group)
        )

    @retried
    def _read(self, host: str, agent: Identity | None, read: Callable[[Session], T]) -> T:
        with self._database.reader() as session:
            if agents.reports_for(session, host, agent):
                return read(session)
        with self._admitted(Heartbeat(host, agent, clock.now())) as (session, _):
            return read(session)

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> Held:
        """Record that the agent is alive, the condition of its host, and whether it has the
        current desired state.

        Answers the highest sequence held for the host, and the digest of what is desired of it.
        Raises HostTaken if another agent reports for it.
        """
        at, desired = clock.now(), digest_of(state)
        return self._take_heartbeat(
            Heartbeat(host, agent, at, condition.of(state), desired=desired)
        )

    def vouch(self, host: str) -> None:
        """Another service, which knows no identities, reports that the agent is alive."""
        self._take_heartbeat(Heartbeat(host, None, clock.now(), vouched=True))

    def _take_heartbeat(self, beat: Heartbeat) -> Held:
        held, casts = self._record(beat)
        self._caster.cast(casts)
        return held

    @retried
    def _record(self, beat: Heartbeat) -> tuple[Held, Casts]:
        with self._admitted(beat) as (_, admitted):
            sequence = agents.hold(admitted.row, 0, beat.at)
            held = Held(
                sequence,
                desired=admitted.desired,
                number=admitted.row.call_number or 0,
                counted=admitted.counted,
            )
            return held, admitted.casts

    @contextlib.contextmanager
    def _admitted(self, beat: Heartbeat) -> Iterator[tuple[Session, agents.Admitted]]:
        """A transaction of the agent that reports for the host; raises HostTaken to any other.

        That the other one called is committed.
        """
        with self._database.writer() as session:
            admitted = agents.record_heartbeat(session, self._directory, self._rules, beat)
            if admitted.taken is None:
                yield session, admitted
        if admitted.taken is not None:
            self._metrics.hosts_taken.inc()
            raise admitted.taken


class _Batch:
    """One message's reports, one after the other, on ports whose rows are locked."""

    def __init__(
        self,
        ports: Mapping[str, PortState],
        groups: Mapping[str, GroupAtHost],
        counted: Collection[str],
        settings: gate.Settings,
        *,
        left: Collection[str],
        now: datetime.datetime,
        status_from: gate.StatusFrom | None,
    ) -> None:
        """``left`` are ports that have moved from the host to another; ``status_from`` is given
        while gating is off on the host."""
        self._status_from = status_from
        self._ports = dict(ports)
        self._groups = dict(groups)
        self._counted = set(counted)
        self._left = left
        self._settings = settings
        self._now = now
        self._highest_sequence = clock.highest_sequence(now)
        self.accepted: list[str] = []
        self.rejected: dict[str, str] = {}
        self.moved: dict[str, PortState] = {}
        self.moved_groups: dict[str, GroupAtHost] = {}
        self.kept: list[FlowReport] = []
        self.outdated: set[str] = set()
        self.outdated_groups: set[str] = set()
        self.rulings: Counter[str] = Counter()
        self.redelivered = 0
        self.judged: list[tuple[FlowReport, str]] = []
        self.sequence = 0

    def take(self, report: FlowReport) -> None:
        if report.resource_type is ResourceType.SECURITY_GROUP:
            self._take_group(report)
        else:
            self._take_port(report)

    def _take_group(self, report: FlowReport) -> None:
        group = self._groups.get(report.resource_id)
        if group is None:
            self._refuse(
                report,
                f"{NO_SUCH_PORT} of host {report.host} in security group {report.resource_id}",
            )
            return
        decision = gate.decide_group(group, report, self._highest_sequence)
        if not self._admit(report, decision.ruling, decision.reason):
            return
        if decision.ruling is Ruling.OUTDATED:
            self.outdated_groups.add(report.resource_id)
        self._groups[report.resource_id] = decision.group
        self.moved_groups[report.resource_id] = decision.group

    def _admit(self, report: FlowReport, ruling: Ruling, reason: str) -> bool:
        """Whether the report changes anything; if so, it is kept."""
        self.judged.append((report, ruling.value))
        if ruling is Ruling.REFUSED:
            self._refuse(report, reason)
            return False
        self.accepted.append(report.id)
        self.sequence = max(self.sequence, report.sequence)
        if ruling is Ruling.STALE or report.id in self._counted:
            self.rulings[Ruling.STALE.value] += 1
            self.redelivered += report.id in self._counted
            return False
        self.rulings[ruling.value] += 1
        self._counted.add(report.id)
        self.kept.append(history.not_of_the_future(report, self._now))
        return True

    def _take_port(self, report: FlowReport) -> None:
        port = self._ports.get(report.resource_id)
        if port is None:
            self._refuse(report, f"{NO_SUCH_PORT} {report.resource_id}")
            return
        decision = gate.decide(port, report, self._settings, self._highest_sequence)
        if self._status_from is not None:
            decision = gate.without_gating(port, decision, self._status_from)
        moved_away = f"{MOVED_AWAY} " if port.id in self._left else ""
        if not self._admit(report, decision.ruling, moved_away + decision.reason):
            return
        if decision.ruling is Ruling.OUTDATED:
            self.outdated.add(port.id)
        else:
            self.outdated.discard(port.id)
        if decision.ruling is Ruling.BEHIND:
            self.outdated_groups.update(port.rules_revisions)
        after = _moved(port, decision.port, self._now)
        self._ports[report.resource_id] = self.moved[report.resource_id] = after

    def _refuse(self, report: FlowReport, reason: str) -> None:
        self.rejected[report.id] = reason
        self.rulings[Ruling.REFUSED.value] += 1


def _moved(before: PortState, after: PortState, now: datetime.datetime) -> PortState:
    unchanged = (before.status, before.sync_state) == (after.status, after.sync_state)
    same = before.sync_state is after.sync_state
    return dataclasses.replace(
        after,
        sync_since=(before.sync_since or before.updated_at) if same else now,
        updated_at=before.updated_at if unchanged else now,
    )
