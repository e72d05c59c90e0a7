"""The flows, composed of their tasks and nothing else."""

from dataclasses import dataclass

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from agent_flows.engine.tasks import LocateInterface
from agent_flows.l2.bindings import Bindings
from agent_flows.l2.networks import Networks
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.l2.tasks import (
    BindVlan,
    ClosePort,
    ProvisionNetwork,
    RaiseLink,
    ReleaseVlan,
    VerifyWiring,
)
from agent_flows.openflow.ofctl import Ofctl
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
    """What the tasks act on: one integration bridge and all that belongs to it."""

    bridge: str
    ovsdb: Ovsdb
    networks: Networks
    bindings: Bindings
    firewall: Firewall
    ofctl: Ofctl


def wire(switch: Switch) -> Flow:
    """Inputs: ``desired``, ``present``."""
    return _wiring(switch, FlowName.WIRE)


def refresh(switch: Switch) -> Flow:
    """Inputs: ``desired``, ``attachments`` as the ports were wired with."""
    return linear_flow.Flow(FlowName.REFRESH).add(
        ApplySecurityGroups(switch.firewall),
        VerifySecurityGroups(switch.firewall),
        CommitSecurityGroups(switch.firewall),
    )


def unwire(switch: Switch) -> Flow:
    return linear_flow.Flow(FlowName.UNWIRE).add(
        ClosePort(switch.ovsdb, switch.bridge, switch.bindings),
        RemoveSecurityGroups(switch.firewall),
        ReleaseVlan(switch.networks),
    )


def resync(switch: Switch) -> Flow:
    """Inputs: ``desired``, ``present``. Stale flows are swept after all ports were in it."""
    return _wiring(switch, FlowName.RESYNC)


def _wiring(switch: Switch, name: FlowName) -> Flow:
    return linear_flow.Flow(name).add(
        LocateInterface(),
        RaiseLink(switch.bindings, switch.ofctl if name is FlowName.RESYNC else None),
        ProvisionNetwork(switch.networks, rewrite=name is FlowName.RESYNC),
        ApplySecurityGroups(switch.firewall),
        VerifySecurityGroups(switch.firewall),
        BindVlan(switch.bindings),
        VerifyWiring(switch.ovsdb, switch.bridge, switch.bindings),
        CommitSecurityGroups(switch.firewall),
    )
