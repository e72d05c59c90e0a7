"""Which local ports a packet is for: by MAC, to all of a network, or to an unknown MAC.

Our bridge learns no MAC addresses; these flows are its forwarding table. On
Neutron's bridge they deliver to filtered ports in place of NORMAL, and there
are none for all of a network. A MAC that several ports hold (an allowed address
pair) is one flow that goes to each of them, because of two flows with one
match the later would replace the earlier. Every way leads through the ports'
ingress rules.
"""

import enum
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from agent_flows.openflow import flow
from agent_flows.openflow.flow import Action, Flow
from agent_flows.openflow.pipeline import Register, Table
from agent_flows.openflow.priorities import AcceptOrIngress, Flood, NoLocalPort, Transient, Uplink


class Everyone(enum.StrEnum):
    FLOOD = "flood"
    """Broadcast and multicast: every port of the network."""
    UNKNOWN = "unknown"
    """Unicast to a MAC that no port here has: ports without port security, which may
    hold MACs we do not know."""


class Destination(NamedTuple):
    """``to`` is a MAC or one of :class:`Everyone`, on the network of a local VLAN.

    With ``segment``, a MAC's frames that still carry their physical network's
    tag (0: none). ``beside_normal``: on Neutron's bridge, where NORMAL must not
    deliver to the MAC either if its delivery flow is missing.
    """

    vlan: int
    to: str
    segment: int | None = None
    beside_normal: bool = False


Receivers = Mapping[int, bool]
"""ofport to whether the MAC is the port's own; a MAC only held by address pairs may
just now be in use on another host, so it is sent there, too. (Not on Neutron's bridge, whose
NORMAL would also lead to local ports, past their rules.)"""


def flows_to(destination: Destination, receivers: Receivers) -> Iterator[Flow]:
    """The flows that lead to ``receivers``; their matches depend on ``destination`` alone."""
    hand_over = _hand_over(receivers)
    network = flow.register(Register.NETWORK, destination.vlan)
    if destination.to == Everyone.FLOOD:
        yield Flow(
            Table.FLOOD, Flood.NETWORK, (network,), (*hand_over, flow.to(Table.ACCEPTED_EGRESS))
        )
        return
    if destination.segment is not None:
        yield _from_segment(destination, destination.segment, hand_over)
        return
    tag = flow.vlan(destination.vlan)
    untag = (flow.STRIP_VLAN, flow.load(Register.NETWORK, destination.vlan))
    uplink: tuple[Action, ...] = (flow.to(Table.ACCEPTED_EGRESS),)
    if destination.to == Everyone.UNKNOWN:
        local: int = AcceptOrIngress.UNKNOWN_UNICAST
        remote: int = Transient.UNKNOWN_UNICAST
        mac: tuple[flow.Term, ...] = ()
    else:
        local, remote = AcceptOrIngress.DELIVERY, Transient.DELIVERY
        mac = (flow.dl_dst(destination.to),)
        if any(receivers.values()):
            uplink = ()
    yield Flow(Table.ACCEPT_OR_INGRESS, local, (network, *mac), (*hand_over, *uplink))
    yield Flow(Table.TRANSIENT, remote, (tag, *mac), (*untag, *hand_over))
    if destination.beside_normal:
        # In other tables than the flows that they stand in for, so that they are not deleted with
        # them. They drop: the registers only show whose they are.
        whose = tuple(flow.load(Register.PORT, ofport) for ofport in sorted(receivers))
        yield Flow(Table.NO_LOCAL_PORT, NoLocalPort.LOCAL_MAC, (network, *mac), whose)
        yield Flow(Table.UPLINK, Uplink.LOCAL_MAC, (tag, *mac), whose)


def _from_segment(destination: Destination, segment: int, hand_over: tuple[Action, ...]) -> Flow:
    """Neutron's distributed routers send frames to a VLAN or flat network's ports that never get
    a local VLAN (its ovs_dvr_neutron_agent.py, _bind_distributed_router_interface_port)."""
    tag, untag = (flow.vlan(segment), (flow.STRIP_VLAN,)) if segment else (flow.UNTAGGED, ())
    network = flow.load(Register.NETWORK, destination.vlan)
    return Flow(
        Table.TRANSIENT,
        Transient.SEGMENT,
        (tag, flow.dl_dst(destination.to)),
        (*untag, network, *hand_over),
    )


def _hand_over(receivers: Receivers) -> tuple[Action, ...]:
    actions: list[Action] = []
    if len(receivers) > 1:
        actions.append(flow.load(Register.SEVERAL, 1))
    for ofport in sorted(receivers):
        actions += flow.load(Register.PORT, ofport), flow.to(Table.BASE_INGRESS)
    return tuple(actions)
