"""The store: takes what agents send, one transaction for each message.

It answers after the commit. All state is in the database, so any number of
workers may take reports, even of the same port: its row is locked while the
gate decides, and its sequence only rises.
"""

import contextlib
import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.report import FlowReport, SyncState
from agent_flows.rpc.answers import NO_SUCH_PORT, Held, Receipt
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.revisions import Revisions, digest_of
from agent_flows.server.core import agents, clock, condition, gate, history
from agent_flows.server.core.agents import Heartbeat
from agent_flows.server.core.casts import Caster, Casts, to_hosts
from agent_flows.server.core.database import Transactions, retried
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.gate import PortState, Ruling
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.metrics import Metrics
from agent_flows.spec import Spec

LOG = log.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Taken:
    answer: Receipt
    casts: Casts
    ports: Sequence[PortState]
    rulings: Counter[str]


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
    ) -> None:
        self._rules = rules
        self._database = database
        self._directory = directory
        self._caster = caster
        self._metrics = metrics
        self._settings = settings

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        """Store ``reports`` and move their ports.

        Raises DBError if it cannot be done now, and HostTaken if another agent
        reports for the host.
        """
        with self._metrics.store_seconds.time():
            taken = self._take(host, reports, agent)
        self._directory.moved(taken.ports)
        for ruling, number in taken.rulings.items():
            self._metrics.reports.labels(ruling).inc(number)
        self._caster.cast(taken.casts)
        return taken.answer

    @retried
    def _take(self, host: str, reports: Sequence[FlowReport], agent: Identity | None) -> _Taken:
        now = clock.now()
        with self._admitted(Heartbeat(host, agent, now)) as (session, admitted):
            ports = self._directory.lock(session, {each.resource_id for each in reports}, host)
            # Known only after the locks: another worker may just have stored the same.
            counted = history.known(session, [report.id for report in reports])
            batch = _Batch(ports, counted, self._settings, now)
            for report in sorted(reports, key=lambda each: each.sequence):
                batch.take(report)
            self._directory.move(session, list(batch.moved.values()))
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
        )

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]:
        """Specs for an agent, which is to report on the ports that it asks for by id.

        Raises HostTaken if another agent reports for the host.
        """
        specs, casts = self._specs(host, port_ids, agent)
        self._caster.cast(casts)
        return specs

    @retried
    def _specs(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None
    ) -> tuple[Sequence[Spec], Casts]:
        now = clock.now()
        if not port_ids:
            with self._database.reader() as session:
                if agents.reports_for(session, host, agent):
                    return self._directory.specs(session, host, port_ids), Casts()
        with self._admitted(Heartbeat(host, agent, now)) as (session, admitted):
            if port_ids:
                self._directory.asked_for(session, host, port_ids, now)
            return self._directory.specs(session, host, port_ids), admitted.casts

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
            return Held(sequence, desired=admitted.desired), admitted.casts

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
        counted: Collection[str],
        settings: gate.Settings,
        now: datetime.datetime,
    ) -> None:
        self._ports = dict(ports)
        self._counted = set(counted)
        self._settings = settings
        self._now = now
        self._highest_sequence = clock.highest_sequence(now)
        self.accepted: list[str] = []
        self.rejected: dict[str, str] = {}
        self.moved: dict[str, PortState] = {}
        self.kept: list[FlowReport] = []
        self.outdated: set[str] = set()
        self.outdated_groups: set[str] = set()
        self.rulings: Counter[str] = Counter()
        self.sequence = 0

    def take(self, report: FlowReport) -> None:
        port = self._ports.get(report.resource_id)
        if port is None:
            self._refuse(report, f"{NO_SUCH_PORT} {report.resource_id}")
            return
        decision = gate.decide(port, report, self._settings, self._highest_sequence)
        if decision.ruling is Ruling.REFUSED:
            self._refuse(report, decision.reason)
            return
        self.accepted.append(report.id)
        self.sequence = max(self.sequence, report.sequence)
        if decision.ruling is Ruling.STALE or report.id in self._counted:
            self.rulings[Ruling.STALE.value] += 1
            return
        self.rulings[decision.ruling.value] += 1
        self._counted.add(report.id)
        if decision.ruling is Ruling.OUTDATED:
            self.outdated.add(port.id)
        else:
            self.outdated.discard(port.id)
        if decision.ruling is Ruling.BEHIND:
            self.outdated_groups.update(port.rules_revisions)
        self.kept.append(history.not_of_the_future(report, self._now))
        after = _moved(port, decision.port, self._now)
        self._ports[report.resource_id] = self.moved[report.resource_id] = after

    def _refuse(self, report: FlowReport, reason: str) -> None:
        self.rejected[report.id] = reason
        self.rulings[Ruling.REFUSED.value] += 1


def _moved(before: PortState, after: PortState, now: datetime.datetime) -> PortState:
    unchanged = (before.status, before.sync_state) == (after.status, after.sync_state)
    syncing = after.sync_state is SyncState.SYNCING
    return dataclasses.replace(
        after,
        syncing_since=(before.syncing_since or now) if syncing else None,
        updated_at=before.updated_at if unchanged else now,
    )
