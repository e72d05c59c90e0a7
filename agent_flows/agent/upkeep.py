"""Keeps the switch of a standalone host ready for ports: the bridges, and stale flows."""

import enum
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from oslo_log import log

from agent_flows.agent.flows import Switch
from agent_flows.engine.drift import EVERYTHING, Budget, Drift, Suspicion
from agent_flows.engine.reconciler import Reconciler
from agent_flows.engine.task import PortErrors, TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.l2 import bridges as making
from agent_flows.l2 import interfaces
from agent_flows.l2.bridges import Bridges, Make, Uplink
from agent_flows.l2.interfaces import PresentPorts
from agent_flows.l2.ovsdb import OvsdbUnreachable
from agent_flows.l2.vswitchd import SwitchWatch
from agent_flows.openflow.monitor import FlowMonitor
from agent_flows.report import Step, TaskError, Trouble
from agent_flows.supervision import Backoff, Loop, Troubles

LOG = log.getLogger(__name__)

# Work on the host itself is tried again soon.
_HOST_BACKOFF = Backoff(0.25, 2.0)
_OVSDB_BACKOFF = Backoff(1.0, 3.0)
# Seconds between two looks at the connection to OVSDB.
_OVSDB_TICK = 0.5
# Seconds in which an operator who deleted the integration bridge may make it again.
_GRACE = 1.0
# Seconds until OVSDB shows that the bridge was deleted, after the switch closed the connection.
_UNTIL_OVSDB_SHOWS = 0.2


class _Work(enum.IntEnum):
    """Work that concerns the whole host, the most urgent first."""

    CONNECT = enum.auto()
    PREPARE = enum.auto()
    LOOK = enum.auto()
    SUBMIT = enum.auto()
    SWEEP = enum.auto()


