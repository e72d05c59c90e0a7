"""The flows inside Neutron's agent, composed of their tasks and nothing else.

The agent itself wires the ports; these flows verify that, and program and
remove the ports' security groups.
"""

from dataclasses import dataclass

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from agent_flows.engine.tasks import LocateInterface
from agent_flows.neutron.agent.quarantine import Quarantine
from agent_flows.neutron.agent.tasks import (
    EndConnections,
    EndQuarantine,
    LiftQuarantine,
    ReadDesiredState,
    VerifyWiring,
)
from agent_flows.neutron.agent.wiring import Wiring
from agent_flows.neutron.interfaces import Bridge
from agent_flows.openflow.connections import Connections
from agent_flows.report import FlowName
from agent_flows.secgroups.firewall import Firewall
from agent_flows.secgroups.tasks import (
    ApplySecurityGroups,
    CommitSecurityGroups,
    RemoveSecurityGroups,
    VerifySecurityGroups,
)


@dataclass(frozen=True)
class Switch:
    """Neutron's integration bridge, as the tasks use it."""

    bridge: Bridge
    firewall: Firewall
    quarantine: Quarantine
    connections: Connections
    wiring: Wiring


def wire(switch: Switch) -> Flow:
    """Inputs: ``present``, ``attachments``, ``refused``, ``desired``. A refresh runs the same
    tasks."""
    return linear_flow.Flow(FlowName.WIRE).add(
        LocateInterface(),
        ReadDesiredState(),
        ApplySecurityGroups(switch.firewall),
        VerifySecurityGroups(switch.firewall),
        VerifyWiring(switch.wiring),
        LiftQuarantine(switch.quarantine, switch.connections),
        CommitSecurityGroups(switch.firewall),
    )


def unwire(switch: Switch) -> Flow:
    """Input: ``attachments`` of the ports that were wired."""
    return linear_flow.Flow(FlowName.UNWIRE).add(
        RemoveSecurityGroups(switch.firewall),
        EndConnections(switch.connections),
        EndQuarantine(switch.quarantine),
    )
