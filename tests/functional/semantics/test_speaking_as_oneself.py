"""Cases 11 to 14: a port speaks as itself and as its address pairs; what needs no rule, and what
only the network may say."""

import ipaddress

import pytest

from agent_flows.spec import AddressPair
from lab import frames
from lab.model import everything, group, ip, network, rule
from lab.vm import Vm
from tests.functional.semantics.world import World

FOREIGN_MAC = "fa:16:3e:66:66:66"
FOREIGN_IP, FOREIGN_IP6 = "10.0.0.166", "fd00::166"
ALL_NODES, ALL_ROUTERS = ("33:33:00:00:00:01", "ff02::1"), ("33:33:00:00:00:02", "ff02::2")
DHCP_SERVERS = "33:33:00:01:00:02", "ff02::1:2"
SOLICITATION, ADVERTISEMENT = 135, 136


def own_link_local(vm: Vm) -> str:
    """As the VM's kernel has made it from the MAC."""
    shown = vm.namespace.ip("-6", "-brief", "address", "show", "dev", "eth0", "scope", "link")
    return shown.split()[2].partition("/")[0]


def datagram(
    source: tuple[str, str], target: tuple[str, str], ports: tuple[int, int] = (4000, 53)
) -> bytes:
    """Each end is (MAC, address)."""
    (source_mac, source_ip), (target_mac, target_ip) = source, target
    words = f"from {source_mac} {source_ip} to {target_ip}".encode()
    return frames.udp((source_mac, target_mac), (source_ip, target_ip), ports, words)


@pytest.fixture
def free(world: World, bert: Vm) -> Vm:
    """Bert, to whom and from whom the rules allow everything."""
    world.wire(bert, group(*everything("egress"), *everything("ingress")))
    return bert


@pytest.fixture
def closed(bert: Vm) -> Vm:
    """Bert, to whom the rules allow nothing."""
    return bert


