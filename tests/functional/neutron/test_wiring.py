"""Neutron's agent adds, changes and removes ports and groups; packets show the result."""

import pytest

from agent_flows.report import FlowName, TaskState
from lab.model import new_id
from tests.functional.neutron.cloud import NETWORK, Cloud
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import outsider


def web_port(**fields: object) -> dict[str, object]:
    return {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, **fields}


@pytest.fixture
def group(cloud: Cloud) -> str:
    """A group that lets everything out and nothing in."""
    return cloud.open_group()


def test_a_wired_port_passes_what_its_groups_allow_and_nothing_else(
    cloud: Cloud, group: str
) -> None:
    cloud.rule(group, **web_port())
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    assert cloud.connect(a, b, 80)
    assert cloud.connect(outsider(), b, 80)
    assert not cloud.tcp(a, b, 81)
    assert not cloud.tcp(outsider(), b, 81)
    assert not cloud.tcp(a.but(ip="10.0.0.77"), b, 80)


def test_twenty_ports_of_one_turn_of_the_loop_are_one_bundle(cloud: Cloud, group: str) -> None:
    cloud.rule(group, **web_port(remote_group_id=group))
    vms = [cloud.boot_port(number, group) for number in range(1, 21)]
    cloud.bind(*vms)
    cloud.bundles()
    cloud.sg_agent.setup_port_filters({vm.id for vm in vms}, set())
    assert cloud.bundles() == 1
    assert all(cloud.succeeded(vm) for vm in vms)
    assert cloud.tcp(vms[3], vms[17], 80)
    assert not cloud.tcp(outsider(), vms[17], 80)


def test_a_port_that_comes_again_unchanged_costs_no_switch_operation(
    cloud: Cloud, group: str
) -> None:
    a = cloud.boot_port(1, group)
    cloud.wire_ports(a)
    cloud.calls()
    reports = len(cloud.reports)
    cloud.neutron_port(a, group, name="renamed")
    cloud.update_ports(a)
    assert cloud.calls() == []
    assert len(cloud.reports) == reports


def test_a_report_names_the_rules_that_were_applied_and_no_newer_ones(
    cloud: Cloud, group: str
) -> None:
    a = cloud.boot_port(1, group)
    cloud.wire_ports(a)
    applied = cloud.group_revision(group)
    cloud.rule(group, **web_port())
    cloud.driver.resync([a.id])
    assert cloud.report(a).security_group_revisions == {group: applied}
    cloud.loop()
    assert cloud.report(a).security_group_revisions == {group: cloud.group_revision(group)}
    assert cloud.tcp(outsider(), a, 80)


def test_a_resync_of_a_port_that_is_not_plugged_in_reports_its_absence(
    cloud: Cloud, group: str
) -> None:
    plugged, absent = cloud.boot(1), new_id()
    cloud.sees(plugged)
    cloud.driver.resync([plugged.id, absent])
    (report,) = cloud.reports
    assert (report.resource_id, report.flow, report.failed) == (absent, FlowName.UNWIRE, None)
    cloud.neutron_port(plugged, group)
    cloud.wire_ports(plugged)
    assert cloud.succeeded(plugged)


def test_a_report_names_the_ports_revision_that_was_applied(cloud: Cloud, group: str) -> None:
    a, other = cloud.boot_port(1, group), cloud.security_group()
    cloud.wire_ports(a)
    cloud.neutron_port(a, group, name="renamed")
    cloud.driver.resync([a.id])
    assert cloud.report(a).revision == 2
    cloud.neutron_port(a, group, other)
    cloud.driver.resync([a.id])
    assert cloud.report(a).revision == 1
    cloud.update_ports(a)
    assert cloud.report(a).revision == 3


def test_every_port_is_reported_with_each_of_its_tasks(cloud: Cloud, group: str) -> None:
    a = cloud.boot_port(1, group)
    cloud.wire_ports(a)
    (report,) = cloud.reports
    assert (report.resource_id, report.flow, report.revision) == (a.id, FlowName.WIRE, 1)
    assert {task.name: task.state for task in report.tasks} == dict.fromkeys(
        [
            "locate-interface",
            "read-desired-state",
            "apply-security-groups",
            "verify-security-groups",
            "verify-wiring",
            "lift-quarantine",
            "commit-security-groups",
        ],
        TaskState.SUCCEEDED,
    )


