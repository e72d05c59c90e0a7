"""Brings ports inside Neutron's agent to what was told of them: batches, retries, outcomes."""

import dataclasses
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from oslo_log import log

from agent_flows.engine.runner import Runner, Work, error_of
from agent_flows.engine.task import TaskFailed
from agent_flows.neutron import interfaces
from agent_flows.neutron.agent import flows
from agent_flows.neutron.agent.desired_state import DesiredPorts
from agent_flows.neutron.agent.flows import Switch
from agent_flows.neutron.agent.quarantine import Endpoint
from agent_flows.neutron.agent.retries import Retries
from agent_flows.neutron.interfaces import Bridge, Interface, Located
from agent_flows.neutron.reporting import Reporting, amended
from agent_flows.report import FlowName, FlowReport, TaskError, Trouble
from agent_flows.secgroups.tasks import ApplySecurityGroups
from agent_flows.supervision import Backoff, Loop, Troubles, described

LOG = log.getLogger(__name__)

_WAITED_FOR = 3
"""Attempts of a port that a sweep of stale flows waits for: the first looks after a start may come
before OVSDB's replica is whole, and one bad port must not keep stale flows for good."""


@dataclass(frozen=True)
class Proven:
    """How a port stood when it was last seen in the switch: at which version of what was told,
    of it and all it depends on, and of it alone."""

    version: int
    own_version: int
    interface: Interface


@dataclass(frozen=True)
class _Batch:
    """Ports of one flow, and what was known of them before it ran."""

    works: Sequence[Work]
    flows: Mapping[str, FlowName]
    located: Located
    versions: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


