"""What conntrack makes of the first packet of a protocol: the state that a trace assumes."""

import pytest

from lab import frames
from lab.model import group, ip, rule
from lab.vm import Vm
from tests.functional.packets.world import World


@pytest.mark.parametrize(("number", "name"), [(47, "gre"), (50, "50")])
@pytest.mark.parametrize("version", [4, 6])
def test_first_packet_of_a_protocol_without_ports_passes_by_its_rule(
    world: World, sender: Vm, guarded: Vm, *, name: str, number: int, version: int
) -> None:
    world.wire(guarded, group(rule(protocol=name, ethertype=f"IPv{version}")))
    assert world.passes(sender, guarded, _unknown_protocol(sender, guarded, number, version))
    assert not world.passes(
        sender, guarded, _unknown_protocol(sender, guarded, number + 1, version)
    )
    assert not world.udp_passes(sender, guarded, 53, version=version)


@pytest.mark.parametrize("version", [4, 6])
def test_first_packet_of_an_sctp_association_passes_by_its_port(
    world: World, sender: Vm, guarded: Vm, version: int
) -> None:
    def opens(port: int) -> bool:
        addresses = (ip(sender, version), ip(guarded, version))
        ports = (30000 + port, port)
        return world.passes(
            sender, guarded, frames.sctp_init((sender.mac, guarded.mac), addresses, ports)
        )

    world.wire(
        guarded,
        group(
            rule(
                protocol="sctp",
                port_range_min=5000,
                port_range_max=5003,
                ethertype=f"IPv{version}",
            )
        ),
    )
    assert [opens(port) for port in (4999, 5000, 5003, 5004)] == [False, True, True, False]
    assert not world.udp_passes(sender, guarded, 5000, version=version)


@pytest.mark.parametrize("version", [4, 6])
def test_ping_passes_by_its_type_and_code(
    world: World, sender: Vm, guarded: Vm, version: int
) -> None:
    request, reply = (8, 0) if version == 4 else (128, 129)
    # Open vSwitch tracks echo requests with code 0 only.
    for type_, code, pings in (
        (request, None, True), (request, 0, True), (request, 1, False), (reply, None, False),
    ):  # fmt: skip
        world.wire(
            guarded,
            group(
                rule(
                    protocol="icmp",
                    ethertype=f"IPv{version}",
                    port_range_min=type_,
                    port_range_max=code,
                )
            ),
        )
        assert sender.ping(ip(guarded, version), timeout=1 if pings else 0.2) == pings


def _unknown_protocol(source: Vm, target: Vm, number: int, version: int) -> bytes:
    addresses = (ip(source, version), ip(target, version))
    return frames.ip(source.mac, target.mac, *addresses, number, b"number %03d of IP" % number)
