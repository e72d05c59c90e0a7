"""The host, its VMs and how they are wired are those of the agent's tests."""

from collections.abc import Callable

import pytest

from lab.model import egress_to_anywhere, group, network
from lab.vm import Vm
from tests.functional.agent.conftest import host, make_vm, settled
from tests.functional.agent.host import Host

__all__ = ["host", "make_vm", "pair", "settled"]


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
