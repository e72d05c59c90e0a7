"""The host, its VMs and how they are wired are those of the agent's tests."""

from collections.abc import Callable

import pytest

from lab.model import egress_to_anywhere, group, network
from lab.vm import Vm
from tests.functional.agent.conftest import host, make_vm, settled
from tests.functional.agent.host import Host
from tests.functional.agent.test_provider_networks import vlan

__all__ = ["host", "make_vm", "outside", "pair", "settled"]


@pytest.fixture
def pair(host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]) -> list[Vm]:
    """``one`` lets nothing in, ``two`` everything; both on one network."""
    net = network()
    (one,) = settled(make_vm("one"), net=net, groups=[group(*egress_to_anywhere())])
    (two,) = settled(make_vm("two"), net=net)
    for vm in (one, two):
        vm.listen(80)
    assert one.connect(two.ip, 80)
    return [one, two]


@pytest.fixture
def outside(
    host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]
) -> tuple[Vm, Vm]:
    """A VM on VLAN 100 of physnet1, and what it reaches there."""
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.mappings = {"physnet1": "br-ex"}
    (inside,) = settled(make_vm("inside"), net=vlan(100))
    machine = make_vm("machine")
    machine.plug("br-ex")
    machine.raise_link()
    host.switch.vsctl("set", "Port", machine.tap, "tag=100")
    machine.listen(80)
    host.until(lambda: inside.connect(machine.ip, 80), "it reaches the machine")
    return inside, machine
