"""Which packets the rules of security groups let through."""

import uuid

import pytest

from agent_flows.spec import AddressGroupSpec
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BOTH_HOMES, Host, Vm, outsider

pytestmark = BOTH_HOMES


@pytest.fixture
def pair(host: Host) -> tuple[Vm, Vm]:
    return host.boot(1), host.boot(2)


def wired(host: Host, pair: tuple[Vm, Vm], *rules: dict[str, object], **fields: object) -> None:
    """The first VM may send anything; the second has ``rules``."""
    client, server = pair
    host.port(client, group(*egress_to_anywhere()))
    host.port(server, group(*rules, **fields))
    host.wire(client, server)


def test_a_port_without_rules_gets_and_sends_nothing(host: Host, pair: tuple[Vm, Vm]) -> None:
    client, server = pair
    wired(host, pair)
    assert not host.tcp(client, server, 80)
    assert not host.udp(client, server, 53, v6=True)
    assert not host.tcp(server, client, 80)


def test_a_port_without_groups_gets_nothing(host: Host, pair: tuple[Vm, Vm]) -> None:
    client, server = pair
    host.port(client, group(*egress_to_anywhere()))
    host.port(server)
    host.wire(client, server)
    assert not host.tcp(client, server, 80)


def test_ingress_rule_opens_its_port_only(host: Host, pair: tuple[Vm, Vm]) -> None:
    client, server = pair
    wired(host, pair, rule(protocol="tcp", port_range_min=80, port_range_max=80))
    assert host.tcp(client, server, 80)
    assert not host.tcp(client, server, 81)
    assert not host.udp(client, server, 80)


def test_egress_rule_opens_its_port_only(host: Host, pair: tuple[Vm, Vm]) -> None:
    client, server = pair
    host.port(client, group(rule("egress", protocol="udp", port_range_min=53, port_range_max=53)))
    host.port(server, group(rule()))
    host.wire(client, server)
    assert host.udp(client, server, 53)
    assert not host.udp(client, server, 54)


def test_egress_rule_opens_the_uplink(host: Host) -> None:
    vm, peer = host.boot(1), outsider()
    host.port(vm, group(rule("egress", protocol="udp", port_range_min=53, port_range_max=53)))
    host.wire(vm)
    assert host.udp(vm, peer, 53)
    assert not host.udp(vm, peer, 54)


def test_ingress_rule_decides_about_the_uplink(host: Host) -> None:
    vm, peer = host.boot(1), outsider()
    host.port(vm, group(rule(protocol="udp", port_range_min=53, port_range_max=53)))
    host.wire(vm)
    assert host.udp(peer, vm, 53)
    assert not host.udp(peer, vm, 54)


@pytest.mark.parametrize(("port", "passes"), [(999, 0), (1000, 1), (1500, 1), (2001, 1), (2002, 0)])
def test_port_range_is_exact(host: Host, pair: tuple[Vm, Vm], port: int, passes: int) -> None:
    wired(host, pair, rule(protocol="tcp", port_range_min=1000, port_range_max=2001))
    assert host.tcp(*pair, port) == bool(passes)


def test_rule_of_one_family_says_nothing_about_the_other(host: Host, pair: tuple[Vm, Vm]) -> None:
    wired(host, pair, rule(ethertype="IPv6", protocol="udp"))
    assert host.udp(*pair, 53, v6=True)
    assert not host.udp(*pair, 53)


def test_icmp_type_and_code(host: Host, pair: tuple[Vm, Vm]) -> None:
    wired(host, pair, rule(protocol="icmp", port_range_min=8, port_range_max=0),
          rule(protocol="icmp", port_range_min=13))  # fmt: skip
    assert host.icmp(*pair, 8, 0)
    assert not host.icmp(*pair, 8, 1)
    assert host.icmp(*pair, 13, 0)
    assert not host.icmp(*pair, 15, 0)


def test_icmp_type_zero_is_a_type_and_not_every_type(host: Host, pair: tuple[Vm, Vm]) -> None:
    wired(host, pair, rule(protocol="icmp", port_range_min=0))
    assert not host.icmp(*pair, 8)


def test_icmp_in_an_ipv6_rule_is_icmpv6(host: Host, pair: tuple[Vm, Vm]) -> None:
    wired(host, pair, rule(ethertype="IPv6", protocol="icmp"))
    assert host.icmp(*pair, 128, v6=True)
    assert not host.icmp(*pair, 8)


