"""The ports of Neutron's agent: where they are, what the agent passed in, and failures."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from taskflow.flow import Flow

from agent_flows.engine.port_life import Life
from agent_flows.engine.reconciler import Desired, Sight, choose
from agent_flows.engine.runner import error_of
from agent_flows.engine.task import TaskFailed
from agent_flows.fairness import fair
from agent_flows.neutron import interfaces
from agent_flows.neutron.agent import flows
from agent_flows.neutron.agent.desired_state import DesiredPorts
from agent_flows.neutron.agent.flows import Switch
from agent_flows.neutron.agent.quarantine import Endpoint
from agent_flows.neutron.agent.upkeep import Upkeep
from agent_flows.neutron.interfaces import Interface, Located
from agent_flows.neutron.reporting import ReportingSite, amended
from agent_flows.report import FlowName, FlowReport
from agent_flows.secgroups.tasks import ApplySecurityGroups
from agent_flows.supervision import Troubles


@dataclass(frozen=True)
class _Seen:
    """Where the ports of a batch are, and where they were when they were last wired."""

    located: Located
    wired: Located


class DriverSite(ReportingSite):
    """A :class:`agent_flows.engine.reconciler.Site`.

    A port without an interface at two looks is gone, although the agent still
    passes it in: it is not desired any more, and ``unwire`` is called. After one
    look it may be OVSDB's replica, which is empty for a moment when OVSDB was
    away.
    """

    first_task = ApplySecurityGroups

    def __init__(
        self,
        switch: Switch,
        desired: DesiredPorts,
        upkeep: Upkeep,
        troubles: Troubles,
        unwire: Callable[[Collection[str]], None],
    ) -> None:
        super().__init__(troubles)
        self._switch, self._desired, self._upkeep = switch, desired, upkeep
        self._unwire = unwire
        # A refresh runs the same tasks, in the same flow run as a wire.
        wire = partial(flows.wire, switch)
        self.flows: Mapping[FlowName, Callable[[], Flow]] = {
            FlowName.UNWIRE: partial(flows.unwire, switch),
            FlowName.REFRESH: wire,
            FlowName.WIRE: wire,
        }

    def look(self, lives: Sequence[Life]) -> Sight:
        self._upkeep.wake()
        known = self._desired.port_ids()
        port_ids = [life.port_id for life in lives if life.port_id in known]
        located = interfaces.locate(self._switch.bridge, port_ids)
        gone = {life.port_id for life in lives if life.request.looked} & located.absent
        for port_id in gone:
            self._desired.remove(port_id)
        self._switch.wiring.forget(gone)
        self._unwire(gone)
        present = {**located.errors, **located.interfaces}
        desired = {
            life.port_id: desired
            for life in fair(lives)
            if life.port_id in present
            and (desired := self._desired_of(life, present[life.port_id])) is not None
        }
        wired = {
            life.port_id: life.applied.interface
            for life in lives
            if life.applied is not None and isinstance(life.applied.interface, Interface)
        }
        return Sight(present, desired, located.absent, context=_Seen(located, Located(wired)))

    def inputs(self, flow: FlowName, port_ids: Sequence[str], sight: Sight) -> Mapping[str, object]:
        self._upkeep.prepare()
        seen: _Seen = sight.context
        if flow is FlowName.UNWIRE:
            return {"attachments": seen.wired.attachments(port_ids)}
        plugged = seen.located.interfaces
        resolved = self._desired.resolve({id_: plugged[id_] for id_ in port_ids if id_ in plugged})
        return {
            "present": sight.present,
            "attachments": seen.located.attachments(port_ids),
            "refused": resolved.refused,
            "desired": resolved.state,
        }

    def secured(self, reports: Sequence[FlowReport], sight: Sight) -> Sequence[FlowReport]:
        failed = [
            report.resource_id
            for report in reports
            if report.failed is not None and report.flow is not FlowName.UNWIRE
        ]
        located: Located = sight.context.located
        ports = [port for id_ in failed if (port := self._endpoint(id_, located)) is not None]
        try:
            self._switch.quarantine.close_failed(ports)
        except TaskFailed as exc:
            return [
                report if report.failed is None else amended(report, exc.error)
                for report in reports
            ]
        return reports

    def _desired_of(self, life: Life, present: object) -> Desired | None:
        port_id = life.port_id
        port = self._desired.get(port_id)
        if port is None:
            return None
        rules, wiring = self._desired.versions(port_id)
        unreported = Desired(wiring, rules, 0, {})
        if choose(life, present, unreported, self.forced_flow) is None:
            # Nothing is reported of it: its revision may cost a request to the server.
            return unreported
        try:
            revision = self.reporting.revision(port_id, port.raw)
        # The one door of a port whose revision cannot be read; it ends in its report.
        except Exception as exc:  # noqa: BLE001
            return Desired(wiring, rules, 0, {}, error_of(exc))
        return Desired(wiring, rules, revision, self._desired.group_revisions(port_id))

    def _endpoint(self, port_id: str, located: Located) -> Endpoint | None:
        """None for a port without ofport."""
        ofport, interface = located.ofports.get(port_id), located.interfaces.get(port_id)
        if ofport is None or interface is None:
            return None if ofport is None else Endpoint(port_id, ofport)
        network = interface.network
        segment = None if network.physical_network is None else network.segmentation_id or 0
        port = self._desired.get(port_id)
        macs = port.macs if port else frozenset()
        return Endpoint(port_id, ofport, interface.vlan, macs, segment)
