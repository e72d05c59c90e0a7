"""Priorities of flows: an enum for each table, highest first. A table's default has 0."""

import enum


@enum.unique
class LocalSwitching(enum.IntEnum):
    """On our own bridge; on Neutron's the table is Neutron's."""

    DEAD_VLAN = 65535
    CLEAR_TRACKED = 65534
    """A packet that arrives tracked is handled as untracked."""
    SENDER = 100
    """By in_port: a port's packets, or those of a network's uplink."""


@enum.unique
class Transient(enum.IntEnum):
    """Written by secgroups.base (UNKNOWN_PORT, TO_UPLINK), secgroups.port_flows (SENDER, TAGGED),
    secgroups.delivery (DELIVERY, SEGMENT, UNKNOWN_UNICAST), l2.network_flows (DELIVERY of
    multicast) and neutron.agent.quarantine (CLOSED, CLOSED_SEGMENT, FLOOR). On Neutron's bridge
    also by Neutron's agent: NORMAL is 1, frames still tagged with their segment 20, its highest
    102 (DNS forwarder)."""

    CLOSED = 200
    """From and to a port in quarantine."""
    SENDER = 100
    """By in_port, on Neutron's bridge: a port's packets without a VLAN tag."""
    TAGGED = 95
    """By in_port, on Neutron's bridge: a port's packets with a VLAN tag are dropped."""
    DELIVERY = 90
    """To a local port's MAC; on our own bridge multicast, too."""
    CLOSED_SEGMENT = 85
    """As SEGMENT, to a port in quarantine. Untagged frames may be on any network, so ports' own
    come before."""
    SEGMENT = 80
    """To a local port's MAC, still tagged as on the physical network (Neutron's DVR)."""
    UNKNOWN_UNICAST = 10
    """To a MAC that no port here has."""
    UNKNOWN_PORT = 5
    """On Neutron's bridge: an untagged packet of a port without flows is dropped."""
    TO_UPLINK = 4
    """On Neutron's bridge: what no flow delivers goes to NORMAL through the uplink's table, which
    drops it if a filtered port has its MAC."""
    FLOOR = 2
    """On Neutron's bridge, with the quarantine's cookie: without the pipeline nothing passes."""


@enum.unique
class BaseEgress(enum.IntEnum):
    CLEAR_TRACKED = 65534
    """On Neutron's bridge: a packet that arrives tracked is handled as untracked."""
    NEIGHBOUR = 95
    """ARP, RARP and neighbour discovery of a port's own addresses; permitted ethertypes."""
    DHCP_CLIENT = 80
    """To a DHCP server, from a port's own addresses."""
    SERVICE_OF_NETWORK = 70
    """DHCP server and router advertisements of a VM are dropped."""
    OWN_ADDRESS = 65
    """IP from a port's own addresses goes to conntrack."""


@enum.unique
class AcceptOrIngress(enum.IntEnum):
    CLOSED = 200
    """To a port in quarantine."""
    DELIVERY = 100
    """To a local port's MAC."""
    MULTICAST = 90
    """To the flood table."""
    UNKNOWN_UNICAST = 10
    """To a MAC that no port here has."""


@enum.unique
class BaseIngress(enum.IntEnum):
    NO_PORT_SECURITY = 110
    """Everything goes into a port without port security."""
    NEEDS_NO_RULE = 100
    """ARP, neighbour discovery and permitted ethertypes."""
    DHCP_SERVER = 95
    """From a DHCP server."""
    STATELESS = 92
    """A stateless port's IP goes to its rules as it is."""
    UNTRACKED = 90
    """IP goes to conntrack."""
    TRACKED = 80
    """Tracked at egress already."""


@enum.unique
class Rules(enum.IntEnum):
    """Of RULES_EGRESS and RULES_INGRESS."""

    SERVICE_OF_NETWORK = 97
    """What BASE_EGRESS drops already: if its flow is missing there, nothing passes either."""
    UNTRACKABLE = 96
    """ICMPv6 that conntrack has no connections for."""
    INVALID = 95
    """conntrack calls it invalid."""
    REPLY = 90
    """Replies and related packets of a connection that is not cut."""
    NO_RULE_APPLIES = 85
    """Neither new nor the original direction of a connection."""
    RULE = 74
    """A rule without a remote group."""
    CUT = 50
    """No rule allows it, and the connection is cut already."""
    SEVERAL_RECEIVERS = 41
    """This port refuses; others may take it."""
    CUT_NOW = 40
    """An established connection that no rule allows any more is cut."""


CONJUNCTIONS = range(60, 74)
"""Of the same tables: rules with remote groups. An agent process uses one of them; flows of an
older process keep theirs, so that neither disturbs the other."""


@enum.unique
class Accepted(enum.IntEnum):
    """Of ACCEPT_INGRESS and ACCEPTED_EGRESS, and of NO_LOCAL_PORT on Neutron's bridge."""

    COMMIT = 50


@enum.unique
class NoLocalPort(enum.IntEnum):
    LOCAL_MAC = 100
    """A filtered port has this MAC: its delivery flow is missing, and NORMAL would bypass its
    rules."""


@enum.unique
class LastDoor(enum.IntEnum):
    PORT = 100


@enum.unique
class Uplink(enum.IntEnum):
    CLOSED = 200
    """On Neutron's bridge: to a port in quarantine."""
    NETWORK = 100
    LOCAL_MAC = 90
    """On Neutron's bridge, as that of NO_LOCAL_PORT, for what comes from an uplink."""


@enum.unique
class Flood(enum.IntEnum):
    NETWORK = 100


@enum.unique
class PhysicalBridge(enum.IntEnum):
    """Of the first table of a physical network's bridge."""

    TRANSLATE = 4
    """From a local VLAN to the network's segment."""
    FROM_INTEGRATION = 2
    """What is not translated is dropped."""
    ELSE = 0
    """What does not come from the integration bridge is switched as before."""