class Reconciler:
    """Runs one batch at a time, whoever asks: the agent's loop, or the thread that tries what
    has failed again. No method raises for a port's trouble.

    A port that failed is tried again when something of its own has changed, or when its backoff
    is over; what the agent says of other ports costs it nothing.
    """

    def __init__(
        self,
        runner: Runner,
        bridge: Bridge,
        switch: Switch,
        desired: DesiredPorts,
        troubles: Troubles,
        *,
        backoff: Backoff,
        max_batch: int,
    ) -> None:
        self.reporting = Reporting()
        self._bridge, self._switch, self._desired = bridge, switch, desired
        self._runner = runner
        self._troubles, self._max_batch = troubles, max_batch
        self._lock = threading.RLock()
        self._started = False
        self._swept = False
        # Something that concerns the whole host is yet to be done.
        self._unfinished = True
        self._proven: dict[str, Proven] = {}
        self._retries = Retries(backoff)
        # Ports that are gone, whose flows may still stand: as they were wired.
        self._leaving: dict[str, Located] = {}
        # Ports that had no interface when they were last looked at.
        self._missing: frozenset[str] = frozenset()
        self._outcomes: dict[str, FlowReport] = {}
        self._news = threading.Event()
        self._loop = Loop("agent_flows retries", self._step, troubles, Trouble.CONTROL, backoff)

    def stop(self, timeout: float) -> None:
        """End the thread that retries."""
        self._loop.stopping.set()
        self._news.set()
        self._loop.stop(timeout)

    def outcome(self, port_id: str) -> FlowReport | None:
        """The last report of a port that is wired, or is to be."""
        return self._outcomes.get(port_id)

    def apply(self, port_ids: Iterable[str] = (), gone: Iterable[str] = ()) -> None:
        """Bring these ports to what was told of them, and take away those that are ``gone``: one
        batch."""
        with self._lock:
            leaving = list(gone)
            for port_id in leaving:
                self._leave(port_id)
            self._process({*port_ids, *leaving})
        self._news.set()

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        """Apply and verify ports (None: all) whether or not anything has changed, and compare
        every flow. Of those that nobody spoke of, report the ones without an interface."""
        with self._lock:
            self._switch.firewall.distrust()
            chosen = self._desired.port_ids() if port_ids is None else frozenset(port_ids)
            for port_id in chosen:
                self._proven.pop(port_id, None)
            unheard = chosen - self._desired.port_ids() - self._leaving.keys()
            self.apply(chosen, gone=interfaces.locate(self._bridge, unheard).absent)

    def prove_anew(self, port_id: str) -> None:
        """Apply and verify the port if it stands; one that does not is on its way.

        Unlike :meth:`resync` without a comparison of every flow: it comes port by port.
        """
        with self._lock:
            if self._proven.pop(port_id, None):
                self.apply([port_id])

    def switch_restarted(self) -> None:
        """All flows are gone: put the pipeline back and apply every port."""
        with self._lock:
            self._started, self._unfinished = False, True
            self.resync()

    def start(self) -> None:
        """Install the pipeline, and take over what stands; if that fails it is tried again, in the
        background and with every batch."""
        with self._lock:
            try:
                self._start()
            except TaskFailed as exc:
                LOG.error("The pipeline could not be installed: %s (%s)", exc, exc.error.detail)
        self._loop.start()

    def _start(self) -> None:
        if not self._started:
            self._switch.firewall.start()
            self._switch.quarantine.start()
            self._started, self._swept = True, False

    def _leave(self, port_id: str) -> None:
        proven = self._proven.pop(port_id, None)
        found = {port_id: proven.interface} if proven else {}
        self._leaving[port_id] = Located(found)
        self._retries.settled(port_id)

    def _step(self) -> None:
        """Try again what is due, and what concerns the whole host; raises for the latter."""
        with self._lock:
            pause = 0.0 if self._unfinished else self._retries.pause(time.monotonic())
        self._news.wait(pause)
        self._news.clear()
        with self._lock:
            self._unfinished = True
            self._process(self._retries.due(time.monotonic(), self._max_batch))
            self._start()
            self._sweep()
            self._unfinished = False

    def _process(self, port_ids: Collection[str]) -> None:
        try:
            self._run(port_ids)
        # The one door that keeps the agent's loop alive; it ends in an outcome of each port that
        # cannot be processed, or in the host's trouble.
        except Exception as exc:
            if len(port_ids) > 1:
                LOG.exception("%d ports are processed one by one", len(port_ids))
                for port_id in port_ids:
                    self._process([port_id])
                return
            for port_id in port_ids:
                self._give_up(port_id, exc)

    def _give_up(self, port_id: str, exc: Exception) -> None:
        """The port could not even be looked at: that is its outcome."""
        try:
            flow = FlowName.UNWIRE if port_id in self._leaving else FlowName.WIRE
            work = Work(port_id, 0, {}, self._retries.attempts(port_id) + 1)
            batch = _Batch([work], {port_id: flow}, Located())
            self._settle(
                batch, [self._runner.never_ran(flow, work, ApplySecurityGroups, error_of(exc))]
            )
        # A door inside that door: nothing is known to be left that could raise.
        except Exception as further:
            LOG.exception("Port %s could not be reported", port_id)
            self._troubles.report(Trouble.PORTS, f"port {port_id}: {described(further)}")
            self._retries.failed(port_id, self._retries.attempts(port_id) + 1, time.monotonic())
        else:
            self._troubles.clear(Trouble.PORTS)

    def _run(self, port_ids: Collection[str]) -> None:
        known = self._desired.port_ids()
        # Told of again after it had gone: it is to be wired, and that replaces what stands.
        self._leaving = {each: at for each, at in self._leaving.items() if each not in known}
        self._retries.keep(lambda port_id: port_id in known or port_id in self._leaving)
        wanted = known.intersection(port_ids)
        located = interfaces.locate(self._bridge, wanted)
        self._miss(wanted, located.absent)
        leaving = self._leaving_batch(port_ids)
        self._run_flow(FlowName.UNWIRE, leaving)
        self._run_flow(FlowName.WIRE, self._changed_batch(wanted - located.absent, located))
        if leaving.works:
            self._desired.forget_unused()
        try:
            self._sweep()
        except TaskFailed as exc:
            # The thread that retries takes it up, and its trouble is the host's.
            self._unfinished = True
            LOG.error("Stale flows stay for now: %s (%s)", exc, exc.error.detail)

    def _miss(self, looked_for: Set[str], absent: Set[str]) -> None:
        """A port without an interface at two looks is gone: the agent is slow to say so, or speaks
        of it once more, for the server has changed it. At one look it may be OVSDB's replica,
        which is empty for a moment when OVSDB has been away."""
        gone = absent & self._missing
        self._missing = (self._missing - looked_for) | (absent - gone)
        for port_id in gone:
            self._desired.remove(port_id)
            self._leave(port_id)
        for port_id in absent - gone:
            self._retries.look_again(port_id, time.monotonic())

    def _leaving_batch(self, port_ids: Collection[str]) -> _Batch:
        gone = [port_id for port_id in self._leaving if port_id in port_ids]
        found = {id_: each for at in self._leaving.values() for id_, each in at.interfaces.items()}
        flows = dict.fromkeys(gone, FlowName.UNWIRE)
        return _Batch([self._work(port_id) for port_id in gone], flows, Located(found))

    def _changed_batch(self, port_ids: Collection[str], located: Located) -> _Batch:
        versions = {port_id: self._desired.versions(port_id) for port_id in port_ids}
        flows = {
            port_id: self._flow(port_id, located.interfaces.get(port_id), *versions[port_id])
            for port_id in port_ids
        }
        needed = {port_id: flow for port_id, flow in flows.items() if flow is not None}
        return _Batch([self._work(port_id) for port_id in needed], needed, located, versions)

    def _flow(
        self, port_id: str, interface: Interface | None, version: int, own_version: int
    ) -> FlowName | None:
        """Which flow the port needs; none if it stands as told already."""
        proven = self._proven.get(port_id)
        if proven is None or proven.interface != interface or proven.own_version != own_version:
            return FlowName.WIRE
        settled = port_id not in self._retries and proven.version == version
        if settled and not self._switch.quarantine.holds(proven.interface.ofport):
            return None
        return FlowName.REFRESH

    def _work(self, port_id: str) -> Work:
        port, attempt = self._desired.get(port_id), self._retries.attempts(port_id) + 1
        if port is None:  # gone, at whatever revision
            return Work(port_id, 0, {}, attempt)
        revision = self.reporting.revision(port_id, port.raw)
        return Work(port_id, revision, self._desired.group_revisions(port_id), attempt)

    def _run_flow(self, name: FlowName, batch: _Batch) -> None:
        if not batch.works:
            return
        waiting = {work.port_id: work for work in batch.works}

        def deliver(reports: Sequence[FlowReport]) -> None:
            for report in reports:
                waiting.pop(report.resource_id)
            self._settle(batch, reports)

        try:
            self._start()
            compose = flows.unwire if name is FlowName.UNWIRE else flows.wire
            self._runner.run(
                name,
                lambda: compose(self._switch),
                batch.works,
                self._inputs(name, batch),
                deliver,
            )
        # The one door that keeps the agent's loop alive.
        except Exception as exc:  # noqa: BLE001
            error = error_of(exc)
            self._settle(
                batch,
                [
                    self._runner.never_ran(name, work, ApplySecurityGroups, error)
                    for work in waiting.values()
                ],
            )

    def _inputs(self, name: FlowName, batch: _Batch) -> dict[str, object]:
        port_ids = [work.port_id for work in batch.works]
        if name is FlowName.UNWIRE:
            return {"attachments": batch.located.attachments(port_ids)}
        plugged = batch.located.interfaces
        wanted = self._desired.resolve({id_: plugged[id_] for id_ in port_ids if id_ in plugged})
        return {"located": batch.located, "refused": wanted.refused, "desired": wanted.state}

    def _settle(self, batch: _Batch, reports: Sequence[FlowReport]) -> None:
        """Close those ports that must not stay open, report how all were left, and only when that
        is safely kept remember it: until then each of them is yet to be done."""
        failed = [report.resource_id for report in reports if report.failed is not None]
        wired = [each for each in failed if batch.flows[each] is not FlowName.UNWIRE]
        unclosed = self._close([port for id_ in wired if (port := self._endpoint(id_, batch))])
        told = [
            dataclasses.replace(
                amended(report, unclosed) if unclosed and report.failed else report,
                flow=batch.flows[report.resource_id],
            )
            for report in reports
        ]
        now = time.monotonic()
        for report in told:
            self._retries.failed(report.resource_id, report.attempt, now)
        if self._delivered(told):
            self._remember(batch, told)

    def _close(self, ports: Sequence[Endpoint]) -> TaskError | None:
        try:
            self._switch.quarantine.close_failed(ports)
        except TaskFailed as exc:
            return exc.error
        return None

    def _endpoint(self, port_id: str, batch: _Batch) -> Endpoint | None:
        """None for a port without ofport."""
        ofport = batch.located.ofports.get(port_id)
        interface = batch.located.interfaces.get(port_id)
        if ofport is None or interface is None:
            return None if ofport is None else Endpoint(port_id, ofport)
        network = interface.network
        segment = None if network.physical_network is None else network.segmentation_id or 0
        port = self._desired.get(port_id)
        macs = port.macs if port else frozenset()
        return Endpoint(port_id, ofport, interface.vlan, macs, segment)

    def _delivered(self, reports: Sequence[FlowReport]) -> bool:
        try:
            self.reporting.deliver(reports)
        # Whatever the receiver's trouble is: what it did not take is done and reported again,
        # after each port's backoff.
        except Exception as exc:  # noqa: BLE001
            LOG.error("%d reports could not be delivered: %s", len(reports), described(exc))
            self._troubles.report(Trouble.OUTBOX, described(exc))
            return False
        self._troubles.clear(Trouble.OUTBOX)
        return True

    def _remember(self, batch: _Batch, reports: Sequence[FlowReport]) -> None:
        done = [report.resource_id for report in reports if report.failed is None]
        self._switch.firewall.commit(done)
        self._outcomes |= {report.resource_id: report for report in reports}
        for port_id in done:
            self._retries.settled(port_id)
            if batch.flows[port_id] is FlowName.UNWIRE:
                self._leaving.pop(port_id)
                self._outcomes.pop(port_id)
            else:
                interface = batch.located.interfaces[port_id]
                self._proven[port_id] = Proven(*batch.versions[port_id], interface)

    def _sweep(self) -> None:
        """Once everything is in place after a start: remove what belongs to nobody.

        Raises :class:`TaskFailed`.
        """
        if self._swept or not self._proven or not self._retries.all_tried(_WAITED_FOR):
            return
        present = interfaces.ofports(self._bridge)
        removed = self._switch.firewall.sweep(self._desired.port_ids(), present)
        self._switch.quarantine.sweep(present)
        self._swept = True
        LOG.info("%d stale flows were removed", removed)
