"""Cases 15, 17 and 19: ports nobody filters, ethertypes that pass, packets with a past."""

import pytest

from lab import frames
from lab.model import everything, group, ip, rule
from lab.vm import Vm
from tests.functional.semantics.world import BRIDGE, PERMITTED, World

STRANGER, NESTED = "fa:16:3e:77:77:77", "fa:16:3e:88:88:88"
EXPERIMENTAL = 0x88B5
DHCP_OFFER, ROUTER_ADVERTISEMENT = (67, 68), 134


def forged(source: Vm, target: Vm, mac: str | None = None, address: str = "10.0.0.177") -> bytes:
    ends = (mac or source.mac, target.mac), (address, target.ip)
    return frames.udp(*ends, (4000, 53), f"from {mac} {address}".encode())


class TestPortSecurity:
    def test_without_it_everything_passes_both_ways(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        world.wire(bert, port_security_enabled=False)
        assert world.reaches(anna, bert, 80)
        assert world.reaches(bert, otto, 443)
        assert world.passes(bert, otto, forged(bert, otto))
        assert world.passes(bert, otto, forged(bert, otto, STRANGER))
        assert world.passes(
            otto, bert, frames.ethernet(otto.mac, bert.mac, EXPERIMENTAL, b"to bert")
        )
        assert world.passes(otto, bert, forged(otto, bert, STRANGER))

    def test_without_it_the_vm_may_hold_macs_that_nobody_told_us(
        self, world: World, anna: Vm, bert: Vm, carl: Vm, otto: Vm
    ) -> None:
        world.wire(bert, port_security_enabled=False)
        for source in (anna, otto):
            nested = frames.udp(
                (source.mac, NESTED), (source.ip, "10.0.0.177"), (4000, 53), b"to a nested VM"
            )
            assert world.receivers(source, [bert, carl], nested) == {"bert"}

    def test_others_filter_what_comes_from_it(
        self, world: World, anna: Vm, bert: Vm, carl: Vm
    ) -> None:
        world.wire(bert, port_security_enabled=False)
        assert not world.udp_passes(bert, anna, 53)
        assert not world.passes(bert, carl, forged(bert, carl))
        assert world.reaches(anna, bert, 80)

    def test_switched_on_while_a_connection_is_open_it_cuts_and_off_again_it_mends(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        world.serve(bert, 80)
        for peer in (anna, otto):
            world.wire(bert, port_security_enabled=False)
            connection = peer.open(bert.ip, 80)
            assert connection.ask() == "bert"
            world.wire(bert, group(), port_security_enabled=True)
            assert connection.ask(timeout=0.4) is None
            assert not world.passes(bert, otto, forged(bert, otto))
            assert not world.udp_passes(peer, bert, 53)
            world.wire(bert, port_security_enabled=False)
            assert connection.ask(timeout=5) == "bert"

    def test_switched_on_with_a_rule_for_it_an_open_connection_lives_on(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        world.serve(bert, 80)
        web = group(rule(protocol="tcp", port=80))
        for peer in (anna, otto):
            world.wire(bert, port_security_enabled=False)
            connection = peer.open(bert.ip, 80)
            assert connection.ask() == "bert"
            world.wire(bert, web, port_security_enabled=True)
            assert connection.ask(timeout=5) == "bert"
            world.wire(bert, web, port_security_enabled=False)
            assert connection.ask(timeout=5) == "bert"


class TestTrustedPorts:
    @pytest.mark.parametrize("owner", ["network:dhcp", "network:router_interface"])
    def test_a_port_of_the_network_itself_is_not_filtered_though_port_security_is_on(
        self, world: World, bert: Vm, otto: Vm, owner: str
    ) -> None:
        world.wire(bert, device_owner=owner)
        assert world.reaches(otto, bert, 80)
        assert world.reaches(bert, otto, 443)
        assert world.passes(bert, otto, forged(bert, otto))

    def test_it_serves_dhcp_and_advertises_routes_to_ports_without_rules(
        self, world: World, bert: Vm, carl: Vm
    ) -> None:
        def offer(port: int) -> bytes:
            ends = (bert.mac, carl.mac), (bert.ip, carl.ip)
            return frames.udp(*ends, DHCP_OFFER, b"an offer %d" % port)

        advertisement = frames.icmp(
            (bert.mac, carl.mac), (ip(bert, 6), ip(carl, 6)), ROUTER_ADVERTISEMENT, 0, bytes(12)
        )
        world.wire(bert, group(*everything("egress")))
        assert not world.passes(bert, carl, offer(1))
        assert not world.passes(bert, carl, advertisement)
        world.wire(bert, device_owner="network:dhcp")
        assert world.passes(bert, carl, offer(2))
        assert world.passes(bert, carl, advertisement)
        assert not world.udp_passes(bert, carl, 53)

    def test_a_vm_is_no_port_of_the_network(self, world: World, bert: Vm, otto: Vm) -> None:
        world.wire(bert, device_owner="compute:nova")
        assert not world.udp_passes(bert, otto, 53)
        assert not world.udp_passes(otto, bert, 53)


class TestEthertypes:
    def test_the_permitted_one_passes_without_any_rule_and_no_other_does(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        for source, target in ((bert, otto), (otto, bert), (anna, bert)):
            for ethertype in (PERMITTED, EXPERIMENTAL):
                frame = frames.ethernet(source.mac, target.mac, ethertype, b"neither IP nor ARP")
                assert world.passes(source, target, frame) == (ethertype == PERMITTED)

    def test_rules_that_allow_everything_allow_ip_only(
        self, world: World, bert: Vm, otto: Vm
    ) -> None:
        world.wire(bert, group(*everything("egress"), *everything("ingress")))
        for source, target in ((bert, otto), (otto, bert)):
            frame = frames.ethernet(source.mac, target.mac, EXPERIMENTAL, b"neither IP nor ARP")
            assert not world.passes(source, target, frame)


class TestTrackedPackets:
    """A packet may come with the memory of another connection table, as from a router's
    namespace or another zone; here the switch is told to send one in like that."""

    ZONE = 4000

    def arrives_tracked(self, world: World, source: Vm, target: Vm, frame: bytes) -> bool:
        """Sent in at ``source``'s port, after a trip through a foreign zone of conntrack."""
        seen = world.wire_of(target)
        seen.take()
        world.switch.ofctl(
            "packet-out",
            world.switch.management(BRIDGE),
            f"in_port={world.switch.ofport(source.tap)} packet={frame.hex()} "
            f"actions=ct(commit,zone={self.ZONE}),ct(table=0,zone={self.ZONE})",
        )
        return seen.wait_for(frame, 0.3)

    def test_what_is_established_elsewhere_is_not_established_here(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        there = frames.udp((anna.mac, bert.mac), (anna.ip, bert.ip), (8100, 8200), b"there")
        back = frames.udp((bert.mac, anna.mac), (bert.ip, anna.ip), (8200, 8100), b"back")
        for _ in range(2):
            assert not self.arrives_tracked(world, anna, bert, there)
            assert not self.arrives_tracked(world, bert, anna, back)
        assert any(f"zone={self.ZONE}" in line for line in world.conntrack())

    def test_what_the_rules_allow_passes_whatever_it_was_elsewhere(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        world.wire(bert, group(rule(protocol="udp", port=8201)))
        for target_port, passes in ((8201, True), (8202, False)):
            frame = frames.udp(
                (anna.mac, bert.mac), (anna.ip, bert.ip), (8101, target_port), b"tracked"
            )
            assert self.arrives_tracked(world, anna, bert, frame) == passes
