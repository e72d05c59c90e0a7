"""Port security switched while connections are open; permitted ethertypes; packets that another
zone of conntrack knows."""

from lab import frames
from lab.model import group, rule
from lab.vm import Vm
from tests.functional.packets.world import BRIDGE, PERMITTED, World

EXPERIMENTAL = 0x88B5


def forged(source: Vm, target: Vm, mac: str | None = None, address: str = "10.0.0.177") -> bytes:
    ends = (mac or source.mac, target.mac), (address, target.ip)
    return frames.udp(*ends, (4000, 53), f"from {mac} {address}".encode())


class TestPortSecurity:
    def test_switched_on_it_cuts_an_open_connection_and_switched_off_it_mends_it(
        self, world: World, sender: Vm, guarded: Vm, outside: Vm
    ) -> None:
        world.serve(guarded, 80)
        for peer in (sender, outside):
            world.wire(guarded, port_security_enabled=False)
            connection = peer.open(guarded.ip, 80)
            assert connection.ask() == "guarded"
            world.wire(guarded, group(), port_security_enabled=True)
            assert connection.ask(timeout=0.4) is None
            assert not world.passes(guarded, outside, forged(guarded, outside))
            assert not world.udp_passes(peer, guarded, 53)
            world.wire(guarded, port_security_enabled=False)
            assert connection.ask(timeout=5) == "guarded"

    def test_switched_on_it_keeps_an_open_connection_that_a_rule_allows(
        self, world: World, sender: Vm, guarded: Vm, outside: Vm
    ) -> None:
        world.serve(guarded, 80)
        web = group(rule(protocol="tcp", port=80))
        for peer in (sender, outside):
            world.wire(guarded, port_security_enabled=False)
            connection = peer.open(guarded.ip, 80)
            assert connection.ask() == "guarded"
            world.wire(guarded, web, port_security_enabled=True)
            assert connection.ask(timeout=5) == "guarded"
            world.wire(guarded, web, port_security_enabled=False)
            assert connection.ask(timeout=5) == "guarded"


class TestEthertypes:
    def test_permitted_ethertype_passes_without_a_rule_and_another_does_not(
        self, world: World, sender: Vm, guarded: Vm, outside: Vm
    ) -> None:
        for source, target in ((guarded, outside), (outside, guarded), (sender, guarded)):
            for ethertype in (PERMITTED, EXPERIMENTAL):
                frame = frames.ethernet(source.mac, target.mac, ethertype, b"neither IP nor ARP")
                assert world.passes(source, target, frame) == (ethertype == PERMITTED)


class TestTrackedPackets:
    """A packet may come with the memory of another connection table, as from a router's
    namespace or another zone; here the switch is made to send one in like that."""

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
        self, world: World, sender: Vm, guarded: Vm
    ) -> None:
        there = frames.udp(
            (sender.mac, guarded.mac), (sender.ip, guarded.ip), (8100, 8200), b"there"
        )
        back = frames.udp((guarded.mac, sender.mac), (guarded.ip, sender.ip), (8200, 8100), b"back")
        for _ in range(2):
            assert not self.arrives_tracked(world, sender, guarded, there)
            assert not self.arrives_tracked(world, guarded, sender, back)
        assert any(f"zone={self.ZONE}" in line for line in world.conntrack())

    def test_what_the_rules_allow_passes_whatever_it_was_elsewhere(
        self, world: World, sender: Vm, guarded: Vm
    ) -> None:
        world.wire(guarded, group(rule(protocol="udp", port=8201)))
        for target_port, passes in ((8201, True), (8202, False)):
            frame = frames.udp(
                (sender.mac, guarded.mac), (sender.ip, guarded.ip), (8101, target_port), b"tracked"
            )
            assert self.arrives_tracked(world, sender, guarded, frame) == passes
