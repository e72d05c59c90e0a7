"""One port's programme: everything that is installed for it, compiled from its spec.

Pure. What a port may send and receive without any rule, and as whom, is said
here; the rules themselves are compiled once for all ports with the same groups
(:mod:`agent_flows.secgroups.rules`).
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent_flows.report import TaskError
from agent_flows.secgroups import flow
from agent_flows.secgroups.attachment import Attachment
from agent_flows.secgroups.base import DHCP_PORTS
from agent_flows.secgroups.conjunction import Conjunctions, Remote, Use
from agent_flows.secgroups.delivery import Destination, Everyone
from agent_flows.secgroups.flow import Flow, IPNetwork
from agent_flows.secgroups.pipeline import (
    ICMPV6_OUT_WITHOUT_RULE,
    NEIGHBOUR_ADVERTISEMENT,
    Pipeline,
    Priority,
    Register,
    Table,
)
from agent_flows.secgroups.rules import RuleFlows, Uncompilable, compile_groups
from agent_flows.spec import ICMPV6, UDP, DesiredState, Ethertype, PortSpec


@dataclass(frozen=True, slots=True)
class Programme:
    """Equal programmes need no switch operation to get from one to the other.

    ``flows`` are the port's own, one a line; ``destinations`` tell under which
    names it receives, and whether the name is its own; ``uses`` are the remote
    groups' addresses its rules need, ``groups`` every security and address
    group it depends on.
    """

    port_id: str
    ofport: int
    vlan: int
    flows: str
    destinations: Mapping[Destination, bool] = field(default_factory=dict)
    uses: frozenset[Use] = frozenset()
    groups: frozenset[str] = frozenset()

    @property
    def lines(self) -> list[str]:
        return self.flows.split("\n")

    @property
    def count(self) -> int:
        return self.flows.count("\n") + 1


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of compiling a batch.

    ``remotes`` names, for each remote group used, the groups that refer to it.
    """

    programmes: Mapping[str, Programme]
    errors: Mapping[str, TaskError]
    remotes: Mapping[Remote, frozenset[str]]


def compile_ports(
    desired: DesiredState,
    attachments: Mapping[str, Attachment],
    conjunctions: Conjunctions,
    pipeline: Pipeline,
) -> Compiled:
    """Compile every port of ``attachments``, each on its own: one that cannot be compiled
    is an error of that port alone."""
    programmes: dict[str, Programme] = {}
    errors: dict[str, TaskError] = {}
    remotes: dict[Remote, frozenset[str]] = {}
    by_groups: dict[tuple[str, ...], RuleFlows] = {}
    claimed = _claims(attachments.values())
    for port_id, attachment in attachments.items():
        try:
            if len(claimed[attachment.ofport]) > 1:
                raise Uncompilable(
                    "Conflict", f"several ports claim ofport {attachment.ofport}: "
                    + ", ".join(sorted(claimed[attachment.ofport])),
                )  # fmt: skip
            port = desired.ports.get(port_id)
            if port is None:
                raise Uncompilable("MissingSpec", f"no spec of port {port_id} is known here")
            groups = tuple(sorted(set(port.security_groups)))
            rules = _NO_RULES
            if _filtered(port):
                if groups not in by_groups:
                    by_groups[groups] = compile_groups(groups, desired, conjunctions)
                rules = by_groups[groups]
                for remote, referring in rules.remotes.items():
                    remotes[remote] = remotes.get(remote, frozenset()) | referring
            programmes[port_id] = compile_port(port, attachment, rules)
        except Uncompilable as exc:
            errors[port_id] = exc.error
        except ValueError as exc:
            # A value that no flow can carry, from a word of :mod:`.flow`.
            errors[port_id] = TaskError("Unsupported", str(exc))
    return Compiled(programmes, errors, remotes)


def _claims(attachments: Iterable[Attachment]) -> dict[int, list[str]]:
    claims: dict[int, list[str]] = {}
    for each in attachments:
        claims.setdefault(each.ofport, []).append(each.port_id)
    return claims


_NO_RULES = RuleFlows("", frozenset(), {})


def _filtered(port: PortSpec) -> bool:
    return port.admin_state_up and port.port_security_enabled


def compile_port(port: PortSpec, attachment: Attachment, rules: RuleFlows) -> Programme:
    """``rules`` are those of the port's groups; they count only if the port is filtered."""
    ofport, vlan = attachment.ofport, attachment.vlan
    groups = frozenset(port.security_groups) | {remote.id for remote in rules.remotes}
    if not port.admin_state_up:
        closed = Flow(Table.LOCAL_SWITCHING, Priority.IDENTIFY, (flow.in_port(ofport),))
        return Programme(port.id, ofport, vlan, str(closed), groups=groups)
    pairs = _pairs(port)
    if port.port_security_enabled:
        own = [*_door(ofport, vlan, Table.BASE_EGRESS), *_anti_spoofing(port, ofport, pairs)]
    else:
        own = [*_door(ofport, vlan, Table.ACCEPT_OR_INGRESS), _everything_in(ofport)]
    destinations = {Destination(vlan, mac): mac == port.mac_address for mac, _ in pairs}
    destinations[Destination(vlan, flow.mac(port.mac_address))] = True
    destinations[Destination(vlan, Everyone.FLOOD)] = True
    if not port.port_security_enabled:
        destinations[Destination(vlan, Everyone.UNKNOWN)] = True
    lines = list(dict.fromkeys(map(str, own)))
    if rules.template:
        lines.append(rules.of_port(ofport))
    return Programme(port.id, ofport, vlan, "\n".join(lines), destinations, rules.uses, groups)


