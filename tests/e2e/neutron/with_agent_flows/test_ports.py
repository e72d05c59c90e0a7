"""Our extension, firewall driver, mechanism driver and plugin: ports are ACTIVE once proven."""

import pytest

from lab.model import ingress
from lab.neutron.plugging import BRIDGE
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.probe import passes_anything
from lab.process import wait_until
from tests.e2e.neutron.with_agent_flows.conftest import OURS, PLAIN, WATCHED
from tests.e2e.neutron.with_agent_flows.ports import SECONDS, are, full_table, healthy, tasks


def test_wired_ports_are_active_and_in_sync_with_readable_tasks(
    neutron: Neutron, tenant: Tenant
) -> None:
    vms = healthy(tenant, 20, OURS)
    for vm in vms:
        done = tasks(neutron, vm)
        assert "apply-security-groups" in {task["name"] for task in done}
        assert {task["task_state"] for task in done} == {"SUCCEEDED"}
        assert {task["host"] for task in done} == {OURS}
    for source, target in zip(vms, [*vms[1:], vms[0]], strict=True):
        assert source.connect(target.ip, SERVED)
        assert not source.connect(target.ip, CLOSED, timeout=0.2)


def test_a_host_without_the_extension_works_as_before(neutron: Neutron, tenant: Tenant) -> None:
    one, other = tenant.boot(2, host=PLAIN)
    are(neutron, [one, other], status="ACTIVE", sync_state=None)
    assert tasks(neutron, one) == []
    assert one.connect(other.ip, SERVED)
    assert not one.connect(other.ip, CLOSED, timeout=0.5)


def test_a_port_whose_flows_the_switch_refuses_is_down_closed_and_heals_by_itself(
    neutron: Neutron, tenant: Tenant
) -> None:
    friends = healthy(tenant, 2, OURS)
    with full_table(neutron.hosts[OURS]):
        [refused] = tenant.boot(1, host=OURS)
        are(neutron, [refused], status="DOWN", sync_state="OUT_OF_SYNC")
        assert passes_anything(refused, friends, SERVED) == []
        failed, *_ = tasks(neutron, refused, task_state="FAILED")
        assert failed["name"] == "apply-security-groups"
        assert failed["error"]["type"] == "FlowRefused"
        assert "OFPFMFC_TABLE_FULL" in failed["error"]["message"]
        assert "table:82" in failed["error"]["detail"]
        are(neutron, friends, status="ACTIVE", sync_state="IN_SYNC")
    are(neutron, [refused], status="ACTIVE", sync_state="IN_SYNC")
    assert friends[0].connect(refused.ip, SERVED)
    assert not friends[0].connect(refused.ip, CLOSED, timeout=0.5)


def test_a_refused_rule_leaves_the_old_ones_in_force_and_is_applied_later(
    neutron: Neutron, tenant: Tenant
) -> None:
    one, other = healthy(tenant, 2, OURS)
    with full_table(neutron.hosts[OURS]):
        rule = ingress(protocol="icmp")
        neutron.api.create("security_group_rules", security_group_id=tenant.group, **rule)
        are(neutron, [one, other], status="DOWN", sync_state="OUT_OF_SYNC")
        assert one.connect(other.ip, SERVED)
        assert not one.connect(other.ip, CLOSED, timeout=0.5)
        assert not one.ping(other.ip, timeout=0.5)
        failed, *_ = tasks(neutron, other, task_state="FAILED")
        assert "OFPFMFC_TABLE_FULL" in failed["error"]["message"]
    are(neutron, [one, other], status="ACTIVE", sync_state="IN_SYNC")
    assert one.ping(other.ip)


def test_an_unplugged_port_is_down_and_absent_until_it_is_plugged_and_proven_again(
    neutron: Neutron, tenant: Tenant
) -> None:
    one, other = healthy(tenant, 2, OURS)
    one.unplug(BRIDGE)
    are(neutron, [one], status="DOWN", sync_state="ABSENT")
    with full_table(neutron.hosts[OURS]):
        neutron.hosts[OURS].plug(one)
        are(neutron, [one], status="DOWN", sync_state="OUT_OF_SYNC")
    are(neutron, [one], status="ACTIVE", sync_state="IN_SYNC")
    newest, *_ = tasks(neutron, one)
    assert (newest["flow"], newest["task_state"]) == ("wire", "SUCCEEDED")
    assert other.connect(one.ip, SERVED)