def test_a_new_member_of_a_group_is_let_in_by_the_others_at_once(cloud: Cloud, group: str) -> None:
    cloud.rule(group, **web_port(remote_group_id=group))
    a = cloud.boot_port(1, group)
    cloud.wire_ports(a)
    b = cloud.boot_port(2, group)
    cloud.wire_ports(b)
    assert cloud.tcp(b, a, 80)
    cloud.remove(b)
    again = cloud.boot_port(3)
    cloud.wire_ports(again)
    assert not cloud.tcp(again.but(mac=b.mac, ip=b.ip), a, 80)


def test_a_rule_is_in_force_on_all_ports_of_its_group_after_one_bundle(
    cloud: Cloud, group: str
) -> None:
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    assert not cloud.tcp(a, b, 80)
    cloud.bundles()
    rule = cloud.rule(group, **web_port())
    cloud.loop()
    assert cloud.bundles() == 1
    assert cloud.report(a).flow is FlowName.REFRESH
    assert cloud.connect(a, b, 80)
    assert cloud.tcp(b, a, 80)
    cloud.delete_rule(rule)
    cloud.loop()
    assert not cloud.tcp(a, b, 80, "ack")
    assert not cloud.tcp(b, a, 80)


def test_an_address_group_lets_in_the_addresses_it_has_now(cloud: Cloud, group: str) -> None:
    friends = cloud.address_group(["203.0.113.99/32"])
    cloud.rule(group, **web_port(remote_address_group_id=friends))
    a = cloud.boot_port(1, group)
    cloud.wire_ports(a)
    assert cloud.tcp(outsider(), a, 80)
    cloud.address_group(["203.0.113.0/26"], friends)
    cloud.loop()
    assert not cloud.tcp(outsider(), a, 80, sport=40001)
    assert cloud.tcp(outsider().but(ip="203.0.113.5"), a, 80)


def test_a_port_taken_out_of_a_group_loses_what_it_allowed(cloud: Cloud, group: str) -> None:
    web = cloud.security_group()
    cloud.rule(web, **web_port())
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group, web)
    cloud.wire_ports(a, b)
    assert cloud.tcp(a, b, 80)
    cloud.neutron_port(b, group)
    cloud.update_ports(b)
    assert not cloud.tcp(a, b, 80, sport=40001)
    assert cloud.report(b).flow is FlowName.WIRE


def test_a_port_may_send_from_its_address_pairs(cloud: Cloud, group: str) -> None:
    cloud.rule(group)
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    shared = a.but(mac="fa:16:3e:00:01:aa", ip="192.0.2.5")
    assert not cloud.udp(shared, b, 53)
    cloud.neutron_port(a, group, pairs=[("fa:16:3e:00:01:aa", "192.0.2.0/24")])
    cloud.update_ports(a)
    assert cloud.udp(shared, b, 53)
    assert cloud.udp(b, shared, 53)


def test_port_security_can_be_switched_while_the_port_is_up(cloud: Cloud, group: str) -> None:
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    stranger = a.but(ip="192.0.2.77")
    assert not cloud.tcp(a, b, 80)
    cloud.neutron_port(b, port_security_enabled=False)
    cloud.update_ports(b)
    assert b.id not in cloud.driver.ports
    assert cloud.tcp(a, b, 80)
    cloud.neutron_port(b, group)
    cloud.update_ports(b)
    assert not cloud.tcp(a, b, 80, sport=40001)
    cloud.neutron_port(a, port_security_enabled=False)
    cloud.update_ports(a)
    assert not cloud.tcp(stranger, b, 80), "b's own rules still count"
    assert cloud.succeeded(a)
    assert cloud.succeeded(b)


def test_what_a_trusted_port_sends_meets_the_rules_of_the_ports_it_sends_to(
    cloud: Cloud, group: str
) -> None:
    cloud.rule(group, **web_port())
    dhcp, vm = cloud.boot_port(1, device_owner="network:dhcp"), cloud.boot_port(2, group)
    cloud.wire_ports(dhcp, vm)
    assert cloud.succeeded(dhcp)
    assert cloud.report(dhcp).revision == cloud.report(vm).revision == 1
    assert cloud.tcp(dhcp, vm, 80)
    assert not cloud.tcp(dhcp, vm, 81)
    assert cloud.tcp(vm, dhcp, 12345)
    cloud.remove(dhcp)
    assert cloud.report(dhcp).flow is FlowName.UNWIRE