class TestAntiSpoofing:
    def test_own_addresses_and_the_link_local_one_pass(
        self, world: World, free: Vm, otto: Vm
    ) -> None:
        for source, target in (
            (free.ip, otto.ip), (ip(free, 6), ip(otto, 6)), (own_link_local(free), ip(otto, 6)),
        ):  # fmt: skip
            frame = datagram((free.mac, source), (otto.mac, target))
            assert world.passes(free, otto, frame), source

    @pytest.mark.parametrize(
        ("mac", "address"),
        [
            (FOREIGN_MAC, None),
            (None, FOREIGN_IP),
            (FOREIGN_MAC, FOREIGN_IP),
            (None, FOREIGN_IP6),
            (None, "fe80::166"),
            (None, "0.0.0.0"),
            (None, "127.0.0.1"),
        ],
    )
    def test_other_addresses_are_dropped(
        self, world: World, free: Vm, otto: Vm, mac: str | None, address: str | None
    ) -> None:
        version = 6 if address and ":" in address else 4
        source = mac or free.mac, address or free.ip
        assert not world.passes(free, otto, datagram(source, (otto.mac, ip(otto, version))))

    def test_a_neighbours_address_cannot_be_taken(
        self, world: World, anna: Vm, free: Vm, otto: Vm
    ) -> None:
        as_anna = datagram((free.mac, anna.ip), (otto.mac, otto.ip))
        assert not world.passes(free, otto, as_anna)
        as_anna = datagram((anna.mac, anna.ip), (otto.mac, otto.ip))
        assert not world.passes(free, otto, as_anna)

    def test_arp_is_about_the_ports_own_mac_and_address(
        self, world: World, free: Vm, otto: Vm
    ) -> None:
        def asks(sender: tuple[str, str], mac: str = free.mac) -> bool:
            return world.passes(free, otto, frames.arp_request(mac, sender, "10.0.0.199"))

        assert asks((free.mac, free.ip))
        assert not asks((free.mac, FOREIGN_IP))
        assert not asks((FOREIGN_MAC, free.ip))
        assert not asks((FOREIGN_MAC, free.ip), mac=FOREIGN_MAC)

    def test_a_neighbour_advertisement_is_about_the_ports_own_address(
        self, world: World, free: Vm, otto: Vm
    ) -> None:
        def advertises(target: str, mac: str = free.mac) -> bool:
            ends = (mac, otto.mac), (ip(free, 6), ip(otto, 6))
            return world.passes(free, otto, frames.neighbour(*ends, ADVERTISEMENT, target))

        assert advertises(ip(free, 6))
        assert advertises(own_link_local(free))
        assert not advertises(FOREIGN_IP6)
        assert not advertises("fe80::166")
        assert not advertises(ip(free, 6), mac=FOREIGN_MAC)

    def test_a_neighbour_solicitation_comes_from_the_ports_own_address(
        self, world: World, free: Vm, otto: Vm
    ) -> None:
        def asks(source: str) -> bool:
            ends = (free.mac, otto.mac), (source, ip(otto, 6))
            return world.passes(free, otto, frames.neighbour(*ends, SOLICITATION, "fd00::199"))

        assert asks(ip(free, 6))
        assert asks(own_link_local(free))
        assert not asks(FOREIGN_IP6)

    def test_rarp_announces_the_ports_own_mac(self, world: World, free: Vm, otto: Vm) -> None:
        assert world.passes(free, otto, frames.rarp_request(free.mac))
        assert not world.passes(free, otto, frames.rarp_request(FOREIGN_MAC))

    def test_a_frame_with_a_vlan_tag_is_dropped(self, world: World, free: Vm, otto: Vm) -> None:
        frame = datagram((free.mac, free.ip), (otto.mac, otto.ip))
        for tag in (0, 1, 100):
            tagged = frame[:12] + b"\x81\x00" + tag.to_bytes(2) + frame[12:]
            assert not world.passes(free, otto, tagged)
            # Nor does it arrive with the tag taken off.
            assert not world.wire_of(otto).arrived(frame[12:])


class TestDhcp:
    def test_a_client_asks_without_any_rule_from_its_own_mac_and_addresses(
        self, world: World, closed: Vm, otto: Vm
    ) -> None:
        def asks(mac: str, source: str) -> bool:
            everybody = (frames.BROADCAST, "255.255.255.255")
            return world.passes(closed, otto, datagram((mac, source), everybody, (68, 67)))

        assert asks(closed.mac, "0.0.0.0")
        assert asks(closed.mac, closed.ip)
        assert not asks(closed.mac, FOREIGN_IP)
        assert not asks(FOREIGN_MAC, "0.0.0.0")

    def test_a_dhcpv6_client_asks_without_any_rule_from_its_link_local_address(
        self, world: World, closed: Vm, otto: Vm
    ) -> None:
        def asks(source: str) -> bool:
            frame = datagram((closed.mac, source), DHCP_SERVERS, (546, 547))
            return world.passes(closed, otto, frame)

        assert asks(own_link_local(closed))
        assert not asks("fe80::166")

    def test_the_answer_of_a_server_needs_no_rule(self, world: World, closed: Vm, otto: Vm) -> None:
        for version, ports in ((4, (67, 68)), (6, (547, 546))):
            ends = (otto.mac, ip(otto, version)), (closed.mac, ip(closed, version))
            assert world.passes(otto, closed, datagram(*ends, ports))
            assert not world.passes(otto, closed, datagram(*ends, (ports[0], ports[1] + 10)))

    def test_a_vm_is_no_server_whatever_its_rules_say(
        self, world: World, free: Vm, otto: Vm
    ) -> None:
        for version, ports in ((4, (67, 68)), (6, (547, 546))):
            ends = (free.mac, ip(free, version)), (otto.mac, ip(otto, version))
            assert not world.passes(free, otto, datagram(*ends, ports))
            assert world.passes(free, otto, datagram(*ends, (ports[0], 1068)))


