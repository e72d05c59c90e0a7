"""The sweeper: finds silent agents and overdue reports, and keeps the history within its bounds.

Any number of servers may sweep: what one has done, the others find done.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from oslo_log import log

from agent_flows.report import PortStatus
from agent_flows.server.core import agents, clock, history, silence, unknown
from agent_flows.server.core.casts import Caster, Casts, by_host
from agent_flows.server.core.database import ERRORS, Transactions, retried
from agent_flows.server.core.directory import CLAIMED, PortDirectory
from agent_flows.server.core.gate import PortState
from agent_flows.server.core.gating import RecentGating
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.metrics import Metrics
from agent_flows.supervision import Backoff, Loop, Troubles

LOG = log.getLogger(__name__)
TROUBLE = "sweeper"
_BATCH = 500
_LONGEST_PAUSE = 30.0
# Seconds that the end of the process waits for a running sweep.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Limits:
    """The bounds of ``conf``, in seconds and in attempts of each port."""

    interval: float
    report_timeout: float
    history_attempts: int
    history_failures: int
    history_after_delete: float


class Sweeper:
    """Sweeps every ``interval`` seconds, in a thread of its own.

    A failed sweep is the trouble ``sweeper`` of ``troubles`` until one succeeds.
    """

    def __init__(
        self,
        database: Transactions,
        directory: PortDirectory,
        caster: Caster,
        metrics: Metrics,
        limits: Limits,
        *,
        rules: Rules,
        troubles: Troubles,
    ) -> None:
        self._database = database
        self._directory = directory
        self._caster = caster
        self._metrics = metrics
        self._limits = limits
        self._rules = rules
        self._purged_up_to = ""
        self._gating = RecentGating()
        pause = Backoff(limits.interval, max(limits.interval, _LONGEST_PAUSE))
        self._loop = Loop("sweeper", self._step, troubles, TROUBLE, pause, expected=ERRORS)

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop(_PATIENCE)

    def is_alive(self) -> bool:
        return self._loop.is_alive()

    def _step(self) -> None:
        if self._loop.stopping.wait(self._limits.interval):
            return
        try:
            self.sweep()
        except Exception:
            self._metrics.sweeps_failed.inc()
            raise

    def sweep(self) -> None:
        """Everything that is due now."""
        self._caster.retry()
        self._directory.catch_up()
        self._sweep_silent()
        while overdue := self._sweep_overdue():
            self._ask_again(overdue)
        while len(self._activate_ungated()) == _BATCH:
            pass
        self._forget()
        self._purge()

    def _ask_again(self, ports: Sequence[PortState]) -> None:
        """A cast to their agents, or a report, may have been lost."""
        self._caster.send(Casts(resyncs=by_host((port.host, port.id) for port in ports)))

    def _sweep_silent(self) -> None:
        """Ports of hosts without a live agent are UNKNOWN."""
        for host in sorted(self._hosts_to_look_at()):
            while ports := self._give_up_silent(host):
                LOG.info("%d ports of host %s are UNKNOWN: it has no live agent", len(ports), host)

    @retried
    def _hosts_to_look_at(self) -> set[str]:
        now = clock.now()
        with self._database.reader() as session:
            claimed = self._directory.hosts_in_states(session, CLAIMED)
            return silence.newly_silent(session, now, self._rules) | silence.without_agent(
                session, claimed
            )

    @retried
    def _give_up_silent(self, host: str) -> Sequence[PortState]:
        now = clock.now()
        with self._database.writer() as session:
            why = silence.lock_silent(session, [host], now, self._rules).get(host)
            if why is None:
                return ()
            ports = self._directory.in_states(session, [host], CLAIMED, _BATCH)
            unknown.give_up(session, self._directory, [(port, why) for port in ports], now)
            return ports

    @retried
    def _sweep_overdue(self) -> Sequence[PortState]:
        now = clock.now()
        seconds = self._limits.report_timeout
        before, ahead = now - _seconds(seconds), now + _seconds(seconds)
        with self._database.writer() as session:
            ports = self._directory.overdue(session, before, ahead, _BATCH)
            late = [(port, unknown.overdue(port, seconds, now)) for port in ports]
            unknown.give_up(session, self._directory, late, now)
            return ports

    @retried
    def _activate_ungated(self) -> Sequence[PortState]:
        """Ports whose reports do not come, on hosts where gating is off and that have an agent."""
        now = clock.now()
        with self._database.reader() as session:
            current = self._gating.current(session, now)
            if not current.suspensions:
                return ()
            hosts = current.hosts_off(silence.with_agent(session), now)
        if not hosts:
            return ()
        with self._database.writer() as session:
            ports = self._directory.to_activate(session, hosts, _BATCH)
            active = [
                dataclasses.replace(port, status=PortStatus.ACTIVE, updated_at=now)
                for port in ports
            ]
            self._directory.move(session, active)
        if ports:
            LOG.warning("%d ports are ACTIVE without a proof: gating is off", len(ports))
        return ports

    @retried
    def _forget(self) -> None:
        with self._database.writer() as session:
            gone = agents.forget_gone(session, self._directory, clock.now(), self._rules)
        if gone:
            LOG.info("Forgot %d silent agents without ports: %s", len(gone), gone[:20])

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
