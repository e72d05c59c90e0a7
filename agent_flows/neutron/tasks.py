"""The first task of every flow on a host of Neutron's."""

from collections.abc import Mapping
from typing import ClassVar

from agent_flows.engine.task import FlowTask, raise_for
from agent_flows.neutron.interfaces import Located
from agent_flows.openflow.attachment import Attachment
from agent_flows.report import Step


class LocateInterface(FlowTask):
    """Each port's interface, from one read of OVSDB for the whole batch (``located``)."""

    name_: ClassVar[str] = "locate-interface"
    step: ClassVar[Step] = Step.L2
    default_provides = "attachments"

    def execute(self, port_ids: tuple[str, ...], located: Located) -> Mapping[str, Attachment]:
        raise_for(port_ids, located.errors)
        return located.attachments(port_ids)
