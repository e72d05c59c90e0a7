"""The tasks of the step ``security_groups``."""

from collections.abc import Mapping
from typing import ClassVar

from agent_flows.engine.task import FlowTask
from agent_flows.openflow.attachment import Attachment
from agent_flows.report import Step
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import DesiredState


class _FirewallTask(FlowTask):
    step: ClassVar[Step] = Step.SECURITY_GROUPS

    def __init__(self, firewall: Firewall) -> None:
        super().__init__()
        self._firewall = firewall


class ApplySecurityGroups(_FirewallTask):
    """Compiles and installs the ports' flows in one bundle."""

    name_ = "apply-security-groups"

    def execute(
        self,
        port_ids: tuple[str, ...],
        desired: DesiredState,
        attachments: Mapping[str, Attachment],
    ) -> None:
        self._firewall.apply(desired, {port_id: attachments[port_id] for port_id in port_ids})

    def revert(self, port_ids: tuple[str, ...], **_: object) -> None:
        """Installs the committed flows again; a port never wired stays closed."""
        self._firewall.revert(port_ids)


class VerifySecurityGroups(_FirewallTask):
    """Reads the flows back, and corrects what is not as compiled."""

    name_ = "verify-security-groups"

    def execute(self, port_ids: tuple[str, ...]) -> None:
        self._firewall.prove(port_ids)


class CommitSecurityGroups(_FirewallTask):
    """The last task: what is verified now is what a later flow falls back to when it fails."""

    name_ = "commit-security-groups"

    def execute(self, port_ids: tuple[str, ...]) -> None:
        self._firewall.commit(port_ids)


class RemoveSecurityGroups(_FirewallTask):
    """Closes the ports: removes their flows."""

    name_ = "remove-security-groups"

    def execute(self, port_ids: tuple[str, ...]) -> None:
        self._firewall.remove(port_ids)
