"""Keeps Neutron's integration bridge ready for ports: pipeline, and flows of an earlier process."""

import threading
from collections.abc import Callable

from oslo_log import log

from agent_flows.engine.port_table import PortTable
from agent_flows.engine.task import TaskFailed
from agent_flows.neutron import interfaces
from agent_flows.neutron.agent.desired_state import DesiredPorts
from agent_flows.neutron.agent.flows import Switch
from agent_flows.report import Trouble
from agent_flows.supervision import Backoff, Loop, Troubles, described

LOG = log.getLogger(__name__)

_TRIES = 3
"""Failed attempts of a port after which the sweep of stale flows does not wait for it: the first
ones after a start may come before OVSDB's replica is complete, and one bad port must not keep stale
flows for ever."""


class Upkeep:
    """A thread installs the pipeline if the start could not, and sweeps stale flows once every port
    is proven or was tried often enough. A failure of it is the host's trouble and is retried."""

    def __init__(
        self,
        switch: Switch,
        desired: DesiredPorts,
        note_cookies: Callable[[], None],
        troubles: Troubles,
        backoff: Backoff,
    ) -> None:
        """``note_cookies`` is called before anything is written; it raises :class:`TaskFailed`."""
        self._switch, self._desired, self._note_cookies = switch, desired, note_cookies
        self._lock = threading.Lock()
        self._prepared = self._swept = False
        self._news = threading.Event()
        self._loop = Loop("agent_flows upkeep", self._step, troubles, Trouble.CONTROL, backoff)

    def start(self, table: PortTable) -> None:
        """``table`` has the lives of all ports."""
        self._table = table
        try:
            self.prepare()
        except TaskFailed as exc:
            LOG.error("Could not install the pipeline: %s (%s)", exc, exc.error.detail)
        self.wake()
        self._loop.start()

    def stop(self, timeout: float) -> None:
        self._loop.stopping.set()
        self.wake()
        self._loop.stop(timeout)

    def wake(self) -> None:
        """Something changed that may allow the sweep."""
        self._news.set()

    def prepare(self) -> None:
        """Install the pipeline and read the flows of an earlier process, if that is still to be
        done. Raises :class:`TaskFailed`."""
        with self._lock:
            if not self._prepared:
                self._note_cookies()
                self._switch.firewall.start()
                self._switch.quarantine.start()
                self._prepared, self._swept = True, False

    def is_prepared(self) -> bool:
        """Whether the switch has the flows that it is believed to have."""
        return self._prepared

    def switch_restarted(self) -> None:
        """The bridge has lost all flows."""
        with self._lock:
            self._prepared = False
        self.wake()

    def sweep_now(self) -> None:
        """Sweep in the caller's thread if it is time; raises nothing."""
        try:
            self._sweep()
        # The one door that keeps the agent's loop alive; the thread repeats the sweep, and reports.
        except Exception as exc:  # noqa: BLE001
            LOG.error("Could not sweep stale flows: %s", described(exc))
            self.wake()

    def _step(self) -> None:
        self._news.wait()
        self._news.clear()
        if self._loop.stopping.is_set():
            return
        try:
            self.prepare()
            self._table.wait_for(self._table.lives())
            self._sweep()
        except BaseException:
            self.wake()
            raise

    def _sweep(self) -> None:
        with self._lock:
            if self._swept:
                return
            lives = self._table.lives().values()
            tried = all(life.proven or life.request.attempt > _TRIES for life in lives)
            if not tried or not any(life.proven for life in lives):
                return
            present = interfaces.ofports(self._switch.bridge)
            removed = self._switch.firewall.sweep(self._desired.port_ids(), present)
            self._switch.quarantine.sweep(present)
            self._swept = True
        LOG.info("Swept %d stale flows", removed)