class TestIcmpv6:
    @pytest.mark.parametrize(
        ("type_", "passes"),
        [(128, False), (130, True), (131, False), (133, False), (134, True), (135, True),
         (136, True), (137, False)],
    )  # fmt: skip
    def test_what_a_port_without_rules_receives(
        self, world: World, closed: Vm, otto: Vm, type_: int, passes: bool
    ) -> None:
        ends = (otto.mac, closed.mac), (ip(otto, 6), ip(closed, 6))
        frame = frames.icmp(*ends, type_, 0, bytes(20))
        assert world.passes(otto, closed, frame) == passes

    @pytest.mark.parametrize(
        ("type_", "passes"),
        [(128, False), (130, True), (133, True), (134, False), (135, True), (137, False)],
    )
    def test_what_a_port_without_rules_sends(
        self, world: World, closed: Vm, otto: Vm, type_: int, passes: bool
    ) -> None:
        ends = (closed.mac, otto.mac), (ip(closed, 6), ip(otto, 6))
        frame = frames.icmp(*ends, type_, 0, bytes(20))
        assert world.passes(closed, otto, frame) == passes

    def test_a_port_without_rules_answers_its_neighbours(
        self, world: World, closed: Vm, otto: Vm
    ) -> None:
        """Kernel to kernel: otto asks, the answer passes, and that is all that does."""
        otto.forget_neighbours()
        assert not otto.ping(ip(closed, 6), timeout=0.3)
        assert closed.mac in otto.namespace.ip("-6", "neighbour", "show", ip(closed, 6))

    @pytest.mark.parametrize("link_local_source", [True, False])
    def test_a_vm_is_no_router_whatever_its_rules_say(
        self, world: World, free: Vm, otto: Vm, link_local_source: bool
    ) -> None:
        source = own_link_local(free) if link_local_source else ip(free, 6)
        advertised = frames.icmp(
            (free.mac, ALL_NODES[0]), (source, ALL_NODES[1]), 134, 0, bytes(12)
        )
        assert not world.passes(free, otto, advertised)
        unicast = frames.icmp((free.mac, otto.mac), (source, ip(otto, 6)), 134, 0, bytes(12))
        assert not world.passes(free, otto, unicast)


def pair(address: str, mac: str | None = None) -> AddressPair:
    return AddressPair(ipaddress.ip_network(address), mac)


