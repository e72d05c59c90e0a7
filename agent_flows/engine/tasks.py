"""The tasks that every host's flows have in common."""

from collections.abc import Mapping
from typing import Any

from agent_flows.engine.task import FlowTask, raise_for
from agent_flows.report import Step


class LocateInterface(FlowTask):
    """Where each port is plugged in: the host was asked for the whole batch before the flow."""

    name_ = "locate-interface"
    step = Step.L2
    default_provides = "interfaces"

    def execute(self, port_ids: tuple[str, ...], present: Mapping[str, Any]) -> Mapping[str, Any]:
        """``present``: each port's interface, or what is wrong with it."""
        raise_for(port_ids, present)
        return {port_id: present[port_id] for port_id in port_ids}
