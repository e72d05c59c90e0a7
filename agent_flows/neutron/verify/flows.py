"""The flows on a host with another firewall driver: they read, and change nothing."""

from collections.abc import Mapping
from typing import ClassVar

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from agent_flows.engine.task import FlowTask, raise_for
from agent_flows.engine.tasks import LocateInterface
from agent_flows.neutron.interfaces import Located
from agent_flows.neutron.verify.checks import Checks
from agent_flows.neutron.verify.inspector import Finding
from agent_flows.neutron.verify.plugged_port import PluggedPort
from agent_flows.openflow.wiring import interface_changed
from agent_flows.report import FlowName, Step


class _CheckTask(FlowTask):
    def __init__(self, checks: Checks) -> None:
        super().__init__()
        self._checks = checks


class ApplySecurityGroups(_CheckTask):
    """Checks that the firewall driver installed everything that the ports' rules need."""

    name_: ClassVar[str] = "apply-security-groups"
    step: ClassVar[Step] = Step.SECURITY_GROUPS
    default_provides = "findings"

    def execute(
        self, port_ids: tuple[str, ...], plugged: Mapping[str, PluggedPort], located: Located
    ) -> Mapping[str, Finding]:
        findings = self._checks.filters(_only(plugged, port_ids), located)
        raise_for(port_ids, {id_: finding.missing for id_, finding in findings.items()})
        return findings


class VerifySecurityGroups(FlowTask):
    """Checks that it installed nothing that no rule needs."""

    name_: ClassVar[str] = "verify-security-groups"
    step: ClassVar[Step] = Step.SECURITY_GROUPS

    def execute(self, port_ids: tuple[str, ...], findings: Mapping[str, Finding]) -> None:
        raise_for(port_ids, {id_: finding.surplus for id_, finding in findings.items()})


class VerifyWiring(_CheckTask):
    """Checks that the ports have their networks' local VLANs and the same interfaces as before."""

    name_: ClassVar[str] = "verify-wiring"
    step: ClassVar[Step] = Step.L2

    def execute(
        self, port_ids: tuple[str, ...], plugged: Mapping[str, PluggedPort], located: Located
    ) -> None:
        raise_for(port_ids, self._checks.wiring(_only(plugged, port_ids), located))


class RemoveSecurityGroups(_CheckTask):
    """Checks that the firewall driver removed what it had installed for these ports."""

    name_: ClassVar[str] = "remove-security-groups"
    step: ClassVar[Step] = Step.SECURITY_GROUPS

    def execute(self, port_ids: tuple[str, ...], plugged: Mapping[str, PluggedPort]) -> None:
        raise_for(port_ids, self._checks.leftovers(_only(plugged, port_ids)))


class ConfirmAbsence(_CheckTask):
    """Checks that the ports have no interface."""

    name_: ClassVar[str] = "confirm-absence"
    step: ClassVar[Step] = Step.L2

    def execute(self, port_ids: tuple[str, ...]) -> None:
        absent = self._checks.absent(port_ids)
        plugged = interface_changed("no interface", "an interface of the port")
        raise_for(port_ids, dict.fromkeys(set(port_ids) - absent, plugged))


def wire(checks: Checks) -> Flow:
    """Inputs: ``plugged``, ``located``, ``present``. A refresh runs the same tasks."""
    return linear_flow.Flow(FlowName.WIRE).add(
        LocateInterface(), ApplySecurityGroups(checks), VerifySecurityGroups(), VerifyWiring(checks)
    )


def unwire(checks: Checks) -> Flow:
    """Input: ``plugged`` as the ports were."""
    return linear_flow.Flow(FlowName.UNWIRE).add(RemoveSecurityGroups(checks))


def absence(checks: Checks) -> Flow:
    """Of ports that the agent never passed to this extension."""
    return linear_flow.Flow(FlowName.UNWIRE).add(ConfirmAbsence(checks))


def _only(plugged: Mapping[str, PluggedPort], port_ids: tuple[str, ...]) -> dict[str, PluggedPort]:
    return {port_id: plugged[port_id] for port_id in port_ids}
