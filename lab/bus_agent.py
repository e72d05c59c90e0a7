"""An agent without a switch: what it is asked to wire, it reports as wired.

Its client, outbox, reporter, heartbeat and listener are the product's own.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import oslo_messaging

from agent_flows.agent.group_reports import GroupReports
from agent_flows.agent.knowledge import Knowledge
from agent_flows.report import FlowName, FlowReport, Trouble
from agent_flows.reporting import host_key
from agent_flows.reporting.comparison import Comparison
from agent_flows.reporting.heartbeat import Heartbeat
from agent_flows.reporting.outbox import Outbox
from agent_flows.reporting.reporter import Reporter
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.rpc.answers import Held, Receipt
from agent_flows.rpc.desired import Update
from agent_flows.rpc.listener import Listener
from agent_flows.rpc.signing import Signer
from agent_flows.spec import DesiredState, PortSpec
from agent_flows.supervision import Loop, Troubles
from agent_flows.validation import Invalid
from lab.model import flow_report, group_revisions

_PATIENCE = 1.0


class RecordingClient(ServerClient):
    """Records what became of every report, and how long every heartbeat took.

    ``beats`` are pairs of the time of a heartbeat (time.monotonic) and the
    seconds until its answer, None if there was none.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.acknowledged: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.failures = 0
        self.beats: list[tuple[float, float | None]] = []

    def report(self, reports: Sequence[FlowReport]) -> Receipt:
        try:
            receipt = super().report(reports)
        except oslo_messaging.MessagingException:
            self.failures += 1
            raise
        self.acknowledged.update(receipt.accepted)
        self.rejected.update(receipt.rejected)
        return receipt

    def heartbeat(self, state: Mapping[str, Any]) -> Held:
        began = time.monotonic()
        try:
            held = super().heartbeat(state)
        except oslo_messaging.MessagingException:
            self.beats.append((began, None))
            raise
        self.beats.append((began, time.monotonic() - began))
        return held


class BusAgent:
    """The agent of ``host``, on which ``ports`` are plugged; its outbox is in ``directory``."""

    def __init__(
        self,
        bus: oslo_messaging.Transport,
        host: str,
        ports: Collection[str],
        directory: Path,
        *,
        interval: float = 10.0,
        timeout: float = 30.0,
        max_reports: int = 100_000,
    ) -> None:
        self.host = host
        self.made: set[str] = set()
        self.outbox = Outbox(directory / f"{host}.sqlite", max_reports)
        keys = directory / f"{host}.keys"
        keys.mkdir(exist_ok=True)
        signer = Signer(self.outbox.identity, host, host_key.load(keys, lifetime=0))
        self.client = RecordingClient(bus, host, timeout, signer)
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._asked: set[str] = set()
        self._ports = frozenset(ports)
        self._knowledge = Knowledge()
        self._group_reports = GroupReports()
        self._group_reports.expect(self._ports)
        self._behind = False
        self._groups_differ = False
        self._carried: list[Update] = []
        troubles = Troubles()
        self._reporter = Reporter(self.outbox, self.client, troubles)
        self._heartbeat = Heartbeat(
            self.client,
            interval,
            lambda: {"troubles": troubles.current(), "unreported": len(self.outbox)},
            self._reporter.heard,
            troubles=troubles,
            comparison=Comparison(self._knowledge.digest, self.catch_up, interval),
        )
        self._listener = Listener(bus, transport.agent_target(host), AgentEndpoint(self), troubles)
        self._loop = Loop(
            "wire",
            self._step,
            troubles,
            Trouble.PORTS,
            expected=(oslo_messaging.MessagingException,),
        )
        self.resync()

    def start(self) -> None:
        self._listener.start()
        self._reporter.start()
        self._heartbeat.start()
        self._loop.start()

    def stop(self) -> None:
        """What was not sent stays in the outbox."""
        self._loop.stopping.set()
        self._wanted.set()
        self._listener.stop()
        self._loop.stop(_PATIENCE)
        self._heartbeat.stop(_PATIENCE)
        self._reporter.stop(_PATIENCE)
        self._listener.wait()

    # The server's casts, and what a heartbeat finds.

    def ports_changed(self, port_ids: Collection[str]) -> None:
        self._ask(port_ids)

    def security_groups_changed(self, ids: Collection[str], change: Update | None) -> None:
        if not self._knowledge.may_have(ids):
            return
        with self._lock:
            if change is None:
                self._groups_differ = True
            else:
                self._carried.append(change)
        self._wanted.set()

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        self._ask(self._ports if port_ids is None else port_ids)

    def catch_up(self) -> None:
        self._behind = True
        self._wanted.set()

    def _ask(self, port_ids: Collection[str]) -> None:
        with self._lock:
            self._asked |= self._ports.intersection(port_ids)
        self._wanted.set()

    def _step(self) -> None:
        self._wanted.wait()
        self._wanted.clear()
        if self._loop.stopping.is_set():
            return
        asked: set[str] = set()
        try:
            if self._behind:
                theirs = self.client.get_revisions()
                self._behind = False
                differing, groups_differ = self._knowledge.differing(theirs)
                self._groups_differ = self._groups_differ or groups_differ
                self._ask(differing | set(theirs.awaited))
            with self._lock:
                asked, self._asked = self._asked, set()
                carried, self._carried = self._carried, []
            self._follow(carried)
            if asked or self._groups_differ:
                self._learn(asked)
        except oslo_messaging.MessagingException:
            self._wanted.set()
            self._ask(asked)
            raise

    def _follow(self, carried: Sequence[Update]) -> None:
        """Refresh ports of groups that changed as casts carry it; the server is asked if one does
        not fit."""
        changed: set[str] = set()
        for each in carried:
            try:
                changed |= self._knowledge.follow(each)
            except Invalid:
                self._groups_differ = True
                break
        self._realise(changed, ())

    def _learn(self, asked: Collection[str]) -> None:
        """The ports ``asked`` about are wired, others in groups that changed are refreshed."""
        differed, self._groups_differ = self._groups_differ, False
        try:
            changed = self._knowledge.ask(self.client.get_desired, sorted(asked))
        except oslo_messaging.MessagingException:
            self._groups_differ = differed
            raise
        self._realise(changed, asked)

    def _realise(self, changed: Collection[str], asked: Collection[str]) -> None:
        refreshed = self._knowledge.inside(changed) - set(asked)
        desired = self._knowledge.state({*asked, *refreshed})
        reports = [
            self._report(spec, desired, FlowName.REFRESH if id_ in refreshed else FlowName.WIRE)
            for id_, spec in desired.ports.items()
        ]
        shortened = self._group_reports.shorten(
            reports, asked=asked, gone=set(asked) - desired.ports.keys()
        )
        self.made.update(report.id for report in shortened.reports)
        self.outbox.put(shortened.reports)
        self._group_reports.note(shortened)

    def _report(self, spec: PortSpec, desired: DesiredState, flow: FlowName) -> FlowReport:
        return flow_report(
            host=self.host,
            resource_id=spec.id,
            flow=flow,
            revision=spec.revision,
            security_group_revisions=group_revisions(desired, spec),
        )