def test_a_port_that_moves_is_proven_by_its_new_host(neutron: Neutron, tenant: Tenant) -> None:
    one, other = healthy(tenant, 2, OURS)
    one = tenant.move(one, WATCHED)
    are(neutron, [one], status="ACTIVE", sync_state="IN_SYNC")
    assert tasks(neutron, one)[0]["host"] == WATCHED
    one = tenant.move(one, PLAIN)
    are(neutron, [one], status="ACTIVE", sync_state=None)
    one = tenant.move(one, OURS)
    are(neutron, [one], status="ACTIVE", sync_state="IN_SYNC")
    assert tasks(neutron, one)[0]["host"] == OURS
    assert other.connect(one.ip, SERVED)
    assert not other.connect(one.ip, CLOSED, timeout=0.5)


def test_deleted_ports_log_no_error_on_their_host(neutron: Neutron, tenant: Tenant) -> None:
    host = neutron.hosts[OURS]
    leaving = Tenant(neutron, "10.31.0.0/24")
    healthy(leaving, 3, OURS)
    begin = len(host.agent_log)
    # As Nova does it: unplugged, and deleted at once.
    leaving.leave()
    # Reports are sent in order: those of the deleted ports are answered before this one's.
    healthy(tenant, 1, OURS)
    wait_until(lambda: host.reports_waiting() == 0, SECONDS, "every report is answered")
    lines = host.agent_log[begin:].splitlines()
    assert [line for line in lines if " ERROR " in line] == []


def test_flows_deleted_by_hand_are_reported_and_repaired_and_the_port_stays_active(
    neutron: Neutron, tenant: Tenant
) -> None:
    one, other = healthy(tenant, 2, OURS)
    switch = neutron.hosts[OURS].switch
    ofport = switch.ofport(other.tap)
    own = f"cookie={0xAF1001 << 40 | ofport << 16:#x}/0xffffffffffff0000"
    assert switch.flows(BRIDGE, own)
    switch.ofctl("del-flows", switch.management(BRIDGE), own)
    found = wait_until(lambda: tasks(neutron, other, flow="audit"), SECONDS, "drift is reported")
    assert [(task["name"], task["task_state"]) for task in found] == [("compare-switch", "FAILED")]
    assert found[0]["error"]["type"] == "Drift"
    are(neutron, [other], status="ACTIVE", sync_state="IN_SYNC")
    # It was never DOWN: that would be in the history of what was done for it.
    assert {task["task_state"] for task in tasks(neutron, other, flow="wire")} == {"SUCCEEDED"}
    assert one.connect(other.ip, SERVED)
    assert not one.connect(other.ip, CLOSED, timeout=0.5)
    assert tasks(neutron, one, flow="audit") == []


@pytest.mark.parametrize("tag", [999, 4095])
def test_a_changed_tag_is_reported_and_neutrons_agent_wires_the_port_again(
    neutron: Neutron, tenant: Tenant, tag: int
) -> None:
    one, other = healthy(tenant, 2, OURS)
    switch = neutron.hosts[OURS].switch
    right = switch.vsctl("get", "Port", other.tap, "tag")
    switch.vsctl("set", "Port", other.tap, f"tag={tag}")
    found = wait_until(lambda: tasks(neutron, other, flow="audit"), SECONDS, "drift is reported")
    assert f"is {tag} instead of" in found[0]["error"]["message"]
    wait_until(
        lambda: switch.vsctl("get", "Port", other.tap, "tag") == right, SECONDS, "the tag as before"
    )
    are(neutron, [other], status="ACTIVE", sync_state="IN_SYNC")
    assert one.connect(other.ip, SERVED)
