"""Keeps the switch ready for ports, and has every port looked at when that is called for."""

import enum
import queue
import threading
from collections.abc import Callable, Collection

import oslo_messaging
from oslo_log import log

from agent_flows.agent.reconcile import Reconciler, Specs
from agent_flows.flows.participant import Participant
from agent_flows.flows.task import PortErrors, TaskFailed
from agent_flows.l2 import interfaces
from agent_flows.l2.bridges import Bridges
from agent_flows.l2.flows import Switch
from agent_flows.l2.interfaces import PresentPorts
from agent_flows.l2.ovsdb import OvsdbUnreachable
from agent_flows.l2.vswitchd import SwitchWatch
from agent_flows.secgroups.ofctl import SwitchError, Timeout
from agent_flows.supervision import Backoff
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

_BACKOFF = Backoff(0.5, 10.0)


class _Event(enum.Enum):
    SWITCH_RESTARTED = "Open vSwitch was restarted"
    DATABASE_RELOADED = "the connection to OVSDB was lost and is back"
    RESYNC = "a resync of every port is wanted"
    SERVER_BACK = "the server answers again"
    ALL_SEEN = "every port has been dealt with"
    STOP = "the agent ends"


class Control:
    """One thread that acts on what concerns the whole host; everything else goes port by port.

    It is the listener of the database and of the server's casts: those methods
    only note what is to be done.
    """

    def __init__(
        self,
        switch: Switch,
        bridges: Bridges,
        participant: Participant,
        reconciler: Reconciler,
        server: Specs,
    ) -> None:
        self._switch = switch
        self._bridges = bridges
        self._participant = participant
        self._reconciler = reconciler
        self._server = server
        self._events: queue.Queue[_Event] = queue.Queue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self.trouble: str | None = "starting"

    def start(self, watch: SwitchWatch) -> None:
        """``watch`` is started once there is a bridge to watch."""
        self._watch = watch
        self._thread.start()

    def stop(self, timeout: float) -> None:
        self._stopping.set()
        self._events.put(_Event.STOP)
        if self._thread.is_alive():
            self._thread.join(timeout)

    # What happens on the host.

    def interfaces_changed(self, port_ids: frozenset[str]) -> None:
        self._participant.submit(port_ids)

    def bridges_changed(self) -> None:
        """What a port needs of them is looked at when it is wired."""

    def database_reloaded(self) -> None:
        self._events.put(_Event.DATABASE_RELOADED)

    def switch_restarted(self) -> None:
        self._events.put(_Event.SWITCH_RESTARTED)

    def server_back(self) -> None:
        """Casts may have been lost while it was away."""
        self._events.put(_Event.SERVER_BACK)

    # What the server tells.

    def ports_changed(self, port_ids: Collection[str]) -> None:
        self._participant.submit(port_ids, asked=True)

    def security_groups_changed(self, ids: Collection[str]) -> None:
        # Their backoff goes on: a group that changes often must not undo it.
        self._participant.submit(self._switch.firewall.affected_by(ids), afresh=False)

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        if port_ids is None:
            self._events.put(_Event.RESYNC)
        else:
            self._participant.submit(port_ids, forced=True)

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as exc:
            # No such end is foreseen; from now on every heartbeat tells of it.
            self.trouble = f"ended by {type(exc).__name__}: {exc}"
            raise

    def _act(self) -> None:
        if all(map(self._until_done, (self._connect, self._ensure_bridge, self._prepare))):
            self._participant.start()
            self._events.put(_Event.RESYNC)
        while (event := self._events.get()) is not _Event.STOP:
            LOG.info("Acting on this: %s", event.value)
            match event:
                case _Event.SWITCH_RESTARTED:
                    self._until_done(self._restore)
                    self._events.put(_Event.RESYNC)
                case _Event.RESYNC:
                    self._until_done(self._submit_all, later=event)
                case _Event.ALL_SEEN:
                    self._until_done(self._sweep)
                case _:
                    self._participant.submit(self._present() | self._reconciler.known())

    def _until_done(self, step: Callable[[], None], later: _Event | None = None) -> bool:
        """Try ``step`` until it succeeds; what keeps it from that is the agent's trouble,
        which its heartbeats tell. False if the agent is to end.

        A step that other events need not wait for comes back as the event ``later``.
        """
        failures = 0
        while not self._stopping.is_set():
            try:
                step()
            except (
                OvsdbUnreachable,
                TaskFailed,
                PortErrors,
                SwitchError,
                Timeout,
                OSError,
                oslo_messaging.MessagingException,
                Invalid,
            ) as exc:
                failures += 1
                pause = _BACKOFF.delay(failures)
                self.trouble = f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"
                LOG.error("%s; ports keep their flows; next try in %.1f s", self.trouble, pause)
                self._stopping.wait(pause)
                if later is not None and not self._events.empty():
                    self._events.put(later)
                    return False
            else:
                self.trouble = None
                return True
        return False

    def _connect(self) -> None:
        self._switch.ovsdb.start(self)

    def _ensure_bridge(self) -> None:
        self._bridges.ensure_integration()
        # Before the first flow: whatever takes it away from here on is noticed.
        self._watch.start()

    def _restore(self) -> None:
        # The flows are gone, and so is all we knew of them.
        self._switch.networks.forget()
        self._reconciler.forget_proofs()
        self._bridges.ensure_integration()
        self._prepare()

    def _prepare(self) -> None:
        """The switch as it must be before any port."""
        self._switch.ovsdb.settle()
        self._switch.firewall.start()
        for physical_network in self._bridges.mappings:
            try:
                self._bridges.uplink(physical_network)
            except TaskFailed as exc:
                # Becomes the outcome of every port that needs it.
                LOG.error("%s", exc.error.message)

    def _submit_all(self) -> None:
        """Every port here, and those bound here, so that their absence is told."""
        bound = self._server.get_ports(None).ports
        present = self._present()
        self._reconciler.watch_for(present, lambda: self._events.put(_Event.ALL_SEEN))
        self._participant.submit(present | self._reconciler.known() | bound.keys(), forced=True)

    def _sweep(self) -> None:
        """Nobody's flows go. Only now: before, a port's own might have been taken for such."""
        ovsdb, bridge = self._switch.ovsdb, self._switch.bridge
        # A port that failed before its security groups' turn keeps what an older
        # process left for it; one that is not desired here any more does not.
        tried = interfaces.find(ovsdb, bridge, self._reconciler.known())
        ofports = [each.ofport for each in tried.values() if each.ofport is not None]
        swept = self._switch.firewall.sweep(PresentPorts(ovsdb, bridge), ofports)
        self._switch.networks.sweep()
        LOG.info("Swept %d stale flows", swept)

    def _present(self) -> frozenset[str]:
        return frozenset(interfaces.find_all(self._switch.ovsdb, self._switch.bridge))