class TestAddressPairs:
    VIRTUAL_MAC = "00:00:5e:00:01:07"

    def wire(self, world: World, vm: Vm, *pairs: AddressPair) -> None:
        world.wire(
            vm, group(*everything("egress"), *everything("ingress")), allowed_address_pairs=pairs
        )

    @pytest.mark.parametrize(
        ("prefix", "inside", "outside"),
        [
            ("192.168.7.0/28", "192.168.7.15", "192.168.7.16"),
            ("2001:db8:7::/64", "2001:db8:7::9", "2001:db8:8::9"),
        ],
    )
    def test_further_addresses_with_the_ports_own_mac(
        self, world: World, bert: Vm, otto: Vm, *, prefix: str, inside: str, outside: str
    ) -> None:
        self.wire(world, bert, pair(prefix))
        other = otto.mac, ip(otto, 6 if ":" in inside else 4)
        assert world.passes(bert, otto, datagram((bert.mac, inside), other))
        assert not world.passes(bert, otto, datagram((bert.mac, outside), other))
        assert world.passes(otto, bert, datagram(other, (bert.mac, inside)))

    def test_arp_and_neighbour_discovery_speak_for_them_too(
        self, world: World, bert: Vm, otto: Vm
    ) -> None:
        self.wire(world, bert, pair("192.168.7.0/28"), pair("2001:db8:7::/64"))

        def asks(address: str) -> bool:
            asked = frames.arp_request(bert.mac, (bert.mac, address), "10.0.0.199")
            return world.passes(bert, otto, asked)

        def advertises(address: str) -> bool:
            ends = (bert.mac, otto.mac), (ip(bert, 6), ip(otto, 6))
            return world.passes(bert, otto, frames.neighbour(*ends, ADVERTISEMENT, address))

        assert asks("192.168.7.9")
        assert not asks("192.168.8.9")
        assert advertises("2001:db8:7::9")
        assert not advertises("2001:db8:8::9")

    def test_a_further_mac_sends_and_receives_its_own_addresses_only(
        self, world: World, bert: Vm, otto: Vm
    ) -> None:
        mac = self.VIRTUAL_MAC
        self.wire(world, bert, pair("10.0.0.77/32", mac), pair("fd00::77/128", mac))
        for virtual, theirs in (("10.0.0.77", otto.ip), ("fd00::77", ip(otto, 6))):
            assert world.passes(bert, otto, datagram((mac, virtual), (otto.mac, theirs)))
            assert world.passes(otto, bert, datagram((otto.mac, theirs), (mac, virtual)))
            assert not world.passes(bert, otto, datagram((bert.mac, virtual), (otto.mac, theirs)))
        assert not world.passes(bert, otto, datagram((mac, bert.ip), (otto.mac, otto.ip)))

    def test_every_address_but_one_mac(self, world: World, bert: Vm, otto: Vm) -> None:
        self.wire(world, bert, pair("0.0.0.0/0"), pair("::/0"))
        for source, theirs in (("198.51.100.7", otto.ip), ("2001:db8:5::5", ip(otto, 6))):
            assert world.passes(bert, otto, datagram((bert.mac, source), (otto.mac, theirs)))
            assert not world.passes(bert, otto, datagram((FOREIGN_MAC, source), (otto.mac, theirs)))

    def test_a_pair_taken_away_is_spoofing_again(self, world: World, bert: Vm, otto: Vm) -> None:
        frame = datagram((bert.mac, "192.168.7.9"), (otto.mac, otto.ip))
        self.wire(world, bert, pair("192.168.7.0/28"))
        assert world.passes(bert, otto, frame)
        self.wire(world, bert)
        assert not world.passes(bert, otto, frame)

    def test_a_mac_that_two_ports_hold_reaches_both_by_their_own_rules(
        self, world: World, anna: Vm, bert: Vm, carl: Vm
    ) -> None:
        shared = pair("10.0.0.77/32", self.VIRTUAL_MAC)
        self.wire(world, bert, shared)
        self.wire(world, carl, shared)
        frame = datagram((anna.mac, anna.ip), (self.VIRTUAL_MAC, "10.0.0.77"))
        assert world.receivers(anna, [bert, carl], frame) == {"bert", "carl"}
        world.wire(carl, group(*everything("egress")), allowed_address_pairs=(shared,))
        frame = datagram((anna.mac, anna.ip), (self.VIRTUAL_MAC, "10.0.0.77"), (4001, 53))
        assert world.receivers(anna, [bert, carl], frame) == {"bert"}

    def test_the_same_mac_and_address_on_two_networks_are_two_ports(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        other = network("vlan", segmentation_id=200)
        twin = world.insider("twin", *bert.addresses, mac=bert.mac)
        friend = world.insider("friend", "10.0.0.201/24", "fd00::201/64")
        world.wire(bert, group(rule(protocol="udp")))
        world.want(twin, group(rule(protocol="tcp")), network=other)
        world.want(friend, group(*everything("egress")), network=other)
        world.settle(twin, friend)
        assert world.udp_passes(anna, bert, 53)
        assert not world.syn_passes(anna, bert, 80)
        assert world.syn_passes(friend, twin, 80)
        assert not world.udp_passes(friend, twin, 53)
        seen = world.wire_of(twin)
        seen.take()
        assert world.udp_passes(anna, bert, 53)
        assert not seen.arrived(frames.mac_bytes(anna.mac))