def test_sctp_has_ports_too(host: Host, pair: tuple[Vm, Vm]) -> None:
    wired(host, pair, rule(protocol="sctp", port_range_min=5000, port_range_max=5003))
    client, server = pair
    macs, ips = (client.mac, server.mac), (client.ip, server.ip)
    assert host.sent(client, server, packets.sctp(macs, ips, (1, 5003)))
    assert not host.sent(client, server, packets.sctp(macs, ips, (1, 5004)))


def test_protocol_by_number(host: Host, pair: tuple[Vm, Vm]) -> None:
    wired(host, pair, rule(protocol="47"), rule(ethertype="IPv6", protocol="vrrp"))
    client, server = pair
    macs = (client.mac, server.mac)
    assert host.sent(client, server, packets.ip(macs, (client.ip, server.ip), "", 47))
    assert not host.sent(client, server, packets.ip(macs, (client.ip, server.ip), "", 112))
    assert host.sent(client, server, packets.ip(macs, (client.ip6, server.ip6), "", 112))
    assert not host.tcp(client, server, 80)


def test_cidr_narrows_the_source(host: Host) -> None:
    vm, near, far = host.boot(1), outsider(), outsider().but(ip="198.51.100.1")
    host.port(vm, group(rule(remote_ip_prefix="203.0.113.0/24")))
    host.wire(vm)
    assert host.udp(near, vm, 53)
    assert not host.udp(far, vm, 53)


def test_cidr_narrows_the_destination(host: Host) -> None:
    vm = host.boot(1)
    host.port(vm, group(rule("egress", ethertype="IPv6", remote_ip_prefix="2001:db8:99::/48")))
    host.wire(vm)
    assert host.udp(vm, outsider(), 53, v6=True)
    assert not host.udp(vm, outsider().but(ip6="2001:db8:98::1"), 53, v6=True)


def test_cidr_of_length_zero_is_everybody(host: Host) -> None:
    vm = host.boot(1)
    host.port(vm, group(rule(remote_ip_prefix="0.0.0.0/0"),
                        rule(ethertype="IPv6", remote_ip_prefix="::/0")))  # fmt: skip
    host.wire(vm)
    assert host.udp(outsider(), vm, 53)
    assert host.udp(outsider(), vm, 53, v6=True)


def test_the_same_rule_through_several_groups(host: Host, pair: tuple[Vm, Vm]) -> None:
    client, server = pair
    host.port(client, group(*egress_to_anywhere()))
    http = rule(protocol="tcp", port_range_min=80, port_range_max=80)
    host.port(server, group(http), group(http, http))
    host.wire(client, server)
    assert host.tcp(client, server, 80)
    assert not host.tcp(client, server, 81)


def test_overlapping_ranges_of_several_groups(host: Host, pair: tuple[Vm, Vm]) -> None:
    client, server = pair
    host.port(client, group(*egress_to_anywhere()))
    host.port(server, group(rule(protocol="tcp", port_range_min=80, port_range_max=90)),
              group(rule(protocol="tcp", port_range_min=85, port_range_max=99)))  # fmt: skip
    host.wire(client, server)
    assert [host.tcp(client, server, port) for port in (79, 80, 87, 99, 100)] == [
        False, True, True, True, False,
    ]  # fmt: skip


