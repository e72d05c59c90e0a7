"""A port speaks as itself only; what needs no rule passes, what only the network may say does
not."""

import pytest

from agent_flows.secgroups.antispoofing import link_local
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BOTH_HOMES, Host, Vm, outsider

pytestmark = BOTH_HOMES

ALL_ROUTERS = "33:33:00:00:00:02"
ANY = (rule(), rule(ethertype="IPv6"), *egress_to_anywhere())


@pytest.fixture
def vm(host: Host) -> Vm:
    """May send and receive anything, as itself."""
    made = host.boot(1)
    host.port(made, group(*ANY))
    host.wire(made)
    return made


@pytest.fixture
def peer() -> Vm:
    return outsider()


def lla(vm: Vm) -> str:
    return str(link_local(vm.mac).network_address)


def test_own_addresses_pass(host: Host, vm: Vm, peer: Vm) -> None:
    assert host.udp(vm, peer, 53)
    assert host.udp(vm, peer, 53, v6=True)
    assert host.udp(vm.but(ip6=lla(vm)), peer, 53, v6=True)


def test_other_mac_is_dropped(host: Host, vm: Vm, peer: Vm) -> None:
    spoofed = vm.but(mac="fa:16:3e:66:66:66")
    assert not host.udp(spoofed, peer, 53)
    assert not host.udp(spoofed, peer, 53, v6=True)


def test_other_address_is_dropped(host: Host, vm: Vm, peer: Vm) -> None:
    assert not host.udp(vm.but(ip="10.0.0.66"), peer, 53)
    assert not host.udp(vm.but(ip6="2001:db8::66"), peer, 53, v6=True)
    assert not host.udp(vm.but(ip6="fe80::66"), peer, 53, v6=True)


def test_frame_with_a_vlan_tag_is_dropped(host: Host, vm: Vm, peer: Vm) -> None:
    packet = packets.udp((vm.mac, peer.mac), (vm.ip, peer.ip), (1, 53))
    assert not host.sent(vm, peer, packets.tagged(packet, 7))


def test_arp_speaks_for_own_address_and_mac_only(host: Host, vm: Vm, peer: Vm) -> None:
    def asked(sender: tuple[str, str], mac: str = vm.mac) -> bool:
        return host.sent(vm, peer, packets.arp((mac, packets.BROADCAST), sender, peer.ip))

    assert asked((vm.mac, vm.ip))
    assert not asked((vm.mac, "10.0.0.66"))
    assert not asked(("fa:16:3e:66:66:66", vm.ip))
    assert not asked(("fa:16:3e:66:66:66", vm.ip), mac="fa:16:3e:66:66:66")


def test_rarp_announces_own_mac_only(host: Host, vm: Vm, peer: Vm) -> None:
    assert host.sent(vm, peer, packets.rarp((vm.mac, packets.BROADCAST)))
    assert not host.sent(vm, peer, packets.rarp(("fa:16:3e:66:66:66", packets.BROADCAST)))


def test_neighbour_advertisement_speaks_for_own_addresses_only(
    host: Host, vm: Vm, peer: Vm
) -> None:
    def advertised(target: str, mac: str = vm.mac) -> bool:
        return host.sent(vm, peer, packets.neighbour(
            (mac, peer.mac), (vm.ip6, peer.ip6), 136, target))  # fmt: skip

    assert advertised(vm.ip6)
    assert advertised(lla(vm))
    assert not advertised("2001:db8::66")
    assert not advertised("fe80::66")
    assert not advertised(vm.ip6, mac="fa:16:3e:66:66:66")


def test_neighbour_solicitation_comes_from_own_address_only(host: Host, vm: Vm, peer: Vm) -> None:
    def asked(source: str) -> bool:
        return host.sent(vm, peer, packets.neighbour(
            (vm.mac, peer.mac), (source, peer.ip6), 135, peer.ip6))  # fmt: skip

    assert asked(vm.ip6)
    assert asked(lla(vm))
    assert not asked("2001:db8::66")


def test_other_ethertypes_are_dropped(host: Host, vm: Vm, peer: Vm) -> None:
    assert not host.sent(vm, peer, packets.other((vm.mac, peer.mac), 0x88CC))
    assert not host.sent(peer, vm, packets.other((peer.mac, vm.mac), 0x88CC))


