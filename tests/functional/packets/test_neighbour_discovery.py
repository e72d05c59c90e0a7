"""Neighbour discovery and the link-local address with a real kernel and a real conntrack, which
calls most of it invalid."""

import pytest

from lab import frames
from lab.model import everything, group, ip
from lab.vm import Vm
from tests.functional.packets.world import World


def own_link_local(vm: Vm) -> str:
    """As the VM's kernel has made it from the MAC."""
    shown = vm.namespace.ip("-6", "-brief", "address", "show", "dev", "eth0", "scope", "link")
    return shown.split()[2].partition("/")[0]


@pytest.fixture
def closed(guarded: Vm) -> Vm:
    """Without any rule."""
    return guarded


def test_link_local_address_of_the_kernel_is_the_ports_own(
    world: World, guarded: Vm, outside: Vm
) -> None:
    world.wire(guarded, group(*everything()))
    for source, passes in ((own_link_local(guarded), True), ("fe80::166", False)):
        ends = (guarded.mac, outside.mac), (source, ip(outside, 6))
        assert world.passes(guarded, outside, frames.udp(*ends, (4000, 53), b"hello")) is passes


@pytest.mark.parametrize(
    ("type_", "passes"),
    [(128, False), (130, True), (131, False), (133, False), (134, True), (135, True),
     (136, True), (137, False)],
)  # fmt: skip
def test_port_without_rules_receives_neighbour_discovery_only(
    world: World, closed: Vm, outside: Vm, type_: int, passes: bool
) -> None:
    ends = (outside.mac, closed.mac), (ip(outside, 6), ip(closed, 6))
    frame = frames.icmp(*ends, type_, 0, bytes(20))
    assert world.passes(outside, closed, frame) == passes


@pytest.mark.parametrize(
    ("type_", "passes"),
    [(128, False), (130, True), (133, True), (134, False), (135, True), (137, False)],
)
def test_port_without_rules_sends_neighbour_discovery_only(
    world: World, closed: Vm, outside: Vm, type_: int, passes: bool
) -> None:
    ends = (closed.mac, outside.mac), (ip(closed, 6), ip(outside, 6))
    frame = frames.icmp(*ends, type_, 0, bytes(20))
    assert world.passes(closed, outside, frame) == passes


def test_port_without_rules_answers_its_neighbours(world: World, closed: Vm, outside: Vm) -> None:
    """Between kernels: the answer passes, a ping does not."""
    outside.forget_neighbours()
    assert not outside.ping(ip(closed, 6), timeout=0.3)
    assert closed.mac in outside.namespace.ip("-6", "neighbour", "show", ip(closed, 6))
