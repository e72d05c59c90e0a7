"""After the operator took agent_flows out of Neutron's configuration (operator's guide, Removal).

The last to use the Neutron that had it, by name.
"""

import dataclasses

import pytest

from lab.neutron.configuration import AgentOptions
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.rest import Refused
from tests.e2e.neutron.with_agent_flows.conftest import OURS
from tests.e2e.neutron.with_agent_flows.ports import are, full_table, healthy


def test_blocks_that_are_left_are_lifted_and_neutron_goes_on_without_us(
    neutron: Neutron, tenant: Tenant
) -> None:
    host, controller = neutron.hosts[OURS], neutron.controller
    [proven] = healthy(tenant, 1, OURS)
    with full_table(host):
        [refused] = tenant.boot(1, host=OURS)
        are(neutron, [refused], status="DOWN", sync_state="OUT_OF_SYNC")
        host.stop_agent()

    without = dataclasses.replace(
        controller.options, mechanism_drivers=("openvswitch",), service_plugins=()
    )
    controller.stop_server()
    controller.reconfigure(without)
    controller.start_server()
    with pytest.raises(Refused) as refusal:
        neutron.api.find("tasks")
    assert refusal.value.status == 404
    assert "sync_state" not in neutron.api.show("ports", proven.port_id)

    host.options = AgentOptions()
    host.start_agent()
    are(neutron, [proven], status="ACTIVE")
    are(neutron, [refused], status="DOWN")
    assert controller.run("agent-flows-manage", "neutron-cleanup").startswith("1 ")
    host.restart_agent()
    are(neutron, [proven, refused], status="ACTIVE")

    nothing_left = "bridge br-int: 0 flows deleted, 0 ports unsealed\n"
    assert host.run("agent-flows-leave-host") != nothing_left
    assert host.run("agent-flows-leave-host") == nothing_left
    [newcomer] = tenant.boot(1, host=OURS)
    are(neutron, [newcomer], status="ACTIVE")
    for vm in (proven, refused):
        assert newcomer.connect(vm.ip, SERVED)
        assert not newcomer.connect(vm.ip, CLOSED, timeout=0.5)
