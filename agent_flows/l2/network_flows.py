"""The flows of a network: in from its segment, out to it. Pure.

A frame carries the segment's tag on the physical network and the local VLAN
between the bridges; inside the integration bridge only the uplink's side is
tagged; the network of a VM's frames is in a register.
"""

from collections.abc import Iterable

from agent_flows.l2.bridges import Uplink
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.flow import Action, Flow, Term
from agent_flows.openflow.pipeline import Register, Table
from agent_flows.openflow.priorities import LocalSwitching, PhysicalBridge, Transient
from agent_flows.openflow.priorities import Uplink as UplinkTable
from agent_flows.spec import NetworkSpec

# A physical bridge has one table of ours: its first.
_FIRST = Table.LOCAL_SWITCHING
_PUSH = Action("push_vlan:0x8100")


def on_integration_bridge(network: NetworkSpec, vlan: int, uplink: Uplink | None) -> list[Flow]:
    """The flows of a network whose local VLAN is ``vlan``.

    A network without an uplink needs none: its ports reach each other by their
    own flows, and other packets cannot leave.
    """
    if uplink is None:
        return []
    return [
        Flow(
            Table.LOCAL_SWITCHING,
            LocalSwitching.SENDER,
            (flow.in_port(uplink.ofport), _segment(network)),
            (*_retag(network, vlan), flow.to(Table.TRANSIENT)),
        ),
        Flow(
            Table.TRANSIENT,
            Transient.DELIVERY,
            (flow.vlan(vlan), flow.MULTICAST),
            (flow.STRIP_VLAN, flow.load(Register.NETWORK, vlan), flow.to(Table.FLOOD)),
        ),
        Flow(
            Table.UPLINK,
            UplinkTable.NETWORK,
            (flow.register(Register.NETWORK, vlan),),
            (_PUSH, _set_vlan(vlan), flow.output(uplink.ofport)),
        ),
    ]


def on_physical_bridge(network: NetworkSpec, vlan: int, uplink: Uplink) -> list[Flow]:
    """The flows that translate the local VLAN to the segment, on the way out."""
    if network.segmentation_id is None:
        translate: tuple[Action, ...] = (flow.STRIP_VLAN, flow.NORMAL)
    else:
        translate = (_set_vlan(network.segmentation_id), flow.NORMAL)
    match = (flow.in_port(uplink.peer_ofport), flow.vlan(vlan))
    return [Flow(_FIRST, PhysicalBridge.TRANSLATE, match, translate)]


def base_of_physical_bridge(uplink: Uplink) -> list[Flow]:
    """Nothing untranslated leaves; everything else is switched as before."""
    return [
        Flow(_FIRST, PhysicalBridge.FROM_INTEGRATION, (flow.in_port(uplink.peer_ofport),)),
        Flow(_FIRST, PhysicalBridge.ELSE, (), (flow.NORMAL,)),
    ]


def replacement(flows: Iterable[Flow], vlan: int) -> list[str]:
    """The bundle lines that replace a network's flows on a bridge, or, with 0, a physical
    bridge's base flows."""
    return [removal(vlan), *(flow.add(str(each), cookie.network(vlan)) for each in flows)]


def removal(vlan: int) -> str:
    """The bundle line that removes them."""
    return flow.delete(cookie.network(vlan))


def _segment(network: NetworkSpec) -> Term:
    if network.segmentation_id is None:
        return flow.UNTAGGED
    return flow.vlan(network.segmentation_id)


def _retag(network: NetworkSpec, vlan: int) -> tuple[Action, ...]:
    push = () if network.segmentation_id is not None else (_PUSH,)
    return (*push, _set_vlan(vlan))


def _set_vlan(vlan: int) -> Action:
    # The bit for "tagged" is part of the field (ovs-fields(7), vlan_vid).
    return Action(f"set_field:{0x1000 | vlan}->vlan_vid")
