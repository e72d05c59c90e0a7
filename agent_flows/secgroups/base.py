"""The flows that are installed before any port: the pipeline itself.

They decide what happens to a packet of a port; the flows of ports decide which
packets are a port's, and which port is open. So with these alone no packet
passes.
"""

from collections.abc import Iterator

from agent_flows.openflow import cookie, flow
from agent_flows.openflow.flow import Flow
from agent_flows.openflow.pipeline import (
    CUT_MARK,
    DEAD_VLAN,
    ICMPV6_IN_WITHOUT_RULE,
    ICMPV6_UNTRACKABLE,
    ROUTER_ADVERTISEMENT,
    CtState,
    Home,
    Pipeline,
    Register,
    Table,
)
from agent_flows.openflow.priorities import (
    Accepted,
    AcceptOrIngress,
    BaseEgress,
    BaseIngress,
    LocalSwitching,
    Rules,
    Transient,
)
from agent_flows.spec import ICMPV6, UDP, Ethertype

DHCP_PORTS = {Ethertype.IPV4: (68, 67), Ethertype.IPV6: (546, 547)}
"""Client's and server's UDP port."""


def base_flows(pipeline: Pipeline) -> dict[int, str]:
    """Cookie to flow."""
    texts = [str(each) for each in _flows(pipeline)]
    return {cookie.content(cookie.Kind.BASE, text): text for text in texts}


def _flows(pipeline: Pipeline) -> Iterator[Flow]:
    if pipeline.home is Home.OWN:
        yield from _own_bridge()
    else:
        yield from _neutrons_bridge()
    yield from _egress(pipeline)
    yield from _ingress(pipeline)
    yield from _rules(Table.RULES_EGRESS, Table.ACCEPT_OR_INGRESS)
    yield from _rules(Table.RULES_INGRESS, Table.ACCEPT_INGRESS)
    yield from _accepted(Table.ACCEPT_INGRESS, Table.LAST_DOOR, Table.ACCEPTED_INGRESS)
    for table, then in _ONWARDS.items():
        yield Flow(table, 0, (), (flow.to(then),))
    for table in (Table.LAST_DOOR, Table.ACCEPTED_INGRESS, Table.DROPPED):
        yield Flow(table, 0)


_ONWARDS = {
    Table.BASE_EGRESS: Table.DROPPED,
    Table.RULES_EGRESS: Table.DROPPED,
    Table.BASE_INGRESS: Table.DROPPED,
    Table.RULES_INGRESS: Table.DROPPED,
    Table.ACCEPT_INGRESS: Table.LAST_DOOR,
    Table.ACCEPTED_EGRESS: Table.UPLINK,
}
"""What happens by default, on either bridge."""


def _own_bridge() -> Iterator[Flow]:
    """Packets of no port are dropped; connections that leave the host are committed."""
    table = Table.LOCAL_SWITCHING
    yield Flow(table, LocalSwitching.DEAD_VLAN, (flow.vlan(DEAD_VLAN),))
    yield _cleared(table, LocalSwitching.CLEAR_TRACKED)
    for closed in (table, Table.TRANSIENT, Table.UPLINK, Table.FLOOD):
        yield Flow(closed, 0)
    yield Flow(
        Table.ACCEPT_OR_INGRESS,
        AcceptOrIngress.MULTICAST,
        (flow.MULTICAST,),
        (flow.to(Table.FLOOD),),
    )
    yield Flow(Table.ACCEPT_OR_INGRESS, 0, (), (flow.to(Table.ACCEPTED_EGRESS),))
    yield from _accepted(Table.ACCEPTED_EGRESS, Table.UPLINK)


def _neutrons_bridge() -> Iterator[Flow]:
    """Neutron's tables around ours: only a new connection passes 91, where Neutron's logging
    looks at it, and all that leaves ends in NORMAL (Neutron's firewall.py, initialize_port_flows
    and _initialize_third_party_tables)."""
    # What comes from other bridges has the tag of its network by now.
    yield Flow(Table.TRANSIENT, Transient.UNKNOWN_PORT, (flow.UNTAGGED,))
    yield _cleared(Table.BASE_EGRESS, BaseEgress.CLEAR_TRACKED)
    yield Flow(Table.TRANSIENT, Transient.TO_UPLINK, (), (flow.to(Table.UPLINK),))
    yield Flow(Table.ACCEPT_OR_INGRESS, 0, (), (flow.to(Table.NO_LOCAL_PORT),))
    yield from _accepted(Table.NO_LOCAL_PORT, Table.ACCEPTED_EGRESS)
    yield Flow(Table.NO_LOCAL_PORT, 0, (), (flow.to(Table.UPLINK),))
    yield Flow(Table.UPLINK, 0, (), (flow.NORMAL,))


def _cleared(table: Table, priority: int) -> Flow:
    """A packet that arrives tracked is handled as untracked."""
    return Flow(
        table, priority, (flow.ct_state(CtState.TRACKED),), (flow.CLEAR_TRACKED, flow.to(table))
    )