class TestRemoteGroup:
    def test_admits_its_members_only(self, host: Host) -> None:
        web, db, stranger = host.boot(1), host.boot(2), host.boot(3)
        webs = group(*egress_to_anywhere(), members=[web])
        host.port(web, webs)
        host.port(stranger, group(*egress_to_anywhere()))
        host.port(db, group(
            rule(protocol="tcp", port_range_min=5432, port_range_max=5432, remote_group_id=webs.id),
        ))  # fmt: skip
        host.wire(web, db, stranger)
        assert host.tcp(web, db, 5432)
        assert not host.tcp(web, db, 5433)
        assert not host.tcp(stranger, db, 5432)

    def test_of_the_port_itself(self, host: Host, pair: tuple[Vm, Vm]) -> None:
        one, two = pair
        mine = str(uuid.uuid4())
        cluster = group(
            rule(remote_group_id=mine), rule("egress", remote_group_id=mine),
            rule(ethertype="IPv6", remote_group_id=mine),
            rule("egress", ethertype="IPv6", remote_group_id=mine), id=mine, members=pair,
        )  # fmt: skip
        host.port(one, cluster)
        host.port(two, cluster)
        host.wire(one, two)
        assert host.udp(one, two, 53)
        assert host.udp(two, one, 53, v6=True)
        assert not host.udp(outsider(), one, 53)
        assert not host.udp(one, outsider(), 53)

    def test_without_members_admits_nobody(self, host: Host, pair: tuple[Vm, Vm]) -> None:
        empty = group()
        host.add(empty)
        wired(host, pair, rule(remote_group_id=empty.id))
        assert not host.udp(*pair, 53)

    def test_member_on_another_host(self, host: Host) -> None:
        vm, remote = host.boot(1), outsider()
        webs = group(members=[remote])
        host.add(webs)
        host.port(vm, group(rule(remote_group_id=webs.id), rule("egress", remote_group_id=webs.id)))
        host.wire(vm)
        assert host.udp(remote, vm, 53)
        assert host.udp(vm, remote, 53)
        assert not host.udp(remote.but(ip="203.0.113.98"), vm, 53)

    def test_members_come_and_go(self, host: Host, pair: tuple[Vm, Vm]) -> None:
        webs = group()
        host.add(webs)
        wired(host, pair, rule(remote_group_id=webs.id))
        assert not host.udp(*pair, 53)
        host.add(group(members=[pair[0]], id=webs.id, revision=2))
        host.wire(pair[1])
        assert host.udp(*pair, 53)
        host.add(group(id=webs.id, revision=3))
        host.wire(pair[1])
        assert not host.udp(*pair, 53)

    def test_address_that_several_groups_hold(self, host: Host) -> None:
        client, one, two = host.boot(1), host.boot(2), host.boot(3)
        red, blue = group(members=[client]), group(members=[client])
        host.add(red, blue)
        host.port(client, group(*egress_to_anywhere()))
        host.port(one, group(rule(protocol="udp", remote_group_id=red.id)))
        host.port(two, group(rule(protocol="tcp", remote_group_id=blue.id)))
        host.wire(client, one)
        host.wire(two)
        assert host.udp(client, one, 53)
        assert not host.tcp(client, one, 53)
        assert host.tcp(client, two, 53)
        assert not host.udp(client, two, 53)
        host.firewall.remove([one.id])
        assert host.tcp(client, two, 53)

    def test_overlapping_ranges_of_several_remote_groups(self, host: Host) -> None:
        first, second, server = host.boot(1), host.boot(2), host.boot(3)
        red, blue = group(members=[first]), group(members=[second])
        host.add(red, blue)
        for client in (first, second):
            host.port(client, group(*egress_to_anywhere()))
        host.port(server, group(
            rule(protocol="tcp", port_range_min=80, port_range_max=95, remote_group_id=red.id),
            rule(protocol="tcp", port_range_min=80, port_range_max=99, remote_group_id=blue.id),
            rule(protocol="udp", remote_group_id=blue.id),
        ))  # fmt: skip
        host.wire(first, second, server)
        assert [host.tcp(first, server, port) for port in (80, 95, 96)] == [True, True, False]
        assert [host.tcp(second, server, port) for port in (80, 95, 96)] == [True, True, True]
        assert not host.udp(first, server, 53)
        assert host.udp(second, server, 53)

    def test_routed_member_keeps_its_address_but_not_its_mac(self, host: Host) -> None:
        vm, router = host.boot(1), outsider()
        webs = group(members=[outsider()])
        host.add(webs)
        host.port(vm, group(rule(remote_group_id=webs.id)))
        host.wire(vm)
        assert host.udp(router.but(mac="0e:00:00:00:00:01"), vm, 53)

    def test_member_that_may_have_every_address_is_known_by_its_mac(self, host: Host) -> None:
        vm, member = host.boot(1), outsider()
        webs = group(members=[{"address": "0.0.0.0/0", "mac_address": member.mac}])
        host.add(webs)
        host.port(vm, group(rule(remote_group_id=webs.id)))
        host.wire(vm)
        assert host.udp(member.but(ip="198.51.100.7"), vm, 53)
        assert not host.udp(member.but(mac="0e:00:00:00:00:01"), vm, 53)

    def test_and_address_group_that_overlap(self, host: Host) -> None:
        client, server = host.boot(1), host.boot(2)
        webs = group(members=[client])
        offices = AddressGroupSpec(
            id=str(uuid.uuid4()), addresses=(f"{client.ip}/32", "10.9.0.0/16")
        )
        host.add(webs, offices)
        host.port(client, group(*egress_to_anywhere()))
        host.port(server, group(
            rule(protocol="tcp", remote_group_id=webs.id),
            rule(protocol="udp", remote_address_group_id=offices.id),
        ))  # fmt: skip
        host.wire(client, server)
        assert host.tcp(client, server, 80)
        assert host.udp(client, server, 80)
        assert host.udp(outsider().but(ip="10.9.1.1"), server, 53)
        assert not host.tcp(outsider().but(ip="10.9.1.1"), server, 53)
