"""Which events Nova receives for a port, from a Neutron with our parts and real agents."""

import time

import pytest

from lab.model import ingress
from lab.neutron.nova import DELETED, PLUGGED, UNPLUGGED
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant
from lab.process import wait_until
from lab.vm import Vm
from tests.e2e.neutron.with_agent_flows.conftest import OURS, PLAIN, WATCHED
from tests.e2e.neutron.with_agent_flows.ports import SECONDS, are, full_table, healthy


def nova_has(neutron: Neutron, vm: Vm, *names: str) -> None:
    """Wait until these are the events of the machine's port so far, and no others."""
    try:
        wait_until(lambda: len(neutron.nova.names(vm.port_id)) >= len(names), SECONDS, str(names))
    finally:
        assert neutron.nova.names(vm.port_id) == list(names)


@pytest.mark.parametrize("host", [OURS, WATCHED, PLAIN])
def test_nova_receives_the_same_events_of_a_healthy_machine_with_agent_flows_and_without(
    neutron: Neutron, tenant: Tenant, host: str
) -> None:
    [port] = tenant.ports(1, host)
    assert neutron.nova.names(port["id"]) == []
    [vm] = tenant.start([port])
    nova_has(neutron, vm, PLUGGED)
    assert neutron.nova.events(vm.port_id)[0].machine == port["device_id"]
    tenant.stop(vm)
    nova_has(neutron, vm, PLUGGED, UNPLUGGED)
    neutron.api.delete("ports", vm.port_id)
    nova_has(neutron, vm, PLUGGED, UNPLUGGED, DELETED)


def test_nova_receives_nothing_while_a_new_port_is_refused_and_vif_plugged_when_it_is_proven(
    neutron: Neutron, tenant: Tenant
) -> None:
    healthy(tenant, 1, OURS)
    with full_table(neutron.hosts[OURS]):
        [vm] = tenant.boot(1, host=OURS)
        are(neutron, [vm], status="DOWN", sync_state="OUT_OF_SYNC")
        until_here = time.monotonic()
    nova_has(neutron, vm, PLUGGED)
    assert neutron.nova.events(vm.port_id)[0].at > until_here
    are(neutron, [vm], status="ACTIVE", sync_state="IN_SYNC")


def test_nova_receives_vif_unplugged_when_a_running_machines_rules_are_refused(
    neutron: Neutron, tenant: Tenant
) -> None:
    [vm] = healthy(tenant, 1, OURS)
    nova_has(neutron, vm, PLUGGED)
    with full_table(neutron.hosts[OURS]):
        rule = ingress(protocol="icmp")
        neutron.api.create("security_group_rules", security_group_id=tenant.group, **rule)
        nova_has(neutron, vm, PLUGGED, UNPLUGGED)
    nova_has(neutron, vm, PLUGGED, UNPLUGGED, PLUGGED)
