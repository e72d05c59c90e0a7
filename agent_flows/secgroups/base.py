"""The flows that are there before any port: the pipeline itself.

They say what happens to a packet of some port; which packets are some port's,
and which port is open, is said by the flows of ports. So with these alone
nothing passes.
"""

from collections.abc import Iterator

from agent_flows.secgroups import cookie, flow
from agent_flows.secgroups.flow import Flow
from agent_flows.secgroups.pipeline import (
    CUT_MARK,
    DEAD_VLAN,
    ICMPV6_IN_WITHOUT_RULE,
    ROUTER_ADVERTISEMENT,
    CtState,
    Pipeline,
    Priority,
    Register,
    Table,
)
from agent_flows.spec import ICMPV6, UDP, Ethertype

DHCP_PORTS = {Ethertype.IPV4: (68, 67), Ethertype.IPV6: (546, 547)}
"""Client's and server's UDP port."""


def base_flows(pipeline: Pipeline) -> dict[int, str]:
    """Cookie to flow."""
    texts = [str(each) for each in _flows()]
    return {cookie.content(cookie.Kind.BASE, text): text for text in texts}


def _flows() -> Iterator[Flow]:
    yield from _entry()
    yield from _egress()
    yield from _ingress()
    yield from _rules(Table.RULES_EGRESS, Table.ACCEPT_OR_INGRESS)
    yield from _rules(Table.RULES_INGRESS, Table.ACCEPT_INGRESS)
    yield from _accepted(Table.ACCEPT_INGRESS, Table.LAST_DOOR, Table.ACCEPTED_INGRESS)
    yield from _accepted(Table.ACCEPTED_EGRESS, Table.UPLINK)
    for table in Table:
        if table not in _DEFAULTS:
            yield Flow(table, 0)
    for table, then in _DEFAULTS.items():
        yield Flow(table, 0, (), (flow.to(then),))


_DEFAULTS = {
    Table.BASE_EGRESS: Table.DROPPED,
    Table.RULES_EGRESS: Table.DROPPED,
    Table.ACCEPT_OR_INGRESS: Table.ACCEPTED_EGRESS,
    Table.BASE_INGRESS: Table.DROPPED,
    Table.RULES_INGRESS: Table.DROPPED,
    Table.ACCEPT_INGRESS: Table.LAST_DOOR,
    Table.ACCEPTED_EGRESS: Table.UPLINK,
}


def _entry() -> Iterator[Flow]:
    table = Table.LOCAL_SWITCHING
    yield Flow(table, Priority.DEAD_VLAN, (flow.vlan(DEAD_VLAN),))
    yield Flow(
        table,
        Priority.CLEAR_TRACKED,
        (flow.ct_state(CtState.TRACKED),),
        (flow.CLEAR_TRACKED, flow.to(table)),
    )


def _egress() -> Iterator[Flow]:
    dropped = (flow.to(Table.DROPPED),)
    for ethertype, (client, server) in DHCP_PORTS.items():
        match = (flow.protocol(ethertype, UDP), flow.ports(server, client))
        yield Flow(Table.BASE_EGRESS, Priority.SERVICE_OF_NETWORK, match, dropped)
    yield Flow(
        Table.BASE_EGRESS,
        Priority.SERVICE_OF_NETWORK,
        (flow.protocol(Ethertype.IPV6, ICMPV6), flow.icmp(ROUTER_ADVERTISEMENT)),
        dropped,
    )
    yield Flow(
        Table.ACCEPT_OR_INGRESS, Priority.MULTICAST, (flow.MULTICAST,), (flow.to(Table.FLOOD),)
    )


def _ingress() -> Iterator[Flow]:
    table = Table.BASE_INGRESS
    accept = (flow.to(Table.ACCEPT_INGRESS),)
    yield Flow(table, Priority.NEEDS_NO_RULE, (flow.ARP,), accept)
    for icmp_type in ICMPV6_IN_WITHOUT_RULE:
        match = (flow.protocol(Ethertype.IPV6, ICMPV6), flow.icmp(icmp_type))
        yield Flow(table, Priority.NEEDS_NO_RULE, match, accept)
    for ethertype, (client, server) in DHCP_PORTS.items():
        match = (flow.protocol(ethertype, UDP), flow.ports(server, client))
        yield Flow(table, Priority.DHCP_SERVER, match, accept)
    for ethertype in Ethertype:
        match = (flow.protocol(ethertype), flow.ct_state(CtState.UNTRACKED))
        yield Flow(table, Priority.UNTRACKED, match, (flow.track(Table.RULES_INGRESS),))
    yield Flow(
        table,
        Priority.TRACKED,
        (flow.ct_state(CtState.TRACKED),),
        (flow.to(Table.RULES_INGRESS),),
    )


def _rules(table: Table, accept: Table) -> Iterator[Flow]:
    """Around a port's rules: what conntrack decides above them, what happens below them.

    A rule is asked only about a new connection or the original direction of an
    established one, so a port's rules need not say so again.
    """
    accepted, dropped = (flow.to(accept),), (flow.to(Table.DROPPED),)

    def state(
        priority: Priority, state: CtState, *more: flow.Term, then: tuple[flow.Action, ...]
    ) -> Flow:
        return Flow(table, priority, (flow.ct_state(state), *more), then)

    yield state(Priority.INVALID, CtState.INVALID, then=dropped)
    for whole in (CtState.REPLY, CtState.RELATED):
        yield state(Priority.REPLY, whole, flow.ct_mark(0), then=accepted)
    for other in (CtState.ESTABLISHED_RELATED, CtState.ESTABLISHED_REPLY, CtState.NEITHER):
        yield state(Priority.NO_RULE_APPLIES, other, then=dropped)
    yield Flow(table, Priority.CUT, (flow.ct_mark(CUT_MARK),), dropped)
    yield state(
        Priority.SEVERAL_RECEIVERS,
        CtState.ESTABLISHED,
        flow.register(Register.SEVERAL, 1),
        then=dropped,
    )
    for ethertype in Ethertype:
        yield state(
            Priority.CUT_NOW, CtState.ESTABLISHED, flow.protocol(ethertype), then=(flow.CUT,)
        )


def _accepted(table: Table, then: Table, watched: Table | None = None) -> Iterator[Flow]:
    watch = () if watched is None else (flow.to(watched),)
    for ethertype in Ethertype:
        # The switch takes a ct action only from a match on IP.
        ip = flow.protocol(ethertype)
        yield Flow(
            table,
            Priority.COMMIT,
            (ip, flow.ct_state(CtState.NEW)),
            (flow.COMMIT, flow.to(then), *watch),
        )
        # A rule that allows the connection is there again.
        yield Flow(
            table,
            Priority.COMMIT,
            (ip, flow.ct_state(CtState.ORIGINAL), flow.ct_mark(CUT_MARK)),
            (flow.MEND, flow.to(then)),
        )