class Upkeep:
    """Acts on what concerns the switch as a whole; everything else goes port by port.

    It is the listener of the database and of the switch: those methods only note
    what is to be done. One loop does it, and never waits for the server; another
    looks whether OVSDB answers.
    """

    def __init__(
        self,
        switch: Switch,
        bridges: Bridges,
        reconciler: Reconciler,
        suspect: Callable[[Suspicion], None],
        *,
        troubles: Troubles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``suspect`` has the switch compared with what was proven; ``clock`` gives seconds."""
        self._switch = switch
        self._bridges = bridges
        self._reconciler = reconciler
        self._suspect = suspect
        self._troubles = troubles
        self._changed = threading.Condition()
        self._pending: set[_Work] = set()
        self._switch_is_gone = False
        # Whether the switch has the flows that the firewall believes it has: not before it was
        # prepared, nor after a restart until it is prepared again.
        self._intact = False
        self._loss = ""
        # For a program that changes the integration bridge again and again: the bridge is restored
        # at once each time, but its ports, closed until then, are wired again less often.
        self._budget = Budget(clock)
        self._changed_by_another = False
        # The integration bridge that has our flows, and the uplinks our networks use.
        self._made: Make | None = None
        self._ready = False
        self._uplinks: dict[str, Uplink | None] = {}
        self._works: Mapping[_Work, Callable[[], None]] = {
            _Work.CONNECT: self._connect,
            _Work.PREPARE: self._prepare,
            _Work.LOOK: self._look,
            _Work.SUBMIT: self._submit,
            _Work.SWEEP: self._sweep,
        }
        self._loops = (
            Loop(
                "control",
                self._act,
                troubles,
                Trouble.CONTROL,
                _HOST_BACKOFF,
                expected=(OvsdbUnreachable, TaskFailed, PortErrors, OSError),
            ),
            Loop(
                "ovsdb-watch",
                self._watch_ovsdb,
                troubles,
                Trouble.OVSDB,
                _OVSDB_BACKOFF,
                expected=(OvsdbUnreachable,),
            ),
        )
        self._stopping = threading.Event()

    def start(
        self, watch: SwitchWatch, monitors: Sequence[FlowMonitor], resync: Callable[[], None]
    ) -> None:
        """``watch`` and ``monitors`` are started once there is a bridge to watch. ``resync`` has
        every port wired again, and must return at once."""
        self.begin(watch, monitors, resync)
        for loop in self._loops:
            loop.start()

    def begin(
        self, watch: SwitchWatch, monitors: Sequence[FlowMonitor], resync: Callable[[], None]
    ) -> None:
        """As :meth:`start`, without threads: for a caller of :meth:`work_once`."""
        self._watch, self._monitors, self._resync = watch, monitors, resync
        self._troubles.report(Trouble.CONTROL, "starting")
        self._request(_Work.CONNECT)

    @property
    def is_ready(self) -> bool:
        """Whether ports may be processed: there is a bridge for them."""
        return self._ready

    def stop(self, timeout: float) -> None:
        self._stopping.set()
        for loop in self._loops:
            loop.stopping.set()
        with self._changed:
            self._changed.notify_all()
        for loop in self._loops:
            loop.stop(timeout)

    # Changes on the host.

    def interfaces_changed(self, port_ids: frozenset[str]) -> None:
        self._reconciler.submit(port_ids)

    def wiring_changed(self, port_ids: frozenset[str]) -> None:
        self._suspect(Suspicion(port_ids=port_ids))

    def bridges_changed(self) -> None:
        self._request(_Work.LOOK)

    def database_reloaded(self) -> None:
        """Changes were missed while the connection was lost: everything is looked at."""
        LOG.info("The connection to OVSDB was lost and is back; looking at everything")
        self._request(_Work.LOOK)
        self._request(_Work.SUBMIT)
        self._suspect(EVERYTHING)

    def switch_gone(self, reason: str) -> None:
        """The switch closed the connection, or does not answer any more."""
        with self._changed:
            self._switch_is_gone = True
            self._intact = False
        self._stopping.wait(_UNTIL_OVSDB_SHOWS)
        if self._bridges.is_missing(self._bridges.integration):
            self._request(_Work.LOOK)
        else:
            self._troubles.report(Trouble.SWITCH, reason)

    def switch_restarted(self) -> None:
        """The bridge is served again, by a switch that has none of our flows."""
        with self._changed:
            self._switch_is_gone = False
        bridge = self._bridges.integration
        self._restore(f"bridge {bridge} lost its flows: ovs-vswitchd, or the bridge, was restarted")

    def switch_answers(self) -> None:
        """The switch did not answer for a while; it still has its flows."""
        with self._changed:
            self._switch_is_gone = False
            self._intact = True
        self._troubles.clear(Trouble.SWITCH)
        self._resync()

    def is_intact(self) -> bool:
        """Whether flows may be compared: the switch is not known to have lost them."""
        return self._intact

    # Before every port is wired again, and when the server told which are bound to this host.

    def pace(self, wait: Callable[[float], object]) -> None:
        """Wait, if another program changes the integration bridge again and again; meanwhile what
        was proven of its ports is untrue."""
        if not self._changed_by_another:
            return
        if pause := self._pause():
            self._troubles.report(
                Trouble.BRIDGE,
                f"bridge {self._bridges.integration} is changed again and again by another "
                f"program; its ports, which are closed, are wired again in {pause:.0f} s",
            )
            wait(pause)
            self._troubles.clear(Trouble.BRIDGE)
        number = len(self._known())
        with self._changed:
            self._changed_by_another = False
            self._budget.spend_on(number)

    def submit_all(self, bound: Collection[str]) -> None:
        """Every port on this host, and those bound to it, so that their absence is reported."""
        present = self._present()
        self._reconciler.watch_for(present, lambda: self._request(_Work.SWEEP))
        self._reconciler.submit({*present, *self._known(), *bound}, forced=True)

    # The loops.

    def _act(self) -> None:
        with self._changed:
            while not self._pending and not self._stopping.is_set():
                self._changed.wait()
        if not self._stopping.is_set():
            self.work_once()

    def work_once(self) -> bool:
        """Do the most urgent work that concerns the host, in the caller's thread; False if there is
        none."""
        with self._changed:
            if not self._pending:
                return False
            work = min(self._pending)
            self._pending.remove(work)
        try:
            self._works[work]()
        except BaseException:
            self._request(work)
            raise
        return True

    def _request(self, work: _Work) -> None:
        with self._changed:
            self._pending.add(work)
            self._changed.notify_all()

    def _restore(self, reason: str) -> None:
        """``reason``: why the integration bridge has lost its flows, or is not as it must be."""
        with self._changed:
            self._loss = self._loss or reason
            self._intact = False
        self._request(_Work.PREPARE)

    def _pause(self) -> float:
        with self._changed:
            return self._budget.pause()

    def _watch_ovsdb(self) -> None:
        self._stopping.wait(_OVSDB_TICK)
        self._switch.ovsdb.check()

    # The work itself.

    def _connect(self) -> None:
        self._switch.ovsdb.start(self)
        self._request(_Work.PREPARE)

    def _prepare(self) -> None:
        """The switch as it must be before any port; what it lost is not taken for proven."""
        self._lose()
        if self._made is not None and self._bridges.integration_make() is None:
            self._stopping.wait(_GRACE)
        # Whatever happens to the bridge from here on is another make of it.
        made = self._bridges.ensure_integration()
        if not self._watch.started:
            self._start_watch()
        elif self._watch.settle():
            with self._changed:
                again = _Work.PREPARE in self._pending
                self._pending.discard(_Work.PREPARE)
            if again:
                # The switch closed the watch's connection for the change that is mended here, or
                # ended before anything was written to it: to prepare it again would only break off
                # the ports' flows.
                self._lose()
        self._switch.ovsdb.settle()
        self._switch.firewall.start()
        self._made = made
        if not self._pause():
            self._troubles.clear(Trouble.BRIDGE)
        with self._changed:
            serves = self._intact = not self._switch_is_gone
        if serves:
            self._troubles.clear(Trouble.SWITCH)
        self._join()
        if not self._ready:
            self._reconciler.start()
            self._ready = True
            self._troubles.clear(Trouble.CONTROL)
        self._request(_Work.LOOK)
        self._resync()

    def _lose(self) -> None:
        """Take nothing for proven: why is reported of each port that was."""
        with self._changed:
            reason, self._loss = self._loss, ""
        if self._made is not None:
            self._switch.networks.forget()
            self._reconciler.table.lose(_drift(reason) if reason else None)

    def _start_watch(self) -> None:
        try:
            self._watch.start()
            for monitor in self._monitors:
                monitor.start()
        except OSError as exc:
            reason = (
                f"ovs-vswitchd does not serve bridge {self._bridges.integration}: {exc}; is it "
                "running, is ovs_run_dir right?"
            )
            self._troubles.report(Trouble.SWITCH, reason)
            raise TaskFailed(TaskError(ErrorType.SWITCH_UNREACHABLE, reason)) from None

    def _look(self) -> None:
        """At the bridges: is each the one that has our flows?"""
        if self._made is None:
            return
        now = self._bridges.integration_make()
        if now != self._made:
            reason = making.difference(self._bridges.integration, self._made, now)
            if not self._pause():
                # Otherwise the trouble that its ports wait stays to be read.
                self._troubles.report(Trouble.BRIDGE, f"{reason}; restoring it and its ports")
            LOG.warning("%s; restoring it and its ports", reason)
            with self._changed:
                self._changed_by_another = True
            self._restore(reason)
            return
        self._switch.networks.mend_records()
        self._join()
        self._switch.networks.empty_ahead()

    def _join(self) -> None:
        """Join the physical networks' bridges; ports whose way out is another now are looked at."""
        missing: list[TaskFailed] = []
        failed: list[TaskFailed] = []
        moved: set[str] = set()
        for physical_network in self._bridges.mappings:
            uplink = None
            try:
                uplink = self._switch.networks.join(physical_network)
            except TaskFailed as exc:
                # Of the bridge, or of the tool and the database.
                (failed if exc.whole_batch else missing).append(exc)
            if uplink != self._uplinks.get(physical_network):
                moved.add(physical_network)
            self._uplinks[physical_network] = uplink
        if missing:
            lines = [each.error.message for each in missing]
            self._troubles.report(Trouble.UPLINK, "; ".join(lines))
        else:
            self._troubles.clear(Trouble.UPLINK)
        for physical_network, reason in self._switch.networks.cut_off().items():
            moved.add(physical_network)
            lost = _drift(
                f"the uplink to physical network {physical_network} was changed: {reason}"
            )
            wired = self._wired_on({physical_network}, proven=True)
            self._reconciler.drifted(dict.fromkeys(wired, lost))
        unproven = self._wired_on(moved, proven=False)
        if unproven:
            self._reconciler.submit(unproven, forced=True)
        if failed:
            raise failed[0]

    def _submit(self) -> None:
        """Ports whose change may have been missed."""
        self._reconciler.submit(self._present() | self._known())

    def _sweep(self) -> None:
        """Remove the flows of no port; only after every port was tried, for it may need them."""
        ovsdb, bridge = self._switch.ovsdb, self._switch.bridge
        # A port that failed before its security groups' turn keeps what an older
        # process left for it; one that is not desired here any more does not.
        tried = interfaces.find(ovsdb, bridge, self._known())
        ofports = [each.ofport for each in tried.values() if each.ofport is not None]
        swept = self._switch.firewall.sweep(PresentPorts(ovsdb, bridge), ofports)
        self._switch.networks.sweep()
        LOG.info("Swept %d stale flows", swept)

    def _known(self) -> frozenset[str]:
        return frozenset(self._reconciler.table.known())

    def _wired_on(self, physical_networks: Collection[str], *, proven: bool) -> frozenset[str]:
        """Ports whose network is on one of these physical networks."""
        return frozenset(
            port_id
            for port_id, applied in self._reconciler.table.known().items()
            if applied.proven is proven
            and applied.wiring.network.physical_network in physical_networks
        )

    def _present(self) -> frozenset[str]:
        return frozenset(interfaces.find_all(self._switch.ovsdb, self._switch.bridge))


def _drift(reason: str) -> Drift:
    """Of every port concerned: what happened to its bridge."""
    return Drift(Step.L2, TaskError(ErrorType.DRIFT, reason))
