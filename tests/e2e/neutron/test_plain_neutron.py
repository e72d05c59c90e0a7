"""The control: what Neutron does by itself, healthy and when the switch refuses flows."""

from collections.abc import Iterator

import pytest

from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.probe import passes_anything
from lab.vm import Vm
from tests.e2e.neutron.moves import move


@pytest.fixture
def pair(tenant: Tenant) -> list[Vm]:
    """Two machines whose ports are ACTIVE."""
    vms = tenant.boot(2)
    tenant.active(*vms)
    return vms


@pytest.fixture
def full_table(neutron: Neutron, pair: list[Vm]) -> Iterator[None]:
    """The switch takes no further flow into the table of ingress rules."""
    assert pair
    with neutron.host.switch.full_table():
        yield


def flows_of(neutron: Neutron, vm: Vm) -> list[str]:
    """The firewall's flows of a port; each names it by register 5 (the entry's sets it)."""
    ofport = f"{neutron.host.switch.ofport(vm.tap):#x}"
    words = (f"reg5={ofport},", f"reg5={ofport} ", f"{ofport}->reg5")
    return [flow for flow in neutron.host.flows() if any(word in flow for word in words)]


def test_ports_become_active_and_their_rules_decide_which_packets_pass(
    neutron: Neutron, pair: list[Vm]
) -> None:
    one, other = pair
    for source, target in ((one, other), (other, one)):
        assert source.connect(target.ip, SERVED)
        assert not source.connect(target.ip, CLOSED, timeout=0.5)
        assert not source.ping(target.ip, timeout=0.5)
    assert flows_of(neutron, one)


@pytest.mark.usefixtures("full_table")
def test_without_us_a_port_without_a_single_flow_is_active_and_passes_everything(
    neutron: Neutron, tenant: Tenant, pair: list[Vm]
) -> None:
    [bare] = tenant.boot(1)
    tenant.active(bare)
    assert flows_of(neutron, bare) == []
    assert pair[0].connect(bare.ip, CLOSED)
    assert passes_anything(bare, pair, SERVED) != []


def test_a_machine_that_moves_between_hosts_sends_nova_these_events(
    neutron: Neutron, tenant: Tenant
) -> None:
    source, destination = neutron.hosts
    [vm] = tenant.boot(1, host=source)
    tenant.active(vm)
    move(neutron, tenant, vm, destination)
