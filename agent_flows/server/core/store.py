"""The store: takes what agents send, one transaction a message.

It answers after the commit. Nothing is kept outside the database, so any
number of workers may take reports, even of the same port: its row is locked
while the gate decides, and it moves from one sequence to a higher one.
"""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.report import FlowReport, SyncState
from agent_flows.rpc.answers import NO_SUCH_PORT, Receipt
from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.server.core import agents, clock, condition, gate, history
from agent_flows.server.core.agents import Sign
from agent_flows.server.core.casts import Caster, Casts, to_hosts
from agent_flows.server.core.database import Transactions, retried
from agent_flows.server.core.directory import KnownPort, PortDirectory
from agent_flows.server.core.gate import Ruling
from agent_flows.server.core.metrics import Metrics
from agent_flows.spec import Spec

LOG = log.getLogger(__name__)


@dataclass(frozen=True)
class _Taken:
    answer: Receipt
    casts: Casts
    ports: Sequence[KnownPort]
    rulings: Counter[str]


@dataclass(frozen=True)
class _Asked:
    specs: Sequence[Spec] = ()
    casts: Casts = field(default_factory=Casts)
    taken: HostTaken | None = None


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
        rules: agents.Rules,
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
        speaks for the host.
        """
        with self._metrics.store_seconds.time():
            taken = self._take(host, reports, agent)
        if isinstance(taken, HostTaken):
            raise self._counted(taken)
        self._directory.moved(taken.ports)
        for ruling, number in taken.rulings.items():
            self._metrics.reports.labels(ruling).inc(number)
        self._cast(taken.casts)
        return taken.answer

    @retried
    def _take(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None
    ) -> _Taken | HostTaken:
        now = clock.now()
        with self._database.writer() as session:
            admitted = self._admit(session, Sign(host, agent, now))
            if admitted.taken is not None:
                return admitted.taken
            ports = self._directory.lock(session, {each.resource_id for each in reports}, host)
            # Known only after the locks: another worker may just have stored the same.
            counted = history.known(session, [report.id for report in reports])
            ordinals = history.Ordinals(session, now)
            batch = _Batch(ports, counted, self._settings, ordinals, now)
            for report in sorted(reports, key=lambda each: each.sequence):
                batch.take(report)
            self._directory.move(session, list(batch.moved.values()))
            history.add(session, batch.records)
            sequence = agents.hold(admitted.row, batch.sequence, now)
        # An agent that reports an old desired state may have missed that there
        # is a newer one.
        outdated = Casts(ports=to_hosts([host], batch.outdated))
        return _Taken(
            Receipt(sequence, accepted=batch.accepted, rejected=batch.rejected),
            admitted.casts | outdated,
            list(batch.moved.values()),
            batch.rulings,
        )

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]:
        """Specs for an agent; ports it asks for by id are expected to be reported upon.

        Raises HostTaken if another agent speaks for the host: what is wanted of
        its ports is not this one's.
        """
        asked = self._answer(host, port_ids, agent)
        if isinstance(asked.taken, HostTaken):
            raise self._counted(asked.taken)
        self._cast(asked.casts)
        return asked.specs

    @retried
    def _answer(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None
    ) -> _Asked:
        now = clock.now()
        if not port_ids:
            with self._database.reader() as session:
                if agents.speaks(session, host, agent):
                    return _Asked(self._directory.specs(session, host, port_ids))
        with self._database.writer() as session:
            admitted = self._admit(session, Sign(host, agent, now))
            if admitted.taken is not None:
                return _Asked(taken=admitted.taken)
            if port_ids:
                self._directory.asked_for(session, host, port_ids, now)
            return _Asked(self._directory.specs(session, host, port_ids), admitted.casts)

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> int:
        """Note that the agent lives, and what it says of its host.

        Answers the highest sequence held for the host. Raises HostTaken if
        another agent speaks for it.
        """
        return self._note(Sign(host, agent, clock.now(), condition.of(state)))

    def vouch(self, host: str) -> int:
        """Somebody else, who knows no identities, says that the agent of ``host`` lives."""
        return self._note(Sign(host, None, clock.now(), vouched=True))

    def _note(self, sign: Sign) -> int:
        noted = self._note_sign_of_life(sign)
        if isinstance(noted, HostTaken):
            raise self._counted(noted)
        sequence, casts = noted
        self._cast(casts)
        return sequence

    @retried
    def _note_sign_of_life(self, sign: Sign) -> tuple[int, Casts] | HostTaken:
        with self._database.writer() as session:
            admitted = self._admit(session, sign)
            if admitted.taken is not None:
                return admitted.taken
            return agents.hold(admitted.row, 0, sign.at), admitted.casts

    def _admit(self, session: Session, sign: Sign) -> agents.Admitted:
        return agents.admit(session, self._directory, self._rules, sign)

    def _counted(self, taken: HostTaken) -> HostTaken:
        self._metrics.hosts_taken.inc()
        return taken

    def _cast(self, casts: Casts) -> None:
        if casts != Casts():
            self._caster.send(casts)


class _Batch:
    """One message's reports, one after the other, on ports whose rows are locked."""

    def __init__(
        self,
        ports: Mapping[str, KnownPort],
        counted: Collection[str],
        settings: gate.Settings,
        ordinals: history.Ordinals,
        now: datetime.datetime,
    ) -> None:
        self._ports = dict(ports)
        self._counted = set(counted)
        self._settings = settings
        self._now = now
        self._highest_sequence = clock.highest_sequence(now)
        self._ordinals = ordinals
        self.accepted: list[str] = []
        self.rejected: dict[str, str] = {}
        self.moved: dict[str, KnownPort] = {}
        self.records: list[history.Record] = []
        self.outdated: set[str] = set()
        self.rulings: Counter[str] = Counter()
        self.sequence = 0

    def take(self, report: FlowReport) -> None:
        port = self._ports.get(report.resource_id)
        if port is None:
            self._refuse(report, f"{NO_SUCH_PORT} {report.resource_id}")
            return
        decision = gate.decide(port.state, report, self._settings, self._highest_sequence)
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
            self.outdated.add(port.state.id)
        else:
            self.outdated.discard(port.state.id)
        kept = history.not_of_the_future(report, self._now)
        self.records.append(history.Record(self._ordinals.next(), kept))
        after = _moved(port, decision, self._now)
        self._ports[report.resource_id] = self.moved[report.resource_id] = after

    def _refuse(self, report: FlowReport, reason: str) -> None:
        self.rejected[report.id] = reason
        self.rulings[Ruling.REFUSED.value] += 1


def _moved(port: KnownPort, decision: gate.Decision, now: datetime.datetime) -> KnownPort:
    state = decision.applied_to(port.state)
    seen = (port.state.status, port.state.sync_state) == (state.status, state.sync_state)
    syncing = state.sync_state is SyncState.SYNCING
    return dataclasses.replace(
        port,
        state=state,
        syncing_since=(port.syncing_since or now) if syncing else None,
        updated_at=port.updated_at if seen else now,
    )
