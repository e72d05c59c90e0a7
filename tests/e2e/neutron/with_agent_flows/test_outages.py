"""Outages of switch and message bus: what is shown meanwhile, and no change is lost.

More faults, and what holds in all of them: tests/faults/neutron.
"""

import contextlib
import time
from threading import Thread

import pytest

from lab.model import ingress
from lab.neutron.host import Host
from lab.neutron.plugging import BRIDGE
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.process import wait_until
from lab.vm import Vm
from tests.e2e.neutron.with_agent_flows.conftest import OURS, PLAIN, WATCHED
from tests.e2e.neutron.with_agent_flows.ports import are, healthy, nothing_is_active_unproven, tasks

_OUTAGE_SECONDS = 30


@pytest.fixture
def host(neutron: Neutron) -> Host:
    return neutron.hosts[OURS]


def open_the_closed_port(neutron: Neutron, tenant: Tenant) -> None:
    """By a rule. Without the message bus Neutron commits it, and does not answer."""
    rule = ingress(protocol="tcp", port=CLOSED)
    with contextlib.closing(neutron.as_nova()) as impatient, contextlib.suppress(OSError):
        impatient.create("security_group_rules", security_group_id=tenant.group, **rule)


def put_into(neutron: Neutron, vm: Vm, *groups: str) -> None:
    """These security groups only. Without the message bus Neutron commits and does not answer."""
    with contextlib.closing(neutron.as_nova()) as impatient, contextlib.suppress(OSError):
        impatient.update("ports", vm.port_id, security_groups=list(groups))


def in_step(neutron: Neutron) -> set[str]:
    """The hosts whose agents have what Neutron desires."""
    agents = neutron.api.find("agent_flows_agents")
    return {agent["host"] for agent in agents if (agent["desired"] or {}).get("in_step")}


@pytest.mark.parametrize("name", [OURS, WATCHED])
def test_while_the_switch_is_gone_its_ports_are_unknown_and_their_tasks_say_why(
    neutron: Neutron, tenant: Tenant, name: str
) -> None:
    host = neutron.hosts[name]
    vms = healthy(tenant, 2, name)
    with host.switch_gone():
        are(neutron, vms, sync_state="UNKNOWN")
        [task, *_] = tasks(neutron, vms[0], task_state="FAILED")
        assert task["error"]["type"] == "SwitchUnreachable"
        assert "ovs-vswitchd" in task["error"]["message"]
    are(neutron, vms, status="ACTIVE", sync_state="IN_SYNC")
    wait_until(lambda: vms[0].connect(vms[1].ip, SERVED, timeout=0.1), 40, "traffic passes")
    assert not vms[0].connect(vms[1].ip, CLOSED, timeout=0.5)


def test_changes_during_an_outage_of_the_message_bus_are_applied_after_it(
    neutron: Neutron, tenant: Tenant, host: Host
) -> None:
    one, other, leaving = healthy(tenant, 3, OURS)
    watched = healthy(tenant, 1, WATCHED)
    newcomer = tenant.ports(1, OURS)
    before = tasks(neutron, leaving)[0]["id"]
    with neutron.controller.bus_away():
        back = time.monotonic() + _OUTAGE_SECONDS
        [coming] = tenant.start(newcomer)
        leaving.unplug(BRIDGE)
        asking = Thread(target=open_the_closed_port, args=[neutron, tenant])
        asking.start()
        while time.monotonic() < back:
            assert nothing_is_active_unproven(neutron, [coming])
            assert not other.ping(coming.ip, timeout=0.2)
            time.sleep(0.5)
        assert one.connect(other.ip, SERVED)
    asking.join()
    are(neutron, [leaving], status="DOWN", sync_state="ABSENT")
    are(neutron, [one, other, coming, *watched], status="ACTIVE", sync_state="IN_SYNC")
    assert tasks(neutron, leaving)[0]["id"] != before
    assert one.connect(coming.ip, SERVED)
    assert one.connect(coming.ip, CLOSED)
    assert one.connect(watched[0].ip, CLOSED)
    wait_until(lambda: host.reports_waiting() == 0, 30, "every report was acknowledged")


def test_members_of_a_remote_group_that_changed_during_an_outage_of_the_message_bus_are_applied(
    neutron: Neutron, tenant: Tenant
) -> None:
    """On hosts that had nothing to report."""
    friends = neutron.api.group("friends", [])
    rule = ingress(protocol="tcp", port=CLOSED, remote_group_id=friends)
    neutron.api.create("security_group_rules", security_group_id=tenant.group, **rule)
    ours, watched = healthy(tenant, 1, OURS)[0], healthy(tenant, 1, WATCHED)[0]
    coming, leaving = tenant.boot(2, host=PLAIN)
    tenant.active(coming, leaving)
    put_into(neutron, leaving, tenant.group, friends)

    def reached(vm: Vm) -> list[bool]:
        return [each.connect(vm.ip, CLOSED, timeout=0.5) for each in (coming, leaving)]

    def groups_of(vm: Vm) -> set[str]:
        [port] = neutron.api.find("ports", id=vm.port_id)
        return set(port["security_groups"])

    for vm in (ours, watched):
        wait_until(lambda vm=vm: reached(vm) == [False, True], 30, "the group has one member")
    wanted = {coming: {tenant.group, friends}, leaving: {tenant.group}}
    with neutron.controller.bus_away():
        back = time.monotonic() + _OUTAGE_SECONDS
        changes = [
            Thread(target=put_into, args=[neutron, vm, *groups]) for vm, groups in wanted.items()
        ]
        for change in changes:
            change.start()
        for vm, groups in wanted.items():
            wait_until(lambda vm=vm, groups=groups: groups_of(vm) == groups, 20, "it is committed")
        # Otherwise it might send the casts when the agents are connected again.
        neutron.controller.kill_api()
        for change in changes:
            change.join()
        while time.monotonic() < back:
            time.sleep(0.5)
    neutron.controller.start_api()
    for vm in (ours, watched):
        wait_until(lambda vm=vm: reached(vm) == [True, False], 60, "the members are as they are")
    are(neutron, [ours, watched], status="ACTIVE", sync_state="IN_SYNC")
    wait_until(lambda: in_step(neutron) == {OURS, WATCHED}, 60, "the digests are equal")
    for vm in (coming, leaving):
        put_into(neutron, vm, tenant.group)
    neutron.api.delete("security_groups", friends)