def _door(ofport: int, vlan: int, first: Table) -> Iterator[Flow]:
    """Into the pipeline, and out of it to the port."""
    yield Flow(
        Table.LOCAL_SWITCHING,
        Priority.IDENTIFY,
        (flow.in_port(ofport), flow.UNTAGGED),
        (
            flow.load(Register.PORT, ofport),
            flow.load(Register.NETWORK, vlan),
            flow.to(first),
        ),
    )
    yield Flow(
        Table.LAST_DOOR,
        Priority.IDENTIFY,
        (flow.register(Register.PORT, ofport),),
        (flow.output(ofport),),
    )


def _everything_in(ofport: int) -> Flow:
    return Flow(
        Table.BASE_INGRESS,
        Priority.NO_PORT_SECURITY,
        (flow.register(Register.PORT, ofport),),
        (flow.to(Table.ACCEPT_INGRESS),),
    )


_Pair = tuple[str, IPNetwork]


def _pairs(port: PortSpec) -> list[_Pair]:
    """As whom the port may speak: its MAC with its addresses, and its address pairs."""
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


def _anti_spoofing(port: PortSpec, ofport: int, pairs: Iterable[_Pair]) -> Iterator[Flow]:
    own_link_local = (port.mac_address, link_local(port.mac_address))
    for mac, network in dict.fromkeys([*pairs, own_link_local]):
        yield from (_ipv4 if network.version == 4 else _ipv6)(ofport, mac, network)
    unconfigured = ipaddress.IPv4Network("0.0.0.0/32")
    yield _dhcp_client(ofport, port.mac_address, unconfigured, Ethertype.IPV4)


def _base_egress(ofport: int, priority: Priority, *match: flow.Term, then: flow.Action) -> Flow:
    port = flow.register(Register.PORT, ofport)
    return Flow(Table.BASE_EGRESS, priority, (port, *match), (then,))


_TO_RULES = flow.track(Table.RULES_EGRESS)
_ACCEPT = flow.to(Table.ACCEPT_OR_INGRESS)


def _ipv4(ofport: int, mac: str, network: IPNetwork) -> Iterator[Flow]:
    source = flow.dl_src(mac)
    yield _base_egress(
        ofport,
        Priority.NEIGHBOUR,
        flow.ARP,
        source,
        flow.arp_sender_mac(mac),
        *flow.arp_sender(network),
        then=_ACCEPT,
    )
    # A hypervisor announces a migrated VM by RARP.
    yield _base_egress(ofport, Priority.NEIGHBOUR, flow.RARP, source, then=_ACCEPT)
    yield _base_egress(
        ofport,
        Priority.OWN_ADDRESS,
        flow.protocol(Ethertype.IPV4),
        source,
        *flow.ip_source(network),
        then=_TO_RULES,
    )
    yield _dhcp_client(ofport, mac, network, Ethertype.IPV4)


def _ipv6(ofport: int, mac: str, network: IPNetwork) -> Iterator[Flow]:
    source = flow.dl_src(mac)
    icmp = flow.protocol(Ethertype.IPV6, ICMPV6)
    for type_ in ICMPV6_OUT_WITHOUT_RULE:
        yield _base_egress(
            ofport,
            Priority.NEIGHBOUR,
            icmp,
            flow.icmp(type_),
            source,
            *flow.ip_source(network),
            then=_ACCEPT,
        )
    # An advertisement speaks for its target, whatever address it is sent from.
    yield _base_egress(
        ofport,
        Priority.NEIGHBOUR,
        icmp,
        flow.icmp(NEIGHBOUR_ADVERTISEMENT),
        source,
        *flow.nd_target(network),
        then=_ACCEPT,
    )
    yield _base_egress(
        ofport,
        Priority.OWN_ADDRESS,
        flow.protocol(Ethertype.IPV6),
        source,
        *flow.ip_source(network),
        then=_TO_RULES,
    )
    yield _dhcp_client(ofport, mac, network, Ethertype.IPV6)


def _dhcp_client(ofport: int, mac: str, network: IPNetwork, ethertype: Ethertype) -> Flow:
    client, server = DHCP_PORTS[ethertype]
    return _base_egress(
        ofport,
        Priority.DHCP_CLIENT,
        flow.protocol(ethertype, UDP),
        flow.dl_src(mac),
        *flow.ip_source(network),
        flow.ports(client, server),
        then=_ACCEPT,
    )