def _egress(pipeline: Pipeline) -> Iterator[Flow]:
    yield from _services_of_network(Table.BASE_EGRESS, BaseEgress.SERVICE_OF_NETWORK)
    yield from _services_of_network(Table.RULES_EGRESS, Rules.SERVICE_OF_NETWORK)
    accept = (flow.to(pipeline.without_rule),)
    for number in sorted(pipeline.permitted_ethertypes):
        yield Flow(Table.BASE_EGRESS, BaseEgress.NEIGHBOUR, (flow.ethertype(number),), accept)


def _services_of_network(table: Table, priority: int) -> Iterator[Flow]:
    """A VM is no DHCP server, and sends no router advertisements."""
    dropped = (flow.to(Table.DROPPED),)
    for ethertype, (client, server) in DHCP_PORTS.items():
        match = (flow.protocol(ethertype, UDP), flow.ports(server, client))
        yield Flow(table, priority, match, dropped)
    match = (flow.protocol(Ethertype.IPV6, ICMPV6), flow.icmp(ROUTER_ADVERTISEMENT))
    yield Flow(table, priority, match, dropped)


def _ingress(pipeline: Pipeline) -> Iterator[Flow]:
    table = Table.BASE_INGRESS
    accept = (flow.to(Table.ACCEPT_INGRESS),)
    yield Flow(table, BaseIngress.NEEDS_NO_RULE, (flow.ARP,), accept)
    for number in sorted(pipeline.permitted_ethertypes):
        yield Flow(table, BaseIngress.NEEDS_NO_RULE, (flow.ethertype(number),), accept)
    for icmp_type in ICMPV6_IN_WITHOUT_RULE:
        match = (flow.protocol(Ethertype.IPV6, ICMPV6), flow.icmp(icmp_type))
        yield Flow(table, BaseIngress.NEEDS_NO_RULE, match, accept)
    for ethertype, (client, server) in DHCP_PORTS.items():
        match = (flow.protocol(ethertype, UDP), flow.ports(server, client))
        yield Flow(table, BaseIngress.DHCP_SERVER, match, accept)
    for ethertype in Ethertype:
        match = (flow.protocol(ethertype), flow.ct_state(CtState.UNTRACKED))
        yield Flow(table, BaseIngress.UNTRACKED, match, (flow.track(Table.RULES_INGRESS),))
    yield Flow(
        table,
        BaseIngress.TRACKED,
        (flow.ct_state(CtState.TRACKED),),
        (flow.to(Table.RULES_INGRESS),),
    )


def _rules(table: Table, accept: Table) -> Iterator[Flow]:
    """Around a port's rules: what conntrack decides above them, what happens below them.

    A rule is asked only about a new connection or the original direction of an
    established one, so a port's rules need not say so again. A stateless
    port's rules are asked about every packet.
    """
    accepted, dropped = (flow.to(accept),), (flow.to(Table.DROPPED),)
    stateful = flow.register(Register.STATELESS, 0)

    def state(
        priority: Rules, state: CtState, *more: flow.Term, then: tuple[flow.Action, ...]
    ) -> Flow:
        return Flow(table, priority, (flow.ct_state(state), stateful, *more), then)

    for icmp_type in ICMPV6_UNTRACKABLE:
        icmp = (flow.protocol(Ethertype.IPV6, ICMPV6), flow.icmp(icmp_type))
        to_rules = (flow.CLEAR_TRACKED, flow.to(table))
        yield state(Rules.UNTRACKABLE, CtState.INVALID, *icmp, then=to_rules)
    yield state(Rules.INVALID, CtState.INVALID, then=dropped)
    for whole in (CtState.REPLY, CtState.RELATED):
        yield state(Rules.REPLY, whole, flow.ct_mark(0), then=accepted)
    for other in (CtState.ESTABLISHED_RELATED, CtState.ESTABLISHED_REPLY, CtState.NEITHER):
        yield state(Rules.NO_RULE_APPLIES, other, then=dropped)
    yield Flow(table, Rules.CUT, (flow.ct_mark(CUT_MARK),), dropped)
    yield state(
        Rules.SEVERAL_RECEIVERS,
        CtState.ESTABLISHED,
        flow.register(Register.SEVERAL, 1),
        then=dropped,
    )
    for ethertype in Ethertype:
        yield state(Rules.CUT_NOW, CtState.ESTABLISHED, flow.protocol(ethertype), then=(flow.CUT,))


def _accepted(table: Table, then: Table, watched: Table | None = None) -> Iterator[Flow]:
    watch = () if watched is None else (flow.to(watched),)
    for ethertype in Ethertype:
        # The switch takes a ct action only from a match on IP.
        ip = flow.protocol(ethertype)
        yield Flow(
            table,
            Accepted.COMMIT,
            (ip, flow.ct_state(CtState.NEW)),
            (flow.COMMIT, flow.to(then), *watch),
        )
        # A rule allows the connection again.
        yield Flow(
            table,
            Accepted.COMMIT,
            (ip, flow.ct_state(CtState.ORIGINAL), flow.ct_mark(CUT_MARK)),
            (flow.MEND, flow.to(then)),
        )
