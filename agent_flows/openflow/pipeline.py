"""The pipeline's tables, registers and connection states, each by name.

Numbers are those of Neutron's OVS firewall (its contributor guide, "Open
vSwitch firewall driver") where it has the same; ours are marked.

The path of a packet on our own bridge::

    a VM's    0 -> 71 -> (conntrack) -> 72 -> 73 -> 81 of a local port, 95, or 91 -> 94
    uplink's  0 -> 60 -> 81 of a local port, or 95
    into a VM 81 -> (conntrack) -> 82 -> 83 -> 84

and on Neutron's, where everything comes from Neutron's tables to 60::

    a VM's    60 -> 71 -> (conntrack) -> 72 -> 73 -> 81 of a local port, or 96 -> (91 ->) 94
    others'   60 -> 81 of a local port, or 94
    into a VM 81 -> (conntrack) -> 82 -> 83 -> 84
"""

import enum
from dataclasses import dataclass

from agent_flows.openflow.priorities import LocalSwitching, Transient


class Home(enum.Enum):
    """Whose integration bridge the pipeline is on."""

    OWN = "own"
    """Ours: no NORMAL anywhere; tables 0, 60 and 95 are ours."""
    NEUTRON = "neutron"
    """That of Neutron's OVS agent: table 0 is Neutron's, everything arrives in 60, and an
    allowed packet ends in NORMAL."""


class Table(enum.IntEnum):
    LOCAL_SWITCHING = 0
    """By sender: a port (registers are set) or a network's uplink. Neutron's on its bridge."""
    TRANSIENT = 60
    """From the uplink, tagged with the local VLAN, to the receiving port. On Neutron's bridge
    everything comes here, also from ports; its default, NORMAL, is Neutron's."""
    BASE_EGRESS = 71
    """From a VM: anti-spoofing, what needs no rule; the rest goes through conntrack."""
    RULES_EGRESS = 72
    """From a VM, tracked: the rules."""
    ACCEPT_OR_INGRESS = 73
    """Allowed to leave: on to a local port, to all, or to the uplink."""
    BASE_INGRESS = 81
    """To a VM: what needs no rule; the rest goes through conntrack."""
    RULES_INGRESS = 82
    """To a VM, tracked: the rules."""
    ACCEPT_INGRESS = 83
    """Ours. Allowed in: a new connection is committed, a cut one mended."""
    LAST_DOOR = 84
    """Ours. The only table with an output to a VM: one flow for each port that is open."""
    ACCEPTED_EGRESS = 91
    """Allowed, towards the uplink: a new connection is committed, a cut one mended."""
    ACCEPTED_INGRESS = 92
    """Accepted new connections, for logging; drops."""
    DROPPED = 93
    """What the rules refused, for logging; drops."""
    UPLINK = 94
    """Out by the network's uplink; on Neutron's bridge NORMAL."""
    FLOOD = 95
    """Ours. Broadcast, multicast: to every port of the network through its own ingress rules."""
    NO_LOCAL_PORT = 96
    """Ours, on Neutron's bridge. Allowed to leave, and no delivery flow took it: dropped if a
    filtered local port has the MAC, else on to 91 or 94."""


class Register(enum.IntEnum):
    PORT = 5
    """ofport of the local port whose rules decide."""
    NETWORK = 6
    """Local VLAN of the network; its low 16 bits are the conntrack zone."""
    REMOTE_GROUP = 7
    """Id of the conjunction that let the packet through."""
    SEVERAL = 8
    """Ours. 1: the packet goes to several ports, so one that refuses it must not cut its
    connection."""
    STATELESS = 9
    """Ours. 1: the port whose rules decide is stateless: its connections do not count."""


DEAD_VLAN = 4095
"""Tag of a port that is kept closed (as in Neutron)."""
CUT_MARK = 1
"""ct_mark of a connection that was allowed once and is not any more (as in Neutron)."""


class CtState(enum.StrEnum):
    UNTRACKED = "-trk"
    TRACKED = "+trk"
    INVALID = "+trk+inv"
    NEW = "+trk+new-est"
    ORIGINAL = "+trk+est-rel-rpl"
    """Established, in the direction of its first packet."""
    REPLY = "+trk+est-rel+rpl"
    RELATED = "+trk-new-est+rel-inv"
    ESTABLISHED = "+trk+est"
    ESTABLISHED_RELATED = "+trk+est+rel"
    ESTABLISHED_REPLY = "+trk+est+rpl"
    NEITHER = "+trk-new-est"


MLD_QUERY, ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 130, 133, 134
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
# Neutron's neutron/agent/firewall.py, ICMPV6_ALLOWED_*_TYPES.
ICMPV6_IN_WITHOUT_RULE = (
    MLD_QUERY,
    ROUTER_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    NEIGHBOUR_ADVERTISEMENT,
)
ICMPV6_OUT_WITHOUT_RULE = (MLD_QUERY, ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION)
ICMPV6_UNTRACKABLE = (131, 132, ROUTER_SOLICITATION, 137, 143)
"""MLD reports and done, router solicitations, redirects: nothing answers them, and conntrack calls
them invalid (Linux nf_conntrack_proto_icmpv6.c, OVS lib/conntrack.c extract_l4_icmp6), so that a
rule that allows them would never match."""


_NEVER_PERMITTED = frozenset({0x0800, 0x86DD, 0x0806, 0x8035, 0x8100, 0x88A8})
"""IPv4, IPv6, ARP, RARP, and the two of VLAN tags."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The kind of pipeline.

    Frames of ``permitted_ethertypes`` pass every filtered port, in and out,
    without a rule. Raises ValueError for an invalid one, or one that the
    pipeline itself decides about (IP would open everything).

    With ``distributed_routing`` (DVR, as Neutron's agent has it) frames of
    VLAN and flat networks may come without a local VLAN; not otherwise,
    because a segment's number may be another network's local VLAN.
    """

    home: Home = Home.OWN
    permitted_ethertypes: frozenset[int] = frozenset()
    distributed_routing: bool = False

    def __post_init__(self) -> None:
        for each in sorted(self.permitted_ethertypes):
            # IEEE 802.3, 3.2.6: below 0x0600 it is a length.
            if not 0x0600 <= each <= 0xFFFF:
                raise ValueError(f"{each:#06x} is not an ethertype (0x0600 to 0xffff)")
            if each in _NEVER_PERMITTED:
                raise ValueError(f"{each:#06x} cannot be permitted as a whole: it is filtered")

    @property
    def door(self) -> tuple[Table, int]:
        """Table and priority of the flows that match a port by its in_port."""
        if self.home is Home.OWN:
            return Table.LOCAL_SWITCHING, LocalSwitching.SENDER
        return Table.TRANSIENT, Transient.SENDER

    @property
    def without_rule(self) -> Table:
        """Where a VM's ARP and neighbour discovery goes: on Neutron's bridge to NORMAL at once,
        which learns MAC addresses from it."""
        return Table.ACCEPT_OR_INGRESS if self.home is Home.OWN else Table.UPLINK


OWN_PIPELINE = Pipeline()
