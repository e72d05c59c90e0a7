"""What rules are compiled into, where no packet is needed to check it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.pipeline import OWN_PIPELINE, Home, Pipeline
from agent_flows.report import TaskError
from agent_flows.rpc import codec
from agent_flows.secgroups.base import base_flows
from agent_flows.secgroups.conjunction import Conjunctions
from agent_flows.secgroups.port_flows import OwnFlows, PortFlows, compile_ports
from agent_flows.spec import AddressGroupSpec, DesiredState, PortSpec, Spec
from lab.model import numbered_id
from tests.unit.secgroups.specs import attached, group, port

NEUTRON = Pipeline(Home.NEUTRON)


def compiled(subject: PortSpec, *others: Spec, ofport: int = 5) -> PortFlows:
    desired = DesiredState.of([subject, *others])
    attachments = {subject.id: attached(subject, ofport)}
    result = compile_ports(desired, attachments, Conjunctions(60, 1), OWN_PIPELINE)
    assert not result.errors
    return result.ports[subject.id]


def rules_of(flows: PortFlows) -> list[str]:
    return [line for line in flows.text.split("\n") if line.startswith(("table=72", "table=82"))]


def keys(flows: PortFlows) -> list[str]:
    return [line.partition(" actions=")[0] for line in flows.text.split("\n")]


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
        made["remote_group_id"] = numbered_id(2, draw(st.integers(1, 3)))
    elif remote == "addresses":
        made["remote_address_group_id"] = numbered_id(4, 1)
    else:
        made["remote_ip_prefix"] = draw(PREFIXES)
    if made["protocol"] in ("tcp", "udp", "sctp") and draw(st.booleans()):
        low, high = sorted((draw(PORTS), draw(PORTS)))
        made |= {"port_range_min": low, "port_range_max": high}
    if made["protocol"] in ("tcp", "udp", "sctp") and draw(st.booleans()):
        low = draw(PORTS)
        high = min(low + draw(st.integers(0, 6)), 65535)
        made |= {"source_port_range_min": low, "source_port_range_max": high}
    if made["protocol"] == "icmp" and draw(st.booleans()):
        made["port_range_min"] = draw(st.integers(0, 3))
        made["port_range_max"] = draw(st.sampled_from([None, 0, 1]))
    return made


@given(st.lists(st.lists(rules(), max_size=4), min_size=3, max_size=3))
def test_no_two_flows_of_a_port_have_the_same_match_and_priority(
    all_rules: list[list[dict[str, object]]],
) -> None:
    groups = [group(n, *some) for n, some in enumerate(all_rules, start=1)]
    offices = AddressGroupSpec(id=numbered_id(4, 1))
    found = keys(compiled(port(1, *groups), *groups, offices))
    assert len(set(found)) == len(found)


def test_a_remote_group_costs_the_port_nothing_for_its_members() -> None:
    rule = {"direction": "ingress", "remote_group_id": numbered_id(2, 1)}
    few = group(1, rule)
    many = group(1, rule, members=[{"address": f"10.1.0.{n}/32"} for n in range(200)])
    assert compiled(port(1, few), few) == compiled(port(1, many), many)


@pytest.mark.parametrize(
    ("protocol", "ethertype", "match"),
    [("icmp", "IPv6", ",icmp6"), ("icmp", "IPv4", ",icmp"), ("vrrp", "IPv6", "nw_proto=112"),
     ("gre", "IPv4", "nw_proto=47"), ("50", "IPv4", "nw_proto=50"), ("0", "IPv4", "nw_proto=0")],
)  # fmt: skip
def test_a_protocol_is_a_name_or_a_number(protocol: str, ethertype: str, match: str) -> None:
    made = group(1, {"direction": "ingress", "protocol": protocol, "ethertype": ethertype})
    assert any(match in line for line in rules_of(compiled(port(1, made), made)))


def test_a_prefix_of_length_zero_is_no_match() -> None:
    world = group(1, {"direction": "ingress", "remote_ip_prefix": "0.0.0.0/0"})
    plain = group(1, {"direction": "ingress"})
    assert compiled(port(1, world), world) == compiled(port(1, plain), plain)


def test_same_rule_in_several_groups_is_one_flow() -> None:
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


def test_port_that_is_down_has_only_a_drop_flow() -> None:
    web = group(1, {"direction": "ingress"})
    down = compiled(port(1, web, admin_state_up=False), web)
    assert down.count == 1
    assert down.text.endswith("actions=drop")
    assert not down.destinations
    assert not down.uses


def test_two_ports_on_one_interface_are_both_refused() -> None:
    one, two, three = port(1), port(2), port(3)
    desired = DesiredState.of([one, two, three])
    attachments = {p.id: attached(p, ofport) for p, ofport in ((one, 5), (two, 5), (three, 6))}
    result = compile_ports(desired, attachments, Conjunctions(60, 1), OWN_PIPELINE)
    assert set(result.errors) == {one.id, two.id}
    assert set(result.ports) == {three.id}
    assert result.errors[one.id].type == "Conflict"


def test_a_prefix_with_a_scope_reaches_no_flow() -> None:
    rule = {"direction": "ingress", "ethertype": "IPv6", "remote_ip_prefix": "fe80::%1/64"}
    with pytest.raises(ValueError, match="scope"):
        group(1, rule)


def refused(subject: PortSpec, *others: Spec) -> TaskError:
    desired = DesiredState.of([subject, *others])
    attachments = {subject.id: attached(subject, 5)}
    result = compile_ports(desired, attachments, Conjunctions(60, 1), OWN_PIPELINE)
    assert not result.ports
    return result.errors[subject.id]


@pytest.mark.parametrize(
    ("rule", "type_", "named"),
    [
        (
            {"protocol": "udplite", "port_range_min": 7, "port_range_max": 9},
            "Unsupported",
            "ingress IPv4 protocol udplite ports 7-9",
        ),
        (
            {
                "protocol": "dccp",
                "ethertype": "IPv6",
                "source_port_range_min": 7,
                "source_port_range_max": 9,
                "remote_ip_prefix": "2001:db8::/32",
            },
            "Unsupported",
            "ingress IPv6 protocol dccp source ports 7-9 remote 2001:db8::/32",
        ),
        (
            {"remote_group_id": numbered_id(2, 9)},
            "MissingSpec",
            f"ingress IPv4 any protocol remote group {numbered_id(2, 9)}",
        ),
        (
            {"protocol": "icmp", "port_range_min": 8, "remote_address_group_id": numbered_id(4, 9)},
            "MissingSpec",
            f"ingress IPv4 protocol icmp type 8 remote address group {numbered_id(4, 9)}",
        ),
    ],
)
def test_a_rule_that_cannot_be_compiled_is_named_with_its_group(
    rule: dict[str, object], type_: str, named: str
) -> None:
    fine, faulty = group(1, {"direction": "ingress"}), group(2, {"direction": "ingress", **rule})
    error = refused(port(1, fine, faulty), fine, faulty)
    assert error.type == type_
    assert f"security group {faulty.id}, rule {named}" in error.message


def test_unknown_group_is_named() -> None:
    unknown = group(7)
    error = refused(port(1, unknown))
    assert error.type == "MissingSpec"
    assert unknown.id in error.message


def test_a_stateless_port_asks_conntrack_nothing() -> None:
    rules = (
        {"direction": "ingress"},
        {"direction": "egress", "remote_group_id": numbered_id(2, 1)},
    )
    stateless = group(1, *rules, stateful=False)
    assert "ct(" not in compiled(port(1, stateless), stateless).text
    stateful = group(1, *rules)
    assert "ct(" in compiled(port(1, stateful), stateful).text


@pytest.mark.parametrize("number_", [0, 0x05DC, 0x10000, 0x0800, 0x86DD, 0x0806, 0x8100])
def test_invalid_or_filtered_ethertype_cannot_be_permitted(number_: int) -> None:
    with pytest.raises(ValueError, match=f"{number_:#06x}"):
        Pipeline(Home.OWN, frozenset({number_}))


def test_on_neutrons_bridge_only_our_tables_are_written() -> None:
    web = group(1, {"direction": "ingress"})
    vlan = {"id": numbered_id(3, 1), "network_type": "vlan", "physical_network": "physnet1",
            "segmentation_id": 7}  # fmt: skip
    subject = port(1, web, network=vlan)
    flows = compile_ports(
        DesiredState.of([subject, web]),
        {subject.id: attached(subject, 5)},
        Conjunctions(60, 1),
        NEUTRON,
    ).ports[subject.id]
    neutrons = ("table=0,", "table=95,")
    assert not [line for line in flows.lines if line.startswith(neutrons)]
    base = base_flows(NEUTRON).values()
    assert not [line for line in base if line.startswith(neutrons)]
    assert [line for line in base if line.startswith("table=60,")] == [
        "table=60,priority=5,vlan_tci=0x0000/0x1000 actions=drop",
        "table=60,priority=4 actions=resubmit(,94)",
    ]


def test_on_neutrons_bridge_an_unfiltered_port_has_its_door_alone() -> None:
    for fields in ({"port_security_enabled": False}, {"device_owner": "network:dhcp"}):
        subject = port(1, **fields)
        flows = compile_ports(
            DesiredState.of([subject]),
            {subject.id: attached(subject, 5)},
            Conjunctions(60, 1),
            NEUTRON,
        ).ports[subject.id]
        assert all(line.startswith("table=60,") for line in flows.lines)
        assert not flows.destinations


WEB = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}


@pytest.mark.parametrize("fields", [
    {},
    {"mac_address": "fa:16:3e:00:00:99"},
    {"fixed_ips": ["10.0.0.9", "2001:db8::9"]},
    {"allowed_address_pairs": [{"ip_address": "10.9.0.0/24"}]},
    {"admin_state_up": False},
    {"port_security_enabled": False},
    {"device_owner": "network:dhcp"},
])  # fmt: skip
@pytest.mark.parametrize("attachment", [(5, 1), (6, 1), (5, 2)])
@pytest.mark.parametrize("stateful", [True, False])
def test_a_port_compiled_before_becomes_what_it_would_be_if_compiled_first(
    fields: dict[str, object], attachment: tuple[int, int], stateful: bool
) -> None:
    def compile_(
        subject: PortSpec, web: Spec, where: Attachment, known: OwnFlows | None = None
    ) -> PortFlows:
        result = compile_ports(
            DesiredState.of([subject, web]),
            {subject.id: where},
            Conjunctions(60, 1),
            OWN_PIPELINE,
            {} if known is None else {subject.id: known},
        )
        return result.ports[subject.id]

    web = group(1)
    first = port(1, web)
    before = compile_(first, web, attached(first, 5))
    changed_web, changed = group(1, WEB, revision=2, stateful=stateful), port(1, web, **fields)
    where = attached(changed, *attachment)
    after = compile_(changed, changed_web, where, before.own)
    assert after == compile_(changed, changed_web, where)
    if where.ofport == before.ofport:
        gone, new = before.gone_and_new(after)
        assert {*before.lines}.difference(gone).union(new) == {*after.lines}
    if (fields, attachment, stateful) == ({}, (5, 1), True):
        assert after.own is before.own
        assert (gone, len(new)) == ([], 1)


@pytest.mark.parametrize(("ofport", "vlan"), [(0, 1), (-1, 1), (0xFFFE, 1), (1, 0), (1, 4095)])
def test_an_attachment_is_a_real_port_on_a_real_vlan(ofport: int, vlan: int) -> None:
    with pytest.raises(ValueError, match="not a"):
        Attachment("port", ofport, vlan)


def test_invalid_group_fails_its_ports_and_names_the_rule() -> None:
    bad = codec.to_wire(group(1))
    bad["rules"] = [{"direction": "ingress", "protocol": 6, "port_range_min": 90,
                     "port_range_max": 80}]  # fmt: skip
    subject, other = port(1, group(1)), port(2)
    state = codec.state_from_wire([codec.to_wire(subject), codec.to_wire(other), bad])
    attachments = {subject.id: attached(subject, 1), other.id: attached(other, 2)}
    result = compile_ports(state, attachments, Conjunctions(60, 1), OWN_PIPELINE)
    assert set(result.ports) == {other.id}
    error = result.errors[subject.id]
    assert error.type == "InvalidSpec"
    assert "rules.0.port_range_max" in error.message
    assert "90" in error.detail
