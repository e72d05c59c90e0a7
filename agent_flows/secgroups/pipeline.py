"""The pipeline's tables, registers, priorities and connection states, each by name.

Numbers are those of Neutron's OVS firewall (its contributor guide, "Open
vSwitch firewall driver") wherever it has the thing; ours are marked.

The way of a packet::

    a VM's    0 -> 71 -> (conntrack) -> 72 -> 73 -> 81 of a local port, 95, or 91 -> 94
    uplink's  0 -> 60 -> 81 of a local port, or 95
    into a VM 81 -> (conntrack) -> 82 -> 83 -> 84
"""

import enum
from dataclasses import dataclass


class Home(enum.Enum):
    """Whose integration bridge the pipeline stands on."""

    OWN = "own"
    """Ours: no NORMAL anywhere; tables 0, 60 and 95 are ours."""
    NEUTRON = "neutron"
    """That of Neutron's OVS agent: table 0 is Neutron's, everything arrives in 60, and an
    allowed packet ends in NORMAL."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """``permitted_ethertypes`` pass every filtered port, in and out, without a rule."""

    home: Home = Home.OWN
    permitted_ethertypes: frozenset[int] = frozenset()


OWN_PIPELINE = Pipeline()


class Table(enum.IntEnum):
    LOCAL_SWITCHING = 0
    """Who sent it: a port (registers are set) or the network's uplink."""
    TRANSIENT = 60
    """From the uplink, tagged with the local VLAN: which port is it for."""
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
    """New connections let in, for others to watch; drops."""
    DROPPED = 93
    """What the rules refused, for others to watch; drops."""
    UPLINK = 94
    """Out by the network's uplink (Neutron: accepted egress, NORMAL)."""
    FLOOD = 95
    """Ours. Broadcast, multicast: to every port of the network through its own ingress rules."""


class Register(enum.IntEnum):
    PORT = 5
    """ofport of the local port whose rules are looked at."""
    NETWORK = 6
    """Local VLAN of the network; its low 16 bits are the conntrack zone."""
    REMOTE_GROUP = 7
    """Id of the conjunction that let the packet through."""
    SEVERAL = 8
    """Ours. 1: the packet goes to several ports, so one's refusal must not cut its connection."""


class Priority(enum.IntEnum):
    """Within one table, highest first; a table's default is 0."""

    DEAD_VLAN = 65535
    CLEAR_TRACKED = 65534
    """LOCAL_SWITCHING: a packet that arrives tracked starts anew."""

    IDENTIFY = 100
    """LOCAL_SWITCHING: a port's in_port. ACCEPT_OR_INGRESS: a local port's MAC. LAST_DOOR."""
    NO_PORT_SECURITY = 110
    """BASE_INGRESS: into a port without port security everything goes."""
    NEEDS_NO_RULE = 100
    """BASE_INGRESS: ARP and neighbour discovery."""
    UNICAST = 90
    """TRANSIENT: a local port's MAC."""
    MULTICAST = 90
    """ACCEPT_OR_INGRESS: to the flood table."""
    UNKNOWN_UNICAST = 10
    """TRANSIENT, ACCEPT_OR_INGRESS: a MAC nobody here has."""

    NEIGHBOUR = 95
    """BASE_EGRESS: ARP, RARP and neighbour discovery of a port's own addresses."""
    DHCP_CLIENT = 80
    """BASE_EGRESS: to a DHCP server, from a port's own addresses."""
    SERVICE_OF_NETWORK = 70
    """BASE_EGRESS: DHCP server and router advertisements of a VM are dropped."""
    OWN_ADDRESS = 65
    """BASE_EGRESS: IP from a port's own addresses goes to conntrack."""
    DHCP_SERVER = 95
    """BASE_INGRESS: from a DHCP server."""
    UNTRACKED = 90
    """BASE_INGRESS: IP goes to conntrack."""
    TRACKED = 80
    """BASE_INGRESS: seen by conntrack at egress already."""

    INVALID = 95
    """Rules: conntrack calls it invalid. Here and below, of both rules tables."""
    REPLY = 90
    """Rules: replies and related packets of a connection that is not cut."""
    NO_RULE_APPLIES = 85
    """Rules: neither new nor the original direction of a connection."""
    RULE = 74
    """Rules: a rule without a remote group."""
    CUT = 50
    """Rules: no rule allows it, and the connection is cut already."""
    SEVERAL_RECEIVERS = 41
    """Rules: this port refuses; others may take it."""
    CUT_NOW = 40
    """Rules: an established connection no rule allows any more is cut."""

    COMMIT = 50
    """ACCEPT_INGRESS, ACCEPTED_EGRESS."""


CONJUNCTION_PRIORITIES = range(60, 74)
"""Rules with remote groups. One agent process uses one of them: the flows of an
older process that still stand keep theirs, so neither disturbs the other."""

DEAD_VLAN = 4095
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


ARP = 0x0806
RARP = 0x8035
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
