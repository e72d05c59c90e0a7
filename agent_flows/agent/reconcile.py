"""Brings claimed ports to their desired state: asks, looks, decides, runs the flows."""

import dataclasses
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Protocol

import oslo_messaging
from oslo_log import log
from taskflow.flow import Flow

from agent_flows.agent import flows
from agent_flows.agent import plan as planning
from agent_flows.agent.flows import Switch
from agent_flows.agent.plan import Wired
from agent_flows.engine.port_queue import Request, Verdict
from agent_flows.engine.runner import Runner, Work
from agent_flows.l2 import interfaces
from agent_flows.l2.interfaces import Interface
from agent_flows.l2.tasks import LocateInterface
from agent_flows.report import FlowName, FlowReport, TaskError
from agent_flows.reporting.outbox import Outbox
from agent_flows.spec import DesiredState
from agent_flows.supervision import described
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
        # At which revision a bound port was last reported as not here.
        self._absent: dict[str, int] = {}
        # What flows have left, of which no report could be kept yet.
        self._unkept: dict[str, _Outcome] = {}
        self._unseen: set[str] = set()
        self._when_all_seen: Callable[[], None] = lambda: None

    def watch_for(self, port_ids: Collection[str], when_all_seen: Callable[[], None]) -> None:
        """Call ``when_all_seen``, once, when each of these ports has been dealt with,
        whatever the outcome."""
        with self._lock:
            self._unseen, self._when_all_seen = set(port_ids), when_all_seen
        self._see(())

    def process(self, requests: Sequence[Request]) -> dict[str, Verdict]:
        """One batch; RETRY for ports that are not where they should be, LATER for those of which
        nothing can be said yet."""
        ids = [request.port_id for request in requests]
        present = interfaces.find(self._switch.ovsdb, self._switch.bridge, ids)
        with self._lock:
            wired = {port_id: self._wired[port_id] for port_id in ids if port_id in self._wired}
            absent = {port_id: self._absent[port_id] for port_id in ids if port_id in self._absent}
        early = planning.early(requests, present, wired)
        settled = [request for request in requests if request.port_id not in early]
        concerned = planning.concerns(settled, present, wired)
        verdicts = dict.fromkeys(early, Verdict.LATER)
        if not concerned:
            self._see(set(ids) - early)
            return verdicts
        try:
            desired = self._server.get_ports([request.port_id for request in concerned])
            sensible = [each for each in concerned if each.port_id not in desired.refused]
            todo = planning.plan(sensible, present, desired, wired, absent)
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
        with self._lock:
            for request in concerned:
                if request.port_id not in desired.ports:
                    self._absent.pop(request.port_id, None)
        attempts = {r.port_id: planning.attempt(r, present, wired) for r in requests}
        verdicts |= self._refuse([r for r in concerned if r.port_id in desired.refused], desired)
        for flow in planning.ORDER:
            if ports := todo.get(flow):
                batch = _Batch(flow, ports, desired, present, wired, attempts)
                held_up = self._held_up(batch)
                verdicts |= dict.fromkeys(held_up, Verdict.RETRY)
                verdicts |= self._run(batch.without(held_up))
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

    def on(self, physical_networks: Collection[str]) -> frozenset[str]:
        """Those of them whose network is on one of these physical networks."""
        with self._lock:
            return frozenset(
                port_id
                for port_id, wired in self._wired.items()
                if wired.spec.network.physical_network in physical_networks
            )

    def proven(self) -> int:
        """How many ports are as last desired."""
        with self._lock:
            return sum(each.proven for each in self._wired.values())

    def _see(self, port_ids: Collection[str]) -> None:
        with self._lock:
            self._unseen.difference_update(port_ids)
            if self._unseen:
                return
            when_all_seen, self._when_all_seen = self._when_all_seen, lambda: None
        when_all_seen()

    def _refuse(self, requests: Sequence[Request], desired: DesiredState) -> dict[str, Verdict]:
        """A port with an invalid spec keeps what it has; the server may send another."""
        reports = []
        for request in requests:
            refused = desired.refused[request.port_id]
            work = Work(request.port_id, refused.revision, {}, request.attempt)
            error = TaskError("InvalidSpec", f"invalid port spec: {refused.reason}")
            LOG.error("Port %s: %s", request.port_id, error.message)
            reports.append(self._runner.never_ran(FlowName.WIRE, work, LocateInterface, error))
        self._keep(reports)
        return {request.port_id: Verdict.RETRY for request in requests}

    def _keep(self, reports: Sequence[FlowReport]) -> bool:
        """Whether the reports are in the outbox now; if not, that is the outbox' trouble."""
        try:
            self._outbox.put(reports)
        except sqlite3.Error as exc:
            LOG.error(
                "%d reports could not be kept, and their ports do not count as done: %s",
                len(reports),
                described(exc),
            )
            return False
        return True

    def _held_up(self, batch: "_Batch") -> frozenset[str]:
        """Ports that are as they should be, but for a report that still cannot be kept: to run
        their flow again would not help."""
        with self._lock:
            unkept = {p: self._unkept[p] for p in batch.ports if p in self._unkept}
        same = {p for p, outcome in unkept.items() if outcome == batch.outcome(p)}
        return frozenset() if not same or self._outbox.writable() else frozenset(same)

    def _run(self, batch: "_Batch") -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        if not batch.ports:
            return verdicts
        if batch.flow is FlowName.RESYNC:
            self._switch.firewall.distrust()

        def deliver(reports: Sequence[FlowReport]) -> None:
            # First the report, then whatever is taken for true because of it:
            # what was not reported must be done, and reported, again.
            kept = self._keep([r for r in reports if r.resource_id in batch.desired.ports])
            done = [item.resource_id for item in reports if kept and item.failed is None]
            if batch.flow is not FlowName.UNWIRE:
                self._switch.firewall.commit(done)
            with self._lock:
                for item in reports:
                    proven = kept and item.failed is None
                    self._note(batch, item.resource_id, proven=proven, kept=kept)
            for item in reports:
                failed = item.failed
                finished = kept and failed is None
                verdicts[item.resource_id] = Verdict.DONE if finished else Verdict.RETRY
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

    def _note(self, batch: "_Batch", port_id: str, *, proven: bool, kept: bool) -> None:
        """Remember how the flow left the port; the caller holds the lock."""
        if kept:
            self._unkept.pop(port_id, None)
        else:
            self._unkept[port_id] = batch.outcome(port_id)
        if batch.flow is FlowName.UNWIRE:
            if proven:
                self._wired.pop(port_id, None)
                self._note_absence(batch, port_id)
            elif port_id in self._wired:
                # Half taken away: wanted again, it is to be wired from the start.
                before = self._wired[port_id]
                self._wired[port_id] = dataclasses.replace(before, proven=False)
            return
        self._absent.pop(port_id, None)
        if batch.flow is FlowName.REFRESH and not proven:
            before = batch.before[port_id]
            self._wired[port_id] = dataclasses.replace(before, security_group_revisions=None)
        else:
            self._wired[port_id] = batch.wired(port_id, proven=proven)

    def _note_absence(self, batch: "_Batch", port_id: str) -> None:
        spec = batch.desired.ports.get(port_id)
        if spec is None:
            self._absent.pop(port_id, None)
        else:
            self._absent[port_id] = spec.revision


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What a flow made of a port; None for one that is not bound here any more."""

    flow: FlowName
    wired: Wired | None


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Ports of one flow and what is known about them."""

    flow: FlowName
    ports: Sequence[str]
    desired: DesiredState
    present: Mapping[str, Interface]
    before: Mapping[str, Wired]
    attempts: Mapping[str, int]

    def without(self, port_ids: Set[str]) -> "_Batch":
        ports = [port_id for port_id in self.ports if port_id not in port_ids]
        return dataclasses.replace(self, ports=ports)

    def outcome(self, port_id: str) -> _Outcome:
        bound = port_id in self.desired.ports
        return _Outcome(self.flow, self.wired(port_id, proven=True) if bound else None)

    def work(self, port_id: str) -> Work:
        spec = self.desired.ports.get(port_id)
        if spec is not None:
            groups = planning.revisions(spec, self.desired)
            return Work(port_id, spec.revision, groups, self.attempts[port_id])
        # Gone from the server: no report of it is sent.
        return Work(port_id, 0, {}, self.attempts[port_id])

    def wired(self, port_id: str, *, proven: bool) -> Wired:
        spec = self.desired.ports[port_id]
        groups = planning.revisions(spec, self.desired)
        return Wired(spec, self.present.get(port_id), groups, proven)