class TestWithoutAnyRule:
    @pytest.fixture
    def closed(self, host: Host) -> Vm:
        made = host.boot(1)
        host.port(made, group())
        host.wire(made)
        return made

    def test_dhcp_client_asks_from_its_own_addresses(
        self, host: Host, closed: Vm, peer: Vm
    ) -> None:
        def asked(vm: Vm) -> bool:
            return host.sent(vm, peer, packets.udp(
                (vm.mac, packets.BROADCAST), (vm.ip, "255.255.255.255"), (68, 67)))  # fmt: skip

        assert asked(closed)
        assert asked(closed.but(ip="0.0.0.0"))
        assert not asked(closed.but(ip="10.0.0.66"))
        assert not asked(closed.but(mac="fa:16:3e:66:66:66", ip="0.0.0.0"))

    def test_dhcpv6_client_asks_from_its_link_local_address(
        self, host: Host, closed: Vm, peer: Vm
    ) -> None:
        def asked(vm: Vm) -> bool:
            return host.sent(vm, peer, packets.udp(
                (vm.mac, "33:33:00:01:00:02"), (vm.ip6, "ff02::1:2"), (546, 547)))  # fmt: skip

        assert asked(closed.but(ip6=lla(closed)))
        assert not asked(closed.but(ip6="fe80::66"))

    def test_dhcp_answers_reach_it(self, host: Host, closed: Vm, peer: Vm) -> None:
        macs = (peer.mac, closed.mac)
        assert host.sent(peer, closed, packets.udp(macs, (peer.ip, closed.ip), (67, 68)))
        assert host.sent(peer, closed, packets.udp(macs, (peer.ip6, closed.ip6), (547, 546)))
        assert not host.sent(peer, closed, packets.udp(macs, (peer.ip, closed.ip), (67, 69)))

    def test_arp_reaches_it(self, host: Host, closed: Vm, peer: Vm) -> None:
        asked = packets.arp((peer.mac, packets.BROADCAST), (peer.mac, peer.ip), closed.ip)
        assert host.sent(peer, closed, asked)

    @pytest.mark.parametrize("type_", [130, 134, 135, 136])
    def test_neighbour_discovery_reaches_it(
        self, host: Host, closed: Vm, peer: Vm, type_: int
    ) -> None:
        assert host.icmp(peer, closed, type_, v6=True)

    @pytest.mark.parametrize("type_", [128, 133, 137])
    def test_other_icmpv6_does_not(self, host: Host, closed: Vm, peer: Vm, type_: int) -> None:
        assert not host.icmp(peer, closed, type_, v6=True)

    @pytest.mark.parametrize("type_", [130, 133, 135])
    def test_it_may_look_for_its_neighbours_and_routers(
        self, host: Host, closed: Vm, peer: Vm, type_: int
    ) -> None:
        assert host.icmp(closed, peer, type_, v6=True)
        assert not host.icmp(closed.but(ip6="2001:db8::66"), peer, type_, v6=True)

    def test_it_may_not_ping(self, host: Host, closed: Vm, peer: Vm) -> None:
        assert not host.icmp(closed, peer, 128, v6=True)


def test_dhcp_server_in_a_vm_is_dropped(host: Host, vm: Vm, peer: Vm) -> None:
    macs = (vm.mac, peer.mac)
    assert not host.sent(vm, peer, packets.udp(macs, (vm.ip, peer.ip), (67, 68)))
    assert not host.sent(vm, peer, packets.udp(macs, (vm.ip6, peer.ip6), (547, 546)))


def test_router_advertisement_of_a_vm_is_dropped(host: Host, vm: Vm, peer: Vm) -> None:
    assert not host.icmp(vm, peer, 134, v6=True)
    assert not host.icmp(vm.but(ip6=lla(vm)), peer, 134, v6=True)


