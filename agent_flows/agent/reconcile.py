"""Brings claimed ports to their desired state: asks, looks, decides, runs the flows."""

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import oslo_messaging
from oslo_log import log
from taskflow.flow import Flow

from agent_flows.agent import plan as planning
from agent_flows.agent.plan import Wired
from agent_flows.flows.outbox import Outbox
from agent_flows.flows.participant import Request, Verdict
from agent_flows.flows.runner import Runner, Work
from agent_flows.l2 import flows, interfaces
from agent_flows.l2.flows import Switch
from agent_flows.l2.interfaces import Interface
from agent_flows.l2.tasks import LocateInterface
from agent_flows.report import FlowName, FlowReport, TaskError
from agent_flows.spec import DesiredState
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

_COMPOSE: Mapping[FlowName, Callable[[Switch], Flow]] = {
    FlowName.WIRE: flows.wire,
    FlowName.REFRESH: flows.refresh,
    FlowName.UNWIRE: flows.unwire,
    FlowName.RESYNC: flows.resync,
}


class Specs(Protocol):
    """The agent's RPC client, as far as specs go."""

    def get_ports(self, port_ids: Collection[str] | None = None) -> DesiredState: ...


class Reconciler:
    """What the participant calls with the ports it claimed; safe from several workers,
    for no port is ever with two of them."""

    def __init__(self, switch: Switch, server: Specs, runner: Runner, outbox: Outbox) -> None:
        self._switch = switch
        self._server = server
        self._runner = runner
        self._outbox = outbox
        self._lock = threading.Lock()
        self._wired: dict[str, Wired] = {}
        self._unseen: set[str] = set()
        self._when_all_seen: Callable[[], None] = lambda: None

    def watch_for(self, port_ids: Collection[str], when_all_seen: Callable[[], None]) -> None:
        """Call ``when_all_seen``, once, when each of these ports has been dealt with,
        whatever the outcome."""
        with self._lock:
            self._unseen, self._when_all_seen = set(port_ids), when_all_seen
        self._see(())

    def process(self, requests: Sequence[Request]) -> dict[str, Verdict]:
        """One batch; RETRY for ports that are not where they should be yet."""
        ids = [request.port_id for request in requests]
        present = interfaces.find(self._switch.ovsdb, self._switch.bridge, ids)
        with self._lock:
            wired = {port_id: self._wired[port_id] for port_id in ids if port_id in self._wired}
        early = planning.early(requests, present)
        settled = [request for request in requests if request.port_id not in early]
        concerned = planning.concerns(settled, present, wired)
        verdicts = dict.fromkeys(early, Verdict.RETRY)
        if not concerned:
            self._see(set(ids) - early)
            return verdicts
        try:
            desired = self._server.get_ports([request.port_id for request in concerned])
            sensible = [each for each in concerned if each.port_id not in desired.refused]
            todo = planning.plan(sensible, present, desired, wired)
        except (oslo_messaging.MessagingException, Invalid) as exc:
            # Ports keep what they have; the server, which cannot hear us
            # either, counts this host's ports as UNKNOWN.
            LOG.warning(
                "The server gave no specs for %d ports (%s: %s); they are tried again",
                len(concerned),
                type(exc).__name__,
                str(exc).partition("\n")[0],
            )
            again = {request.port_id: Verdict.RETRY for request in concerned}
            self._see(set(ids) - early - again.keys())
            return verdicts | again
        attempts = {request.port_id: request.attempt for request in requests}
        for request in concerned:
            if request.port_id in desired.refused:
                verdicts[request.port_id] = self._refuse(request, desired)
        for flow in planning.ORDER:
            if ports := todo.get(flow):
                batch = _Batch(flow, ports, desired, present, wired, attempts)
                verdicts |= self._run(batch)
        self._see(set(ids) - early)
        return verdicts

    def forget_proofs(self) -> None:
        """The switch was restarted: nothing proven before holds any more."""
        with self._lock:
            self._wired = {
                port_id: dataclasses.replace(wired, proven=False)
                for port_id, wired in self._wired.items()
            }

    def known(self) -> frozenset[str]:
        """Ports that were wired, or tried, and not unwired since."""
        with self._lock:
            return frozenset(self._wired)

    def proven(self) -> int:
        """How many ports stand as last desired."""
        with self._lock:
            return sum(each.proven for each in self._wired.values())

    def _see(self, port_ids: Collection[str]) -> None:
        with self._lock:
            self._unseen.difference_update(port_ids)
            if self._unseen:
                return
            when_all_seen, self._when_all_seen = self._when_all_seen, lambda: None
        when_all_seen()

    def _refuse(self, request: Request, desired: DesiredState) -> Verdict:
        """A port whose spec makes no sense keeps what it has; the server may send another."""
        refused = desired.refused[request.port_id]
        work = Work(request.port_id, refused.revision, {}, request.attempt)
        error = TaskError("InvalidSpec", f"the port's spec makes no sense: {refused.reason}")
        LOG.error("Port %s: %s", request.port_id, error.message)
        self._outbox.put([self._runner.never_ran(FlowName.WIRE, work, LocateInterface, error)])
        return Verdict.RETRY

    def _run(self, batch: "_Batch") -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}

        def deliver(reports: Sequence[FlowReport]) -> None:
            done = [item.resource_id for item in reports if item.failed is None]
            if batch.flow is not FlowName.UNWIRE:
                self._switch.firewall.commit(done)
            with self._lock:
                for item in reports:
                    self._note(batch, item.resource_id, proven=item.failed is None)
            self._outbox.put([item for item in reports if item.resource_id in batch.desired.ports])
            for item in reports:
                failed = item.failed
                verdicts[item.resource_id] = Verdict.DONE if failed is None else Verdict.RETRY
                if failed is not None and failed.error is not None:
                    LOG.error(
                        "Port %s: %s failed in %s: %s",
                        item.resource_id,
                        failed.name,
                        batch.flow,
                        failed.error.message,
                    )

        self._runner.run(
            batch.flow,
            lambda: _COMPOSE[batch.flow](self._switch),
            [batch.work(port_id) for port_id in batch.ports],
            self._inputs(batch),
            deliver,
        )
        LOG.info(
            "%s: %d ports, %d of them failed",
            batch.flow,
            len(verdicts),
            sum(each is Verdict.RETRY for each in verdicts.values()),
        )
        return verdicts

    def _inputs(self, batch: "_Batch") -> dict[str, object]:
        inputs: dict[str, object] = {"desired": batch.desired}
        if batch.flow is FlowName.REFRESH:
            # As they were wired, which the plan has made sure is as they are.
            vlans = self._switch.networks.vlans()
            inputs["attachments"] = {
                port_id: interfaces.attach(
                    batch.present[port_id], vlans[batch.desired.ports[port_id].network.id]
                )
                for port_id in batch.ports
            }
        return inputs

    def _note(self, batch: "_Batch", port_id: str, *, proven: bool) -> None:
        """Remember how the flow left the port; the caller holds the lock."""
        if batch.flow is FlowName.REFRESH and not proven:
            before = batch.before[port_id]
            self._wired[port_id] = dataclasses.replace(before, security_group_revisions=None)
        elif batch.flow is not FlowName.UNWIRE:
            self._wired[port_id] = batch.wired(port_id, proven=proven)
        elif proven:
            self._wired.pop(port_id, None)


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Ports of one flow and what is known about them."""

    flow: FlowName
    ports: Sequence[str]
    desired: DesiredState
    present: Mapping[str, Interface]
    before: Mapping[str, Wired]
    attempts: Mapping[str, int]

    def work(self, port_id: str) -> Work:
        spec = self.desired.ports.get(port_id)
        if spec is not None:
            groups = planning.revisions(spec, self.desired)
            return Work(port_id, spec.revision, groups, self.attempts[port_id])
        # Gone from the server, so nobody will ask for these.
        return Work(port_id, 0, {}, self.attempts[port_id])

    def wired(self, port_id: str, *, proven: bool) -> Wired:
        spec = self.desired.ports[port_id]
        groups = planning.revisions(spec, self.desired)
        return Wired(spec, self.present.get(port_id), groups, proven)