def test_permitted_ethertypes_pass_in_both_directions(cloud: Cloud, group: str) -> None:
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    assert cloud.sent(a, b, packets.other((a.mac, b.mac), 0x4000))
    assert not cloud.sent(a, b, packets.other((a.mac, b.mac), 0x4001))


def test_a_stateless_group_lets_no_reply_in_without_a_rule(cloud: Cloud) -> None:
    stateless = cloud.security_group(stateful=False)
    cloud.everything_out(stateless)
    cloud.rule(stateless, **web_port())
    a, b = cloud.boot_port(1, stateless), cloud.boot_port(2, stateless)
    cloud.wire_ports(a, b)
    assert cloud.tcp(a, b, 80)
    assert not cloud.tcp_reply(b, a, 80)
    cloud.rule(stateless, protocol="tcp", port_range_min=1024, port_range_max=65535)
    cloud.loop()
    assert cloud.tcp_reply(b, a, 80)


def test_a_group_without_rules_goes_with_any_other(cloud: Cloud) -> None:
    stateless, empty = cloud.security_group(stateful=False), cloud.security_group()
    cloud.everything_out(stateless)
    a = cloud.boot_port(1, stateless, empty)
    cloud.wire_ports(a)
    assert cloud.succeeded(a)


def test_an_unplugged_port_leaves_no_flow(cloud: Cloud, group: str) -> None:
    cloud.rule(group, remote_group_id=group)
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a)
    flows = cloud.ofctl.dump()
    cloud.wire_ports(b)
    cloud.remove(b)
    assert b.id not in cloud.driver.ports
    assert cloud.reports[-1].flow is FlowName.UNWIRE
    cloud.loop()
    assert sorted(cloud.without_cookies(cloud.ofctl.dump())) == sorted(cloud.without_cookies(flows))


def test_a_replugged_port_is_wired_where_it_is_now(cloud: Cloud, group: str) -> None:
    cloud.rule(group, **web_port())
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    cloud.unplug(b.name)
    cloud.plug(b.name)
    cloud.attach(b)
    cloud.bind(b)
    cloud.update_ports(b)
    assert cloud.report(b).flow is FlowName.WIRE
    assert cloud.tcp(a, b, 80)
    assert not cloud.tcp(a, b, 81)


def test_outside_of_a_deferred_block_each_call_is_a_batch(cloud: Cloud, group: str) -> None:
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    friend = {"direction": "ingress", "ethertype": "IPv4", "remote_group_id": group}
    cloud.driver.update_security_group_members(group, {"IPv4": [(a.ip, a.mac)]})
    cloud.driver.update_security_group_rules(group, [friend])
    assert cloud.tcp(a, b, 80) is False, "nothing may leave any more"
    assert cloud.tcp(outsider().but(ip=a.ip), b, 80)
    assert not cloud.tcp(outsider(), b, 80)
    cloud.driver.update_security_group_members(group, {"IPv4": []})
    assert not cloud.tcp(outsider().but(ip=a.ip), b, 80, sport=40001)


def test_a_port_that_is_down_at_the_server_is_proven_and_reported_again(
    cloud: Cloud, group: str
) -> None:
    a, new = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a)
    number = len(cloud.reports)
    cloud.driver.handle({"port_id": a.id, "status": "ACTIVE"})
    cloud.driver.handle({"port_id": new.id, "status": "DOWN"})
    assert len(cloud.reports) == number
    cloud.driver.handle({"port_id": a.id, "status": "DOWN"})
    (report,) = cloud.reports[number:]
    assert report.resource_id == a.id
    assert {task.state for task in report.tasks} == {TaskState.SUCCEEDED}


@pytest.mark.parametrize("kind", ["vlan", "flat"])
@pytest.mark.parametrize("name", ["dc1/leaf3", "provider net", "Ünï", "a,b=c", 'a"b', "x" * 64])
def test_a_physical_network_may_have_any_name_of_neutrons(
    cloud: Cloud, group: str, name: str, kind: str
) -> None:
    cloud.rule(group, **web_port())
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.bind(a, b)
    segment = "1001" if kind == "vlan" else "None"
    for vm in (a, b):
        binding = {"tag": "1", "net_uuid": NETWORK, "network_type": kind,
                   "physical_network": name, "segmentation_id": segment}  # fmt: skip
        cloud.bridge.set_db_attribute("Port", vm.name, "other_config", binding, check_error=True)
    cloud.sg_agent.setup_port_filters({a.id, b.id}, set())
    assert cloud.succeeded(b)
    assert cloud.tcp(a, b, 80)
