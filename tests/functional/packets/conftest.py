"""One host under the agent for all tests of a module, with three VMs on it and one beyond."""

from collections.abc import Iterator

import pytest

from lab.model import everything, group
from lab.switch import Switch
from lab.vm import Vm
from tests.functional.packets.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Switch() as switch:
        world = World(switch, tmp_path_factory.mktemp("agent"))
        try:
            yield world
        finally:
            world.close()


@pytest.fixture(scope="module")
def machines(world: World) -> tuple[Vm, Vm, Vm, Vm]:
    """Ports of one network, wired, and a machine on its segment beyond the host."""
    inside = [world.insider(name) for name in ("sender", "guarded", "third")]
    outside = world.outsider("outside")
    for vm in inside:
        world.want(vm, group())
    world.settle(*inside)
    return (*inside, outside)  # type: ignore[return-value]


@pytest.fixture
def sender(world: World, machines: tuple[Vm, ...]) -> Vm:
    """May send everything and receive nothing."""
    world.wire(machines[0], group(*everything("egress")))
    return machines[0]


@pytest.fixture
def guarded(world: World, machines: tuple[Vm, ...]) -> Vm:
    """A port whose rules the test sets; it starts without any."""
    world.wire(machines[1], group())
    return machines[1]


@pytest.fixture
def third(world: World, machines: tuple[Vm, ...]) -> Vm:
    """Another port without rules."""
    world.wire(machines[2], group())
    return machines[2]


@pytest.fixture
def outside(machines: tuple[Vm, ...]) -> Vm:
    """A machine beyond the uplink, without a filter."""
    return machines[3]
