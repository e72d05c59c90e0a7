"""Fixtures: a host with a switch, VMs on it, and ports wired in one call."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_flows.spec import NetworkSpec, SecurityGroupSpec
from lab.model import egress_to_anywhere, group, network, open_group
from lab.process import wait_until
from lab.switch import Switch
from lab.vm import Vm
from tests.functional.agent.host import Host

_NUMBERS = itertools.count(1)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Switch() as switch:
        host = Host(switch, tmp_path)
        try:
            yield host
        finally:
            host.close()


@pytest.fixture
def make_vm(host: Host) -> Iterator[Callable[..., Vm]]:
    """VMs of 10.0.0.0/24, addressed by the order of their making."""
    made: list[Vm] = []

    def make(name: str = "vm", address: str | None = None, **more: Any) -> Vm:
        number = next(_NUMBERS) % 250 + 1
        vm = Vm(
            host.switch,
            name,
            f"fa:16:3e:00:00:{number:02x}",
            [address or f"10.0.0.{number}/24"],
            **more,
        )
        vm.create()
        made.append(vm)
        return vm

    yield make
    for vm in made:
        vm.delete()


@pytest.fixture
def settled(host: Host) -> Callable[..., list[Vm]]:
    """Wires VMs on a network of their own: bound, plugged at once, reported."""

    def settle(
        *vms: Vm,
        net: NetworkSpec | None = None,
        groups: Sequence[SecurityGroupSpec] = (),
        mtu: int = 1500,
        interface_type: str = "",
    ) -> list[Vm]:
        net = net or network(mtu=mtu)
        rules = groups or [open_group()]
        host.start_once()
        for vm in vms:
            host.bind(vm, net, rules)
        host.plug_quietly(*vms, interface_type=interface_type)
        host.server.wait_wired([vm.port_id for vm in vms], 20)
        return list(vms)

    return settle


@pytest.fixture
def pair(host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]) -> list[Vm]:
    """``one`` lets nothing in, ``two`` everything; both on one network."""
    net = network()
    (one,) = settled(make_vm("one"), net=net, groups=[group(*egress_to_anywhere())])
    (two,) = settled(make_vm("two"), net=net)
    for vm in (one, two):
        vm.listen(80)
    # On a busy machine the switch may lose the first packet.
    wait_until(lambda: one.connect(two.ip, 80), 20, "the first connection")
    return [one, two]


@pytest.fixture
def outside(
    host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]
) -> tuple[Vm, Vm]:
    """A VM on VLAN 100 of physnet1, and what it reaches there."""
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.mappings = {"physnet1": "br-ex"}
    (inside,) = settled(make_vm("inside"), net=network("vlan", segmentation_id=100))
    machine = make_vm("machine")
    machine.plug("br-ex")
    machine.raise_link()
    host.switch.vsctl("set", "Port", machine.tap, "tag=100")
    machine.listen(80)
    host.until(lambda: inside.connect(machine.ip, 80), "it reaches the machine")
    return inside, machine
