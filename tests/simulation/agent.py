"""A process of the standalone agent: the product's parts, on a simulated switch, bus and disk."""

import itertools
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import oslo_messaging
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent_flows.agent.auditor import AgentAuditor
from agent_flows.agent.catch_up import CatchUp
from agent_flows.agent.flows import Switch as FlowSwitch
from agent_flows.agent.site import AgentSite
from agent_flows.agent.upkeep import Upkeep
from agent_flows.engine.drift import EVERYTHING, NONE, Suspicion
from agent_flows.engine.port_life import Life, Phase
from agent_flows.engine.reconciler import Reconciler
from agent_flows.engine.runner import Runner
from agent_flows.engine.task import PortErrors, TaskFailed
from agent_flows.l2.bindings import Bindings
from agent_flows.l2.bridges import Bridges
from agent_flows.l2.networks import Networks
from agent_flows.l2.vlans import VlanRecords
from agent_flows.openflow import ofctl
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.report import FlowReport, ResourceType, Trouble
from agent_flows.reporting.comparison import Comparison
from agent_flows.reporting.heartbeat import Heartbeat
from agent_flows.reporting.outbox import Outbox
from agent_flows.reporting.reporter import Reporter
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.rpc.dispatch import dispatcher_of
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.signing import HostKeys, Signer, public_text
from agent_flows.secgroups.firewall import Firewall
from agent_flows.supervision import Backoff, Troubles
from tests.simulation.bus import Incoming, Message, Outside
from tests.simulation.steps import Clock, Every, Process
from tests.simulation.switch import BRIDGE, Ofctl, Ovsdb, Switch

HEARTBEAT, AUDIT = 10.0, 30.0
"""Seconds from one to the next."""
BACKOFF = Backoff(1.0, 30.0)
_TIMEOUT = 30.0
_PATH = itertools.count()


class Disk:
    """Where the outbox and the host's key are: it outlives the process. The outbox may be replaced
    by an older copy."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.public_key = public_text(self.key)
        self.full = False
        self.empty()
        self._copy: sqlite3.Connection | None = None

    def empty(self) -> None:
        self.path = f"file:outbox-{next(_PATH)}?mode=memory&cache=shared"
        self._keeper = sqlite3.connect(self.path, uri=True)

    def copy(self) -> None:
        """Make a copy to which :meth:`restore` returns."""
        self._copy = sqlite3.connect(":memory:")
        self._keeper.backup(self._copy)

    def restore(self) -> None:
        copy = self._copy
        self.empty()
        if copy is not None:
            copy.backup(self._keeper)

    def ids(self) -> frozenset[str]:
        """The reports that are stored."""
        tables = self._keeper.execute("SELECT name FROM sqlite_master WHERE name = 'unsent'")
        if not tables.fetchall():
            return frozenset()
        return frozenset(id_ for (id_,) in self._keeper.execute("SELECT id FROM unsent"))


class _Outbox(Outbox):
    """Ends with its process before or after each commit; ``stored`` gets what was stored."""

    def __init__(
        self,
        disk: Disk,
        process: Process,
        clock: Clock,
        troubles: Troubles,
        stored: Callable[[Sequence[FlowReport]], None],
    ) -> None:
        super().__init__(disk.path, 1000, troubles, clock=clock.microseconds)
        self._disk_, self._process, self._stored_ = disk, process, stored
        # The ports whose last report could not be stored.
        self.lost: set[str] = set()

    def put(self, reports: Sequence[FlowReport]) -> None:
        with self._process.around("the reports are stored", free=False):
            self._fill()
            ids = {report.resource_id for report in reports}
            try:
                super().put(reports)
            except sqlite3.Error:
                self.lost |= ids
                raise
            groups = any(report.resource_type is not ResourceType.PORT for report in reports)
            self.lost = set() if groups else self.lost - ids
            self._stored_(reports)

    def writable(self) -> bool:
        self._fill()
        return super().writable()

    def _fill(self) -> None:
        """Whether a write fails on a disk that is full would depend on what was deleted before."""
        for table in ("unsent", "probe"):
            self._db.execute(f"DROP TRIGGER IF EXISTS temp.full_{table}")
            if self._disk_.full:
                self._db.execute(
                    f"CREATE TEMP TRIGGER full_{table} BEFORE INSERT ON main.{table} "
                    "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
                )

    def forget(self, ids: Collection[str]) -> None:
        with self._process.around("acknowledged reports are deleted", free=False):
            super().forget(ids)


class _Reconciler(Reconciler):
    """5: notes a port that two workers claim at a time, or that was asked for while it was claimed,
    and is not to run again. Its workers have their turns when the simulation gives them one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.defect = ""
        self._claimed: set[str] = set()
        self._asked: set[str] = set()
        self.submit = self._submit

    def start(self) -> None:
        """No threads."""

    def _submit(self, port_ids: Collection[str], **how: Any) -> None:
        self._asked |= self._claimed & set(port_ids)
        self.table.submit(port_ids, **how)

    def _process(self, batch: Sequence[Life]) -> None:
        ids = {life.port_id for life in batch}
        if twice := ids & self._claimed:
            self.defect = f"invariant 5: {twice} are in two flows at a time"
        self._claimed |= ids
        super()._process(batch)
        self._claimed -= ids
        again, self._asked = self._asked & ids, self._asked - ids
        if lost := {id_ for id_ in again if self.table.life(id_).phase is not Phase.READY}:
            self.defect = f"invariant 5: {lost} were asked for in a flow, which does not run again"


