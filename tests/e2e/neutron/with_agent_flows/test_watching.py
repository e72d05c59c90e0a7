"""Our extension beside Neutron's own ``firewall_driver = openvswitch``."""

from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from tests.e2e.neutron.with_agent_flows.conftest import WATCHED
from tests.e2e.neutron.with_agent_flows.ports import are, full_table, healthy, tasks


def test_ports_are_active_once_their_flows_were_seen(neutron: Neutron, tenant: Tenant) -> None:
    vms = healthy(tenant, 20, WATCHED)
    for vm in vms:
        done = tasks(neutron, vm)
        assert "apply-security-groups" in {task["name"] for task in done}
        assert {task["task_state"] for task in done} == {"SUCCEEDED"}
    one, *_, other = vms
    assert one.connect(other.ip, SERVED)
    assert not one.connect(other.ip, CLOSED, timeout=0.5)


def test_a_port_that_neutrons_driver_left_without_flows_is_not_active(
    neutron: Neutron, tenant: Tenant
) -> None:
    """Without us it is ACTIVE, and passes everything; what it passes is not ours to change."""
    healthy(tenant, 1, WATCHED)
    with full_table(neutron.hosts[WATCHED]):
        [bare] = tenant.boot(1, host=WATCHED)
        are(neutron, [bare], status="DOWN", sync_state="OUT_OF_SYNC")
        failed, *_ = tasks(neutron, bare, task_state="FAILED")
        assert failed["name"] == "apply-security-groups"
    # Neutron's driver never tries again by itself, but whenever the agent takes the port up.
    neutron.hosts[WATCHED].restart_agent()
    are(neutron, [bare], status="ACTIVE", sync_state="IN_SYNC")
