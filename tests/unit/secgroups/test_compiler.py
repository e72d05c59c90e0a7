"""What is compiled, where it can be told without a packet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows.secgroups.attachment import Attachment
from agent_flows.secgroups.conjunction import Conjunctions
from agent_flows.secgroups.pipeline import Pipeline
from agent_flows.secgroups.programme import Programme, compile_ports
from agent_flows.spec import AddressGroupSpec, DesiredState, PortSpec, Spec
from tests.unit.secgroups.specs import attached, group, number, port


def compiled(subject: PortSpec, *others: Spec, ofport: int = 5) -> Programme:
    desired = DesiredState.of([subject, *others])
    attachments = {subject.id: attached(subject, ofport)}
    result = compile_ports(desired, attachments, Conjunctions(60, 1), Pipeline())
    assert not result.errors
    return result.programmes[subject.id]


def rules_of(programme: Programme) -> list[str]:
    return [
        line for line in programme.flows.split("\n") if line.startswith(("table=72", "table=82"))
    ]


def keys(programme: Programme) -> list[str]:
    return [line.partition(" actions=")[0] for line in programme.flows.split("\n")]


PREFIXES = st.sampled_from([None, "0.0.0.0/0", "10.0.0.0/8", "10.0.0.1/32"])
PORTS = st.integers(1, 65535)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, object]:
    made: dict[str, object] = {
        "direction": draw(st.sampled_from(["ingress", "egress"])),
        "protocol": draw(st.sampled_from([None, "tcp", "udp", "sctp", "icmp", "47", "0"])),
    }
    remote = draw(st.sampled_from(["prefix", "group", "addresses"]))
    if remote == "group":
        made["remote_group_id"] = number(2, draw(st.integers(1, 3)))
    elif remote == "addresses":
        made["remote_address_group_id"] = number(4, 1)
    else:
        made["remote_ip_prefix"] = draw(PREFIXES)
    if made["protocol"] in ("tcp", "udp", "sctp") and draw(st.booleans()):
        low, high = sorted((draw(PORTS), draw(PORTS)))
        made |= {"port_range_min": low, "port_range_max": high}
    if made["protocol"] == "icmp" and draw(st.booleans()):
        made["port_range_min"] = draw(st.integers(0, 3))
        made["port_range_max"] = draw(st.sampled_from([None, 0, 1]))
    return made


@given(st.lists(st.lists(rules(), max_size=4), min_size=3, max_size=3))
def test_no_two_flows_of_a_port_have_the_same_match_and_priority(
    all_rules: list[list[dict[str, object]]],
) -> None:
    groups = [group(n, *each) for n, each in enumerate(all_rules, start=1)]
    offices = AddressGroupSpec(id=number(4, 1))
    found = keys(compiled(port(1, *groups), *groups, offices))
    assert len(set(found)) == len(found)


def test_a_remote_group_costs_the_port_nothing_for_its_members() -> None:
    rule = {"direction": "ingress", "remote_group_id": number(2, 1)}
    few = group(1, rule)
    many = group(1, rule, members=[{"address": f"10.1.0.{n}/32"} for n in range(200)])
    assert compiled(port(1, few), few) == compiled(port(1, many), many)


def test_an_icmp_type_of_zero_is_matched() -> None:
    pings = group(1, {"direction": "ingress", "protocol": "icmp", "port_range_min": 0})
    (only,) = rules_of(compiled(port(1, pings), pings))
    assert "icmp_type=0" in only


def test_a_prefix_of_length_zero_is_no_match() -> None:
    world = group(1, {"direction": "ingress", "remote_ip_prefix": "0.0.0.0/0"})
    plain = group(1, {"direction": "ingress"})
    assert compiled(port(1, world), world) == compiled(port(1, plain), plain)


def test_the_same_rule_in_several_groups_is_one_flow() -> None:
    rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    one, two = group(1, rule), group(2, rule)
    assert len(rules_of(compiled(port(1, one, two), one, two))) == 1


def test_the_order_of_groups_and_rules_does_not_matter() -> None:
    first = {"direction": "ingress", "protocol": "tcp"}
    second = {"direction": "ingress", "protocol": "udp"}
    one, two = group(1, first), group(2, second)
    assert compiled(port(1, one, two), one, two) == compiled(port(1, two, one), one, two)


def test_ports_with_the_same_groups_differ_by_their_register_only() -> None:
    web = group(1, {"direction": "ingress", "protocol": "tcp"})
    five = rules_of(compiled(port(1, web), web, ofport=5))
    fifty = rules_of(compiled(port(1, web), web, ofport=50))
    assert [line.replace("reg5=5 ", "reg5=50 ") for line in five] == fifty


def test_a_port_that_is_down_lets_nothing_in_or_out() -> None:
    web = group(1, {"direction": "ingress"})
    down = compiled(port(1, web, admin_state_up=False), web)
    assert down.count == 1
    assert down.flows.endswith("actions=drop")
    assert not down.destinations
    assert not down.uses


def test_two_ports_on_one_interface_are_refused_both() -> None:
    one, two, three = port(1), port(2), port(3)
    desired = DesiredState.of([one, two, three])
    attachments = {p.id: attached(p, ofport) for p, ofport in ((one, 5), (two, 5), (three, 6))}
    result = compile_ports(desired, attachments, Conjunctions(60, 1), Pipeline())
    assert set(result.errors) == {one.id, two.id}
    assert set(result.programmes) == {three.id}
    assert result.errors[one.id].type == "Conflict"


def test_a_prefix_with_a_scope_reaches_no_flow() -> None:
    rule = {"direction": "ingress", "ethertype": "IPv6", "remote_ip_prefix": "fe80::%1/64"}
    with pytest.raises(ValueError, match="scope"):
        group(1, rule)


@pytest.mark.parametrize(("ofport", "vlan"), [(0, 1), (-1, 1), (0xFFFE, 1), (1, 0), (1, 4095)])
def test_an_attachment_is_a_real_port_on_a_real_vlan(ofport: int, vlan: int) -> None:
    with pytest.raises(ValueError, match="not a"):
        Attachment("port", ofport, vlan)
