"""Brings ports inside Neutron's agent to what was told of them: batches, retries, outcomes."""

import dataclasses
import threading
import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from oslo_log import log

from agent_flows.flows.participant import Participant, Request, Verdict
from agent_flows.flows.runner import Runner, Work
from agent_flows.flows.task import TaskFailed
from agent_flows.neutron import flows, interfaces
from agent_flows.neutron.closing import Closing
from agent_flows.neutron.flows import Switch
from agent_flows.neutron.interfaces import Bridge, Interface, Located
from agent_flows.neutron.reporting import Reporting, amended, never_ran
from agent_flows.neutron.told import Told
from agent_flows.report import FlowName, FlowReport, TaskError
from agent_flows.supervision import Backoff

LOG = log.getLogger(__name__)


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
    has failed again. No method raises for a port's trouble."""

    def __init__(
        self,
        host: str,
        bridge: Bridge,
        switch: Switch,
        told: Told,
        *,
        backoff: Backoff,
        max_batch: int,
    ) -> None:
        self.reporting = Reporting()
        self._host, self._bridge, self._switch, self._told = host, bridge, switch, told
        self.closing = Closing(switch.quarantine, told, self._proven_interfaces)
        self._lock = threading.RLock()
        self._started = False
        self._swept = False
        self._proven: dict[str, Proven] = {}
        # Attempts made for each port that is not where it should be.
        self._pending: dict[str, int] = {}
        # Ports that are gone, whose flows may still stand: as they were wired.
        self._leaving: dict[str, Located] = {}
        # Ports that had no interface when they were last looked at.
        self._missing: frozenset[str] = frozenset()
        self._outcomes: dict[str, FlowReport] = {}
        self._participant = Participant(self._try_again, max_batch, 1, backoff)
        self._participant.start()

    def stop(self, timeout: float) -> None:
        """End the thread that retries."""
        self._participant.stop(timeout)

    def outcome(self, port_id: str) -> FlowReport | None:
        """The last report of a port that is wired, or is to be."""
        return self._outcomes.get(port_id)

    def apply(self, port_ids: Iterable[str] = (), gone: Iterable[str] = ()) -> None:
        """Bring ports to what was told of them, those that failed before included, and take
        away those that are ``gone``: one batch."""
        with self._lock:
            for port_id in gone:
                self._leave(port_id)
            self._run({*port_ids, *self._pending, *self._leaving})
            failed = list(self._pending)
        # From here on the participant's backoff counts anew: there was news.
        self._participant.submit(failed)

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        """Apply and verify ports (None: all) whether or not anything has changed."""
        with self._lock:
            chosen = self._told.known() if port_ids is None else frozenset(port_ids)
            for port_id in chosen:
                self._proven.pop(port_id, None)
            self.apply(chosen)

    def prove_anew(self, port_id: str) -> None:
        """Apply and verify the port if it stands; one that does not is on its way."""
        with self._lock:
            if port_id in self._proven:
                self.resync([port_id])

    def switch_restarted(self) -> None:
        """All flows are gone: put the pipeline back and apply every port."""
        with self._lock:
            self._started = False
            self.resync()

    def start(self) -> None:
        """Install the pipeline, and take over what stands; else it is done with the first batch."""
        with self._lock:
            try:
                self._start()
            except TaskFailed as exc:
                LOG.error("The pipeline could not be installed: %s (%s)", exc, exc.error.detail)

    def _start(self) -> None:
        if not self._started:
            self._switch.firewall.start()
            self._switch.quarantine.start()
            self._started, self._swept = True, False

    def _leave(self, port_id: str) -> None:
        proven = self._proven.pop(port_id, None)
        found = {port_id: proven.interface} if proven else {}
        self._leaving[port_id] = Located(found)
        self._pending.pop(port_id, None)

    def _try_again(self, requests: Sequence[Request]) -> dict[str, Verdict]:
        with self._lock:
            # The first attempt was the agent's own; this is where waiting begins.
            due = {each.port_id for each in requests if each.attempt > 1}
            self._run(due & self._pending.keys())
            return {
                each.port_id: Verdict.RETRY if each.port_id in self._pending else Verdict.DONE
                for each in requests
            }

    def _run(self, port_ids: Collection[str]) -> None:
        known = self._told.known()
        # Told of again after it had gone: it is to be wired, and that replaces what stands.
        self._leaving = {each: at for each, at in self._leaving.items() if each not in known}
        self._pending = {
            each: made for each, made in self._pending.items()
            if each in known or each in self._leaving
        }  # fmt: skip
        wanted = known.intersection(port_ids)
        located = interfaces.locate(self._bridge, wanted)
        self._miss(wanted, located.absent)
        leaving = self._leaving_batch(port_ids)
        self._run_flow(FlowName.UNWIRE, leaving)
        self._run_flow(FlowName.WIRE, self._changed_batch(wanted - located.absent, located))
        if leaving.works:
            self._told.forget_unused()
        self._sweep()

    def _miss(self, looked_for: Set[str], absent: Set[str]) -> None:
        """A port without an interface at two looks is gone: the agent is slow to say so, or speaks
        of it once more, for the server has changed it. At one look it may be OVSDB's replica,
        which is empty for a moment when OVSDB has been away."""
        gone = absent & self._missing
        self._missing = (self._missing - looked_for) | (absent - gone)
        for port_id in gone:
            self._told.gone(port_id)
            self._leave(port_id)
        for port_id in absent - gone:
            self._pending.setdefault(port_id, 0)

    def _leaving_batch(self, port_ids: Collection[str]) -> _Batch:
        gone = [port_id for port_id in self._leaving if port_id in port_ids]
        found = {id_: each for at in self._leaving.values() for id_, each in at.interfaces.items()}
        flows = dict.fromkeys(gone, FlowName.UNWIRE)
        return _Batch([self._work(port_id) for port_id in gone], flows, Located(found))

    def _changed_batch(self, port_ids: Collection[str], located: Located) -> _Batch:
        versions = {port_id: self._told.versions(port_id) for port_id in port_ids}
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
        settled = port_id not in self._pending and proven.version == version
        if settled and not self._switch.quarantine.holds(proven.interface.ofport):
            return None
        return FlowName.REFRESH

    def _work(self, port_id: str) -> Work:
        port, attempt = self._told.get(port_id), self._pending.get(port_id, 0) + 1
        if port is None:  # gone, at whatever revision
            return Work(port_id, 0, {}, attempt)
        revision = self.reporting.revision(port_id, port.raw)
        return Work(port_id, revision, self._told.revisions(port_id), attempt)

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
            Runner(self._host).run(
                name,
                lambda: compose(self._switch),
                batch.works,
                self._inputs(name, batch),
                deliver,
            )
        # The one door that keeps the agent's loop alive.
        except Exception as exc:  # noqa: BLE001
            error = _error_of(exc)
            self._settle(batch, [
                never_ran(self._host, name, work, error)
                for work in waiting.values()
            ])  # fmt: skip

    def _inputs(self, name: FlowName, batch: _Batch) -> dict[str, object]:
        port_ids = [work.port_id for work in batch.works]
        if name is FlowName.UNWIRE:
            return {"attachments": batch.located.attachments(port_ids)}
        plugged = batch.located.interfaces
        wanted = self._told.wanted({id_: plugged[id_] for id_ in port_ids if id_ in plugged})
        return {"located": batch.located, "refused": wanted.refused, "desired": wanted.state}

    def _settle(self, batch: _Batch, reports: Sequence[FlowReport]) -> None:
        """Remember how ports were left, close those that must not stay open, and tell."""
        failed = [report.resource_id for report in reports if report.failed is not None]
        done = [report.resource_id for report in reports if report.failed is None]
        self._switch.firewall.commit(done)
        for port_id in done:
            self._pending.pop(port_id, None)
            if batch.flows[port_id] is FlowName.UNWIRE:
                self._leaving.pop(port_id)
                self._outcomes.pop(port_id, None)
            else:
                interface = batch.located.interfaces[port_id]
                self._proven[port_id] = Proven(*batch.versions[port_id], interface)
        for port_id in failed:
            self._pending[port_id] = self._pending.get(port_id, 0) + 1
        wired = [each for each in failed if batch.flows[each] is not FlowName.UNWIRE]
        unclosed = self.closing.close_unprogrammed(wired, batch.located)
        told = [
            dataclasses.replace(
                amended(report, unclosed) if unclosed and report.failed else report,
                flow=batch.flows[report.resource_id],
            )
            for report in reports
        ]
        gone = {each for each in done if batch.flows[each] is FlowName.UNWIRE}
        self._outcomes |= {r.resource_id: r for r in told if r.resource_id not in gone}
        self._deliver(told)

    def _deliver(self, reports: Sequence[FlowReport]) -> None:
        try:
            self.reporting.deliver(reports)
        # Whatever the receiver's trouble is: what it was not told is done and told again.
        except Exception:
            LOG.exception("%d reports could not be delivered", len(reports))
            for report in reports:
                self._proven.pop(report.resource_id, None)
                self._pending.setdefault(report.resource_id, report.attempt)

    def _sweep(self) -> None:
        """Once everything is in place after a start: remove what belongs to nobody."""
        if self._swept or self._pending or not self._proven:
            return
        try:
            present = interfaces.ofports(self._bridge)
            removed = self._switch.firewall.sweep(self._told.known(), present)
            self._switch.quarantine.sweep(present)
        except TaskFailed as exc:
            LOG.error("Stale flows stay until the next batch: %s (%s)", exc, exc.error.detail)
            return
        self._swept = True
        LOG.info("%d stale flows were removed", removed)

    def _proven_interfaces(self) -> dict[str, Interface]:
        # A copy first: the agent's loop asks while the other thread may be at work.
        return {port_id: proven.interface for port_id, proven in dict(self._proven).items()}


def _error_of(exc: Exception) -> TaskError:
    if isinstance(exc, TaskFailed):
        return exc.error
    LOG.error("A batch could not be run", exc_info=exc)
    frames = "".join(traceback.format_exception(exc))
    return TaskError(type(exc).__name__, str(exc) or "no message", frames)