class _Watch:
    """In place of the connection to the bridge's socket."""

    started = False

    def start(self) -> None:
        self.started = True

    def settle(self) -> bool:
        return True


class Agent(Process):
    """The agent of ``host``. ``stored`` gets each batch of reports when it was stored."""

    def __init__(
        self,
        name: str,
        host: str,
        switch: Switch,
        outside: Outside,
        stored: Callable[["Agent", Sequence[FlowReport]], None],
    ) -> None:
        super().__init__(name, outside.say)
        self.host, self.switch, self.disk = host, switch, Disk()
        # After how many transactions of a worker another one has a turn.
        self.overlap: tuple[int, Callable[[], None]] | None = None
        # The identities of all processes so far.
        self.boots: list[Identity] = []
        self._bus, self._clock, self._note = outside.bus, outside.clock, stored
        self.start()

    def start(self) -> None:
        """A new process; what is on disk and in the switch is there."""
        self.alive = True
        self.forget_plans()
        self.troubles = Troubles()
        self.suspicion = NONE
        self._beats, self._audits = Every(HEARTBEAT, self._clock), Every(AUDIT, self._clock)
        clock, switch = self._clock, self.switch
        self.outbox = _Outbox(
            self.disk, self, clock, self.troubles, lambda reports: self._note(self, reports)
        )
        self.boots.append(self.outbox.identity)
        signer = Signer(
            self.outbox.identity, self.host, HostKeys(self.disk.key), clock.microseconds
        )
        client = ServerClient(self._bus.of(self), self.host, _TIMEOUT, signer)
        ovsdb: Any = Ovsdb(switch, self)
        bridges = Bridges(ovsdb, BRIDGE, "netdev", {})
        networks = Networks(VlanRecords(ovsdb, BRIDGE), bridges, self._ofctl)
        self.parts = FlowSwitch(
            BRIDGE,
            ovsdb,
            networks,
            Bindings(ovsdb),
            Firewall(self._ofctl(BRIDGE), Pipeline(Home.OWN), networks=networks),
            self._ofctl(BRIDGE),
        )
        site = AgentSite(self.parts, client, self.outbox, self._groups_changed)
        self.knowledge = site.knowledge
        self.reconciler = _Reconciler(
            site,
            Runner(self.host, clock.now),
            backoff=BACKOFF,
            max_batch=100,
            workers=2,
            troubles=self.troubles,
            clock=clock.monotonic,
        )
        self.upkeep = Upkeep(
            self.parts,
            bridges,
            self.reconciler,
            self._suspect,
            troubles=self.troubles,
            clock=clock.monotonic,
        )
        self.catch_up = CatchUp(
            client,
            site,
            self.reconciler,
            self.upkeep,
            unreported=lambda: len(self.outbox) != 0,
            troubles=self.troubles,
            clock=clock.monotonic,
        )
        self.auditor = AgentAuditor(
            self.parts, self.reconciler.table, self._ofctl, self.upkeep.is_intact
        )
        self.reporter = Reporter(
            self.outbox,
            client,
            self.troubles,
            lost=lambda ids: self.reconciler.submit(ids, forced=True),
        )
        self.heartbeat = Heartbeat(
            client,
            HEARTBEAT,
            self._state,
            self.outbox.raise_sequence,
            self.catch_up.server_back,
            troubles=self.troubles,
            comparison=Comparison(
                self.knowledge.digest,
                self.catch_up.digests_differ,
                HEARTBEAT,
                clock=clock.monotonic,
            ),
        )
        self.dispatcher = dispatcher_of(AgentEndpoint(self.catch_up))
        watch: Any = _Watch()
        self.upkeep.begin(watch, (), self.catch_up.resync)

    # What its threads do, one turn each; False if there is nothing to do, or not before a pause.

    def work(self) -> bool:
        """A worker of the reconciler."""
        return self.upkeep.is_ready and self.reconciler.process_ready()

    def point(self, where: str, *, free: bool = True) -> None:
        super().point(where, free=free)
        # One that is there holds no lock.
        if self.overlap is not None and "transaction of OVSDB" in where:
            points, act = self.overlap
            self.overlap = (points - 1, act) if points else None
            if not points:
                act()

    def care(self) -> bool:
        """The loop for what concerns the host."""
        try:
            return self.upkeep.work_once()
        except (TaskFailed, PortErrors, OSError) as exc:
            self.say(f"    {exc}")
            return False

    def ask(self) -> bool:
        """The loop that asks the server."""
        try:
            return self.catch_up.ask_once()
        except oslo_messaging.MessagingException:
            return False

    def report(self) -> bool:
        try:
            delivered = self.reporter.deliver()
        except (oslo_messaging.MessagingException, sqlite3.Error):
            return False
        return delivered and len(self.outbox) > 0

    def beat(self) -> bool:
        if self._beats.is_due():
            self.heartbeat.beat()
        return False

    def audit(self) -> bool:
        """What is suspected is compared, and from time to time everything."""
        return self._compare(EVERYTHING if self._audits.is_due() else self.suspicion)

    def hear(self, message: Message) -> None:
        self.dispatcher.dispatch(Incoming(message))

    def _compare(self, suspicion: Suspicion) -> bool:
        self.suspicion = NONE
        if not suspicion or not self.upkeep.is_ready:
            return False
        try:
            found = self.auditor.compare(suspicion)
        except TaskFailed:
            self.suspicion |= suspicion
            return False
        if found:
            self.reconciler.drifted(found)
        return bool(found)

    def _groups_changed(self, port_ids: Collection[str]) -> None:
        self.catch_up.ports_of_groups_changed(port_ids)

    def _suspect(self, suspicion: Suspicion) -> None:
        self.suspicion |= suspicion

    def _state(self) -> Mapping[str, Any]:
        troubles = dict(self.troubles.current())
        return {
            "troubles": troubles,
            "trouble": next(iter(troubles.values()), None),
            "unreported": len(self.outbox),
        }

    def _ofctl(self, bridge: str) -> ofctl.Ofctl:
        return ofctl.Ofctl("/run", bridge, 10, Ofctl(self.switch, self))

    @property
    def has_defect(self) -> str:
        """What the one door of a batch caught, for in a simulation nothing may get there; or what
        the reconciler noted."""
        raised = self.troubles.current().get(Trouble.PORTS)
        return f"a batch raised: {raised}" if raised else self.reconciler.defect
