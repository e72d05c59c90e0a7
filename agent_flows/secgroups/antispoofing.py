"""The addresses a port may send from: which of a VM's packets go on from BASE_EGRESS, and where.
Pure.

The flows of two addresses differ in MAC and address only, so their text is made
once and filled in: hosts have thousands of addresses.
"""

import functools
import ipaddress
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agent_flows.openflow import flow
from agent_flows.openflow.flow import Action, Flow, IPNetwork, Term
from agent_flows.openflow.pipeline import ICMPV6_OUT_WITHOUT_RULE, NEIGHBOUR_ADVERTISEMENT, Table
from agent_flows.openflow.priorities import BaseEgress
from agent_flows.secgroups.base import DHCP_PORTS
from agent_flows.spec import ICMPV6, UDP, Ethertype, PortSpec

Pair = tuple[str, IPNetwork]

_UNCONFIGURED = Term(f"{flow.IP_SOURCE[4]}=0.0.0.0")
"""The source of a DHCP client that has no address yet (RFC 2131, 4.1)."""

# Left open in a template.
_MAC = "<mac>"
_ADDRESS = "<address>"
_SOURCE = Term(f"dl_src={_MAC}")


class Ways(NamedTuple):
    """Where a VM's packets go: those that need no rule, and those that rules decide about."""

    without_rule: Action
    to_rules: Action


def pairs_of(port: PortSpec) -> list[Pair]:
    """Its MAC with its addresses, and its address pairs."""
    own = [(port.mac_address, ipaddress.ip_network(ip)) for ip in port.fixed_ips]
    own += [
        (pair.mac_address or port.mac_address, pair.ip_address)
        for pair in port.allowed_address_pairs
    ]
    return list(dict.fromkeys(own))


def link_local(mac: str) -> ipaddress.IPv6Network:
    """The link-local address a host derives from its MAC (RFC 4291, appendix A)."""
    octets = bytes.fromhex(flow.mac(mac).replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return ipaddress.IPv6Network((b"\xfe\x80" + b"\0" * 6 + identifier, 128))


def template(mac: str, pairs: Iterable[Pair], ways: Ways) -> str:
    """The flows of a port with this MAC that may send from ``pairs``, one a line, for any port
    (:func:`flow.of_port`)."""
    parts = []
    for source, network in dict.fromkeys([*pairs, (mac, link_local(mac))]):
        ethertype = Ethertype.IPV4 if network.version == 4 else Ethertype.IPV6
        address = flow.address(network)
        text = _of_address(ethertype, bool(address), ways)
        parts.append(text.replace(_MAC, flow.mac(source)).replace(_ADDRESS, address))
    unconfigured = str(_dhcp_client(Ethertype.IPV4, (_UNCONFIGURED,)))
    parts.append(unconfigured.replace(_MAC, mac))
    # A MAC with several addresses needs its RARP flow only once.
    return "\n".join(dict.fromkeys("\n".join(parts).split("\n")))


@functools.cache
def _of_address(ethertype: Ethertype, narrowed: bool, ways: Ways) -> str:
    """The flows for one address, or, if not ``narrowed``, for every address of the family."""
    flows = _ipv4(narrowed, ways) if ethertype is Ethertype.IPV4 else _ipv6(narrowed, ways)
    return "\n".join(map(str, flows))


def _ipv4(narrowed: bool, ways: Ways) -> Iterator[Flow]:
    address = _field(flow.IP_SOURCE[4], narrowed)
    sender = (flow.ARP, _SOURCE, Term(f"arp_sha={_MAC}"), *_field("arp_spa", narrowed))
    yield _base_egress(BaseEgress.NEIGHBOUR, *sender, then=ways.without_rule)
    # A hypervisor announces a migrated VM by RARP.
    yield _base_egress(BaseEgress.NEIGHBOUR, flow.RARP, _SOURCE, then=ways.without_rule)
    ip = flow.protocol(Ethertype.IPV4)
    yield _base_egress(BaseEgress.OWN_ADDRESS, ip, _SOURCE, *address, then=ways.to_rules)
    yield _dhcp_client(Ethertype.IPV4, address)


def _ipv6(narrowed: bool, ways: Ways) -> Iterator[Flow]:
    address = _field(flow.IP_SOURCE[6], narrowed)
    icmp = flow.protocol(Ethertype.IPV6, ICMPV6)
    for type_ in ICMPV6_OUT_WITHOUT_RULE:
        match = (icmp, flow.icmp(type_), _SOURCE, *address)
        yield _base_egress(BaseEgress.NEIGHBOUR, *match, then=ways.without_rule)
    # An advertisement claims its target address, from any source address.
    target = _field("nd_target", narrowed)
    match = (icmp, flow.icmp(NEIGHBOUR_ADVERTISEMENT), _SOURCE, *target)
    yield _base_egress(BaseEgress.NEIGHBOUR, *match, then=ways.without_rule)
    ip = flow.protocol(Ethertype.IPV6)
    yield _base_egress(BaseEgress.OWN_ADDRESS, ip, _SOURCE, *address, then=ways.to_rules)
    yield _dhcp_client(Ethertype.IPV6, address)


def _dhcp_client(ethertype: Ethertype, address: tuple[Term, ...]) -> Flow:
    client, server = DHCP_PORTS[ethertype]
    match = (flow.protocol(ethertype, UDP), _SOURCE, *address, flow.ports(client, server))
    return _base_egress(BaseEgress.DHCP_CLIENT, *match, then=flow.to(Table.ACCEPT_OR_INGRESS))


def _base_egress(priority: BaseEgress, *match: Term, then: Action) -> Flow:
    return Flow(Table.BASE_EGRESS, priority, (flow.ANY_PORT, *match), (then,))


def _field(name: str, narrowed: bool) -> tuple[Term, ...]:
    return (Term(f"{name}={_ADDRESS}"),) if narrowed else ()
