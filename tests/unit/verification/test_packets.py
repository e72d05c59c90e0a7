"""Which packets are tried with a port, and which of them must pass."""

import pytest

from agent_flows.spec import DesiredState, Direction, PortSpec, SecurityGroupSpec
from agent_flows.verification import packets
from agent_flows.verification.packets import Packet
from lab.model import address_group, egress, everything, group, ingress, port

ADDRESSES = ["10.0.0.11", "2001:db8:7::11"]
SSH = ingress(protocol="tcp", port_range_min=22, port_range_max=22)


def tried(*groups: SecurityGroupSpec, more: object = (), **fields: object) -> list[Packet]:
    """The packets for a port in ``groups``."""
    made = port(*groups, **{"fixed_ips": ADDRESSES, **fields})
    return packets.of_port(made, desired(made, *groups, *more))  # type: ignore[misc]


def desired(made: PortSpec, *specs: SecurityGroupSpec) -> DesiredState:
    return DesiredState.of([made, *specs])


def passing(found: list[Packet], direction: Direction) -> list[str]:
    return [each.what for each in found if each.direction is direction and each.passes]


def of(found: list[Packet], words: str) -> Packet:
    (packet,) = [each for each in found if words in each.what]
    return packet


def test_own_addresses_may_be_used_and_no_others() -> None:
    found = tried(group(*everything("egress")))
    assert of(found, "ARP as 10.0.0.11, its own").passes
    assert not of(found, "ARP as 203.0.113.1, not its").passes
    spoofed = [each for each in found if each.what.endswith("as 203.0.113.1, not its address")]
    assert [each.passes for each in spoofed] == [False, False]


def test_an_address_pair_is_an_own_address() -> None:
    pairs = [{"ip_address": "203.0.113.0/24"}, {"ip_address": "3fff::/20"}]
    found = tried(group(*everything("egress")), allowed_address_pairs=pairs)
    assert not of(found, "ARP as 198.51.100.1, not its").passes
    assert any("as 2001:db8::5301, not its address" in each.what for each in found)


def test_a_port_that_may_use_every_address_spoofs_none() -> None:
    pairs = [{"ip_address": "0.0.0.0/0"}, {"ip_address": "::/0"}]
    found = tried(group(*everything("egress")), allowed_address_pairs=pairs)
    assert [each for each in found if "not its address" in each.what] == []


def test_a_packet_is_made_for_a_rule_and_one_that_no_rule_allows() -> None:
    found = tried(group(SSH))
    allowed = of(found, "tcp from 192.0.2.1, port 22, which a rule allows")
    assert allowed.passes
    assert "nw_src=192.0.2.1,nw_dst=10.0.0.11" in allowed.fields
    assert "tcp_dst=22" in allowed.fields
    assert not of(found, "tcp from 192.0.2.1, port 9, which no rule allows").passes
    assert passing(found, Direction.EGRESS) == ["ARP as 10.0.0.11, its own address"]


def test_nothing_is_refused_where_rules_allow_everything() -> None:
    found = tried(group(*everything()))
    assert [each for each in found if "no rule allows" in each.what] == []
    assert len(passing(found, Direction.INGRESS)) == 3


def test_what_is_refused_is_outside_of_every_rule() -> None:
    rules = [
        ingress(protocol="tcp"),
        ingress(protocol="udp", remote_ip_prefix="192.0.2.0/25"),
        ingress(protocol=253),
    ]
    found = tried(group(*rules))
    assert not of(found, "udp from 198.51.100.1, port 9, which no rule allows").passes


def test_a_remote_group_gives_the_address_of_a_member_that_is_not_the_port_itself() -> None:
    members = group(members=["10.0.0.11", "10.0.0.12"])
    found = tried(group(ingress(protocol="udp", remote_group_id=members.id)), more=[members])
    assert of(found, "udp from 10.0.0.12, port 80, which a rule allows").passes


def test_a_remote_group_without_members_gives_no_packet() -> None:
    members = group()
    found = tried(group(ingress(remote_group_id=members.id)), more=[members])
    assert [each for each in found if "which a rule allows" in each.what] == []


def test_an_address_group_and_a_prefix_give_an_address_of_theirs() -> None:
    office = address_group("198.51.100.0/24")
    rules = [
        ingress(protocol="tcp", remote_address_group_id=office.id),
        egress(protocol="icmp", remote_ip_prefix="203.0.113.7/32"),
    ]
    found = tried(group(*rules), more=[office])
    assert of(found, "tcp from 198.51.100.1, port 80, which a rule allows").passes
    assert of(found, "icmp to 203.0.113.7, type 8 code 0, which a rule allows").passes


@pytest.mark.parametrize(
    "rule",
    [
        ingress(ethertype="IPv6", protocol="icmpv6", port_range_min=135),
        egress(protocol="udp", port_range_min=67, port_range_max=67),
    ],
)
def test_no_packet_is_made_for_a_rule_about_what_is_decided_before_rules(
    rule: dict[str, object],
) -> None:
    assert [each for each in tried(group(rule)) if "which a rule allows" in each.what] == []


def test_without_port_security_everything_passes() -> None:
    for fields in ({"port_security_enabled": False}, {"device_owner": "network:dhcp"}):
        assert all(each.passes for each in tried(group(SSH), **fields))


def test_a_port_that_is_administratively_down_passes_nothing() -> None:
    found = tried(group(*everything()), admin_state_up=False)
    assert found
    assert not any(each.passes for each in found)


def test_only_families_of_the_ports_addresses_are_tried() -> None:
    found = tried(group(*everything()), fixed_ips=["10.0.0.11"])
    assert [each for each in found if "ipv6" in each.fields] == []
    assert tried(group(*everything()), fixed_ips=[]) == []
