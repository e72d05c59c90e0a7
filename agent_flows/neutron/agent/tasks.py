"""Tasks of the flows inside Neutron's agent."""

from collections.abc import Mapping
from typing import Any, ClassVar

from taskflow.types.failure import Failure

from agent_flows.engine.task import FlowTask, raise_for
from agent_flows.neutron.agent.quarantine import Endpoint, Quarantine
from agent_flows.neutron.agent.wiring import Wiring
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.parsing import macs_of
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.connections import Connections, Speaker, addresses_of
from agent_flows.openflow.outcome import switch_errors
from agent_flows.report import Step, TaskError
from agent_flows.spec import DesiredState


class ReadDesiredState(FlowTask):
    """Whether the agent passed in valid ports and groups."""

    name_: ClassVar[str] = "read-desired-state"
    step: ClassVar[Step] = Step.SECURITY_GROUPS

    def execute(self, port_ids: tuple[str, ...], refused: Mapping[str, TaskError]) -> None:
        raise_for(port_ids, refused)


class VerifyWiring(FlowTask):
    """Reads interface, tag and link back: nothing has changed them since the flow began."""

    name_: ClassVar[str] = "verify-wiring"
    step: ClassVar[Step] = Step.L2

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        self._wiring = wiring

    def execute(self, port_ids: tuple[str, ...], interfaces: Mapping[str, Interface]) -> None:
        before = {port_id: interfaces[port_id] for port_id in port_ids}
        raise_for(port_ids, self._wiring.look(before).errors)


class _QuarantineTask(FlowTask):
    step: ClassVar[Step] = Step.SECURITY_GROUPS

    def __init__(self, quarantine: Quarantine) -> None:
        super().__init__()
        self._quarantine = quarantine


class LiftQuarantine(_QuarantineTask):
    """Opens the ports: their security groups are verified."""

    name_: ClassVar[str] = "lift-quarantine"

    def __init__(self, quarantine: Quarantine, connections: Connections) -> None:
        super().__init__(quarantine)
        self._connections = connections

    def execute(
        self,
        port_ids: tuple[str, ...],
        attachments: Mapping[str, Attachment],
        desired: DesiredState,
    ) -> frozenset[Endpoint]:
        ports = [(attachments[port_id], desired.ports[port_id]) for port_id in port_ids]
        with switch_errors():
            self._connections.hold(
                {spec.id: Speaker(at.vlan, addresses_of(spec)) for at, spec in ports}
            )
        return self._quarantine.open(
            [Endpoint(spec.id, at.ofport, at.vlan, macs_of(spec)) for at, spec in ports]
        )

    def revert(self, result: frozenset[Endpoint] | Failure, **_: Any) -> None:
        if not isinstance(result, Failure):
            self._quarantine.close_again(result)


class EndConnections(FlowTask):
    """Ends the ports' connections, before other ports get their addresses or zones."""

    name_: ClassVar[str] = "end-connections"
    step: ClassVar[Step] = Step.SECURITY_GROUPS

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self._connections = connections

    def execute(self, port_ids: tuple[str, ...]) -> None:
        with switch_errors():
            self._connections.leave(port_ids)


class EndQuarantine(_QuarantineTask):
    """Forgets ports that are gone."""

    name_: ClassVar[str] = "end-quarantine"

    def execute(self, port_ids: tuple[str, ...], attachments: Mapping[str, Attachment]) -> None:
        ofports = [attachments[port_id].ofport for port_id in port_ids if port_id in attachments]
        self._quarantine.forget(port_ids, ofports)
