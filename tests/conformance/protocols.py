"""What a packet is, in the words of the protocols that need no rule."""

import ipaddress

from tests.conformance.world import ICMPV6, UDP, Packet

MLD_QUERY, ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 130, 133, 134
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
WITHOUT_ANSWER = frozenset({131, 132, ROUTER_SOLICITATION, 137, 143})
"""MLD reports and done, router solicitations, redirects: no connection, so conntrack calls
them invalid."""
DHCP = {4: (68, 67), 6: (546, 547)}
"""Client's and server's UDP port by IP version."""


def link_local(mac: str) -> ipaddress.IPv6Address:
    octets = [int(octet, 16) for octet in mac.split(":")]
    octets[0] ^= 2
    identifier = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return ipaddress.IPv6Address(b"\xfe\x80" + b"\0" * 6 + identifier)


def icmpv6_type(packet: Packet) -> int | None:
    if packet.version == 6 and packet.protocol == ICMPV6 and packet.icmp is not None:
        return packet.icmp[0]
    return None


def is_dhcp(packet: Packet, *, from_server: bool) -> bool:
    if packet.version is None or packet.protocol != UDP:
        return False
    client, server = DHCP[packet.version]
    return packet.ports == ((server, client) if from_server else (client, server))