class TestAllowedAddressPairs:
    def test_further_address_with_own_mac(self, host: Host, peer: Vm) -> None:
        vm = host.boot(1)
        host.port(vm, group(*ANY), allowed_address_pairs=[{"ip_address": "192.168.7.0/24"}])
        host.wire(vm)
        inside, outside = vm.but(ip="192.168.7.9"), vm.but(ip="192.168.8.9")
        assert host.udp(inside, peer, 53)
        assert not host.udp(outside, peer, 53)
        assert host.sent(vm, peer, packets.arp(
            (vm.mac, packets.BROADCAST), (vm.mac, inside.ip), peer.ip))  # fmt: skip

    def test_further_mac_sends_and_receives(self, host: Host, peer: Vm) -> None:
        vm = host.boot(1)
        other = vm.but(mac="00:00:5e:00:01:07", ip="10.0.0.77", ip6="2001:db8:77::77")
        pairs = [{"ip_address": f"{ip}", "mac_address": other.mac}
                 for ip in ("10.0.0.77/32", "2001:db8:77::/64")]  # fmt: skip
        host.port(vm, group(*ANY), allowed_address_pairs=pairs)
        host.wire(vm)
        assert host.udp(other, peer, 53)
        assert host.udp(other, peer, 53, v6=True)
        assert host.udp(peer, other, 53)
        assert host.udp(peer, other, 53, v6=True)
        assert not host.udp(other.but(mac=vm.mac), peer, 53)
        assert not host.udp(vm.but(mac=other.mac), peer, 53)

    def test_every_address(self, host: Host, peer: Vm) -> None:
        vm = host.boot(1)
        pairs = [{"ip_address": "0.0.0.0/0"}, {"ip_address": "::/0"}]
        host.port(vm, group(*ANY), allowed_address_pairs=pairs)
        host.wire(vm)
        assert host.udp(vm.but(ip="198.51.100.7"), peer, 53)
        assert host.udp(vm.but(ip6="2001:db8:5::5"), peer, 53, v6=True)
        assert not host.udp(vm.but(mac="fa:16:3e:66:66:66"), peer, 53)

    def test_one_holder_that_refuses_does_not_cut_the_others_connection(self, host: Host) -> None:
        one, two, client = host.boot(1), host.boot(2), host.boot(3)
        virtual = one.but(mac="00:00:5e:00:01:07", ip="10.0.0.77")
        pairs = [{"ip_address": "10.0.0.77/32", "mac_address": virtual.mac}]
        host.port(one, group(*ANY), allowed_address_pairs=pairs)
        host.port(two, group(), allowed_address_pairs=pairs)
        host.port(client, group(*ANY))
        host.wire(one, two, client)
        assert host.connect(client, virtual, 80)
        assert host.tcp(client, virtual, 80, "ack")
        assert host.tcp_reply(virtual, client, 80, "ack")


class TestWithoutPortSecurity:
    @pytest.fixture
    def free(self, host: Host) -> Vm:
        made = host.boot(1)
        host.port(made, port_security_enabled=False)
        host.wire(made)
        return made

    def test_everything_passes(self, host: Host, free: Vm, peer: Vm) -> None:
        assert host.udp(free.but(ip="10.0.0.66", mac="fa:16:3e:66:66:66"), peer, 53)
        assert host.icmp(free, peer, 134, v6=True)
        assert host.udp(peer, free, 53)
        assert host.sent(peer, free, packets.other((peer.mac, free.mac), 0x88CC))

    def test_it_may_hold_macs_nobody_knows(self, host: Host, free: Vm, peer: Vm) -> None:
        vm = host.boot(2)
        host.port(vm, group(*ANY))
        host.wire(vm)
        unknown = free.but(mac="0e:00:00:00:00:01")
        assert host.udp(peer, unknown, 53)
        assert host.udp(vm, unknown, 53)

    def test_others_still_refuse_it(self, host: Host, free: Vm) -> None:
        other = host.boot(2)
        host.port(other, group())
        host.wire(other)
        assert not host.udp(free, other, 53)

    def test_a_filtered_port_gets_its_replies_from_it(self, host: Host, free: Vm) -> None:
        other = host.boot(2)
        host.port(other, group(*egress_to_anywhere()))
        host.wire(other)
        assert host.connect(other, free, 80)
        assert not host.tcp(free, other, 80)

    def test_switched_on_and_off_again(self, host: Host, free: Vm, peer: Vm) -> None:
        host.port(free, group(), port_security_enabled=True)
        host.wire(free)
        assert not host.udp(peer, free, 53)
        assert not host.udp(free, peer, 53)
        host.port(free, group(), port_security_enabled=False)
        host.wire(free)
        assert host.udp(peer, free, 53)
        assert host.udp(free, peer, 53)
