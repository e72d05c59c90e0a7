"""The sweeper: finds out what nobody reports, and keeps the history within its bounds.

Any number of servers may sweep: what one has found, the others find done.
"""

import dataclasses
import datetime
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.report import FlowReport, SyncState
from agent_flows.server import agents, clock, history
from agent_flows.server.casts import Caster, Casts
from agent_flows.server.database import ERRORS, Transactions, retried
from agent_flows.server.directory import CLAIMED, KnownPort, PortDirectory
from agent_flows.server.metrics import Metrics

LOG = log.getLogger(__name__)
_BATCH = 500


@dataclass(frozen=True)
class Limits:
    """The bounds of ``conf``, in seconds and attempts a port."""

    interval: float
    report_timeout: float
    agent_down_time: float
    history_attempts: int
    history_failures: int
    history_after_delete: float


class Sweeper:
    """A thread that sweeps every ``interval`` seconds.

    ``failure`` is why the last sweep failed, None if it did not.
    """

    def __init__(
        self,
        database: Transactions,
        directory: PortDirectory,
        caster: Caster,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._database = database
        self._directory = directory
        self._caster = caster
        self._metrics = metrics
        self._limits = limits
        self._purged_up_to = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self.failure: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._limits.interval):
            try:
                self.sweep()
                self.failure = None
            except ERRORS as exc:
                # The next sweep tries again; until it succeeds /healthz says so.
                self.failure = " ".join(str(exc).split())[:200]
                self._metrics.sweeps_failed.inc()
                LOG.exception("Sweep failed")

    def sweep(self) -> None:
        """Everything that is due now."""
        self._caster.retry()
        self._directory.settle()
        while len(self._sweep_silent()) == _BATCH:
            pass
        while overdue := self._sweep_overdue():
            self._ask_again(overdue)
        self._purge()

    def _ask_again(self, ports: Sequence[KnownPort]) -> None:
        """What their agents were told, or reported, may have been lost on the way."""
        lost: dict[str, set[str]] = {}
        for port in ports:
            lost.setdefault(port.state.host or "", set()).add(port.state.id)
        self._caster.send(Casts(resyncs={host: frozenset(ids) for host, ids in lost.items()}))

    @retried
    def _sweep_silent(self) -> Sequence[KnownPort]:
        now = clock.now()
        seconds = self._limits.agent_down_time
        with self._database.writer() as session:
            dead = {
                agent.host: agent.heartbeat_at
                for agent in agents.declare_dead(session, now - _seconds(seconds))
            }
            ports = self._directory.in_states(session, list(dead), CLAIMED, _BATCH) if dead else []

            def report(port: KnownPort) -> FlowReport:
                since = dead[port.state.host or ""]
                message = (
                    f"no sign of life from the agent of {port.state.host} since {_shown(since)}, "
                    f"longer than {seconds:g} s"
                )
                return history.silence(port, "AgentSilent", message, now)

            return self._give_up(session, ports, report, now)

    @retried
    def _sweep_overdue(self) -> Sequence[KnownPort]:
        now = clock.now()
        seconds = self._limits.report_timeout
        with self._database.writer() as session:
            before, ahead = now - _seconds(seconds), now + _seconds(seconds)
            ports = self._directory.overdue(session, before, ahead, _BATCH)

            def report(port: KnownPort) -> FlowReport:
                since = _shown(port.syncing_since or now)
                message = (
                    f"no report of revision {port.state.revision} from the agent of "
                    f"{port.state.host} within {seconds:g} s of {since}"
                )
                return history.silence(port, "ReportOverdue", message, now)

            return self._give_up(session, ports, report, now)

    def _give_up(
        self,
        session: Session,
        ports: Sequence[KnownPort],
        report: Callable[[KnownPort], FlowReport],
        now: datetime.datetime,
    ) -> Sequence[KnownPort]:
        if not ports:
            return ports
        ordinals = history.Ordinals(session, now)
        history.add(session, [history.Record(ordinals.next(), report(port)) for port in ports])
        unknown = [
            dataclasses.replace(
                port,
                state=dataclasses.replace(port.state, sync_state=SyncState.UNKNOWN),
                syncing_since=None,
                updated_at=now,
            )
            for port in ports
        ]
        self._directory.move(session, unknown)
        return ports

    @retried
    def _purge(self) -> None:
        limits = self._limits
        gone = clock.now() - _seconds(limits.history_after_delete)
        with self._database.reader() as session:
            ordinals, up_to = history.purgeable(
                session,
                self._purged_up_to,
                _BATCH,
                limits.history_attempts,
                limits.history_failures,
            )
            ordinals += history.of_deleted_ports(session, gone, _BATCH)
        for start in range(0, len(ordinals), _BATCH):
            with self._database.writer() as session:
                history.remove(session, ordinals[start : start + _BATCH])
        with self._database.writer() as session:
            history.forget_deleted(session, gone)
        self._purged_up_to = up_to


def _seconds(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=seconds)


def _shown(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")
