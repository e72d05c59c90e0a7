"""Ports come, change and go on a real switch; packets show the result."""

import dataclasses

from agent_flows.report import FlowName, TaskState
from agent_flows.spec import NetworkType, Refused
from lab.model import HOST, group, network, open_group

WIRE_TASKS = [
    "locate-interface",
    "raise-link",
    "provision-network",
    "apply-security-groups",
    "verify-security-groups",
    "bind-vlan",
    "verify-wiring",
    "commit-security-groups",
]
REFRESH_TASKS = [name for name in WIRE_TASKS if name.endswith("-security-groups")]


def test_a_plugged_port_is_wired_and_passes_what_its_groups_allow(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    assert one.connect(two.ip, 80)
    report = host.server.of(one.port_id)[-1]
    assert [task.name for task in report.tasks] == WIRE_TASKS
    assert {task.state for task in report.tasks} == {TaskState.SUCCEEDED}


def test_two_networks_of_one_host_are_separate(host, make_vm, settled):
    (one,) = settled(make_vm("one"))
    (two,) = settled(make_vm("two"))
    two.listen(80)
    assert not one.connect(two.ip, 80)


def test_an_unplugged_port_is_unwired_and_its_network_released(host, make_vm, settled):
    (vm,) = settled(make_vm())
    vm.unplug()
    host.server.wait_for(lambda: host.server.of(vm.port_id, FlowName.UNWIRE))
    assert host.port_flows() == []
    assert host.local_vlans() == {}


def test_a_port_deleted_at_the_server_is_closed_while_still_plugged(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    connection = one.open(two.ip, 80)
    assert connection.ask() == "two"
    del host.server.ports[one.port_id]
    host.casts.ports_changed(HOST, [one.port_id])
    host.until(lambda: host.tag(one.tap) == 4095, "the dead VLAN")
    host.until(lambda: len(host.port_flows(host.switch.ofport(one.tap))) == 0, "no flows")
    assert connection.ask(0.5) is None


def test_a_changed_group_is_refreshed_and_cuts_connections_it_no_longer_allows(
    host, make_vm, settled
):
    rules = open_group()
    one, two = settled(make_vm("one"), make_vm("two"), groups=[rules])
    two.listen(80)
    connection = one.open(two.ip, 80)
    assert connection.ask() == "two"
    host.server.groups[rules.id] = dataclasses.replace(rules, revision=2, rules=())
    host.casts.security_groups_changed(HOST, [rules.id])
    for vm in (one, two):
        host.server.wait_for(lambda vm=vm: host.server.of(vm.port_id, FlowName.REFRESH))
        report = host.server.of(vm.port_id)[-1]
        assert [task.name for task in report.tasks] == REFRESH_TASKS
        assert report.security_group_revisions == {rules.id: 2}
    assert connection.ask(0.5) is None


def test_an_unchanged_port_costs_no_flow(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    reports = len(host.server.reports)
    asked = len(host.server.asked)
    host.casts.ports_changed(HOST, [one.port_id])
    host.until(lambda: len(host.server.asked) > asked, "the agent asks")
    host.change(two)
    host.casts.ports_changed(HOST, [two.port_id])
    host.server.wait_wired([two.port_id])
    assert len(host.server.reports) == reports + 1


def test_a_missing_device_fails_its_port_with_the_switchs_error(host, settled, make_vm):
    settled(make_vm())
    ghost = make_vm("ghost")
    host.bind(ghost, network(), [open_group()])
    host.switch.namespace.ip("link", "delete", ghost.tap)
    host.plug_quietly(ghost)
    failure = host.server.wait_failed(ghost.port_id, "locate-interface").failed
    assert failure.error.type == "InterfaceError"
    assert "No such device" in failure.error.detail


def test_a_link_is_raised_with_the_mtu_of_its_network(host, make_vm, settled):
    (vm,) = settled(make_vm(), mtu=1400)
    link = host.switch.namespace.ip("-o", "link", "show", vm.tap)
    assert "mtu 1400" in link
    assert ",UP" in link


def test_an_internal_port_keeps_the_mtu_of_its_network(host, make_vm, settled):
    vm = make_vm("internal")
    host.switch.namespace.ip("link", "delete", vm.tap)
    (vm,) = settled(vm, mtu=1350, interface_type="internal")
    assert "mtu 1350" in host.switch.namespace.ip("-o", "link", "show", vm.tap)
    settled(make_vm(), mtu=1300)
    assert "mtu 1350" in host.switch.namespace.ip("-o", "link", "show", vm.tap)


def test_a_port_without_a_link_here_skips_raising_it(host, make_vm):
    vm = make_vm("guest")
    host.switch.namespace.ip("link", "delete", vm.tap)
    host.start()
    host.ready()
    host.plug_quietly(vm, interface_type="internal")
    host.until(
        lambda: vm.tap in host.switch.namespace.ip("-o", "link"), "the switch makes the link"
    )
    host.switch.namespace.ip("link", "set", vm.tap, "netns", vm.namespace.name)
    # Not bound before: a port that the agent knows is wired at once.
    host.bind(vm, network(), [open_group()])
    host.casts.ports_changed(HOST, [vm.port_id])
    host.server.wait_wired([vm.port_id])
    skipped = [task for task in host.server.of(vm.port_id)[-1].tasks if task.name == "raise-link"]
    assert skipped[0].state is TaskState.SKIPPED


def test_a_replugged_port_is_wired_with_its_new_ofport(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    old = host.switch.ofport(one.tap)
    host.switch.vsctl("set", "Interface", one.tap, f"ofport_request={old + 50}")
    host.until(lambda: host.switch.ofport(one.tap) == old + 50, "the new ofport")
    host.until(lambda: host.port_flows(old + 50) and not host.port_flows(old), "its flows")
    host.server.wait_for(lambda: len(host.server.of(one.port_id)) >= 2)
    assert one.connect(two.ip, 80)


def test_a_port_plugged_into_another_bridge_is_reported_as_absent_only(host, make_vm, settled):
    host.switch.add_bridge("br-other")
    (vm,) = settled(make_vm())
    stranger = make_vm("stranger")
    host.bind(stranger, network(), [open_group()])
    stranger.plug("br-other")
    host.change(vm)
    host.casts.ports_changed(HOST, [stranger.port_id, vm.port_id])
    host.server.wait_wired([vm.port_id])
    # It is not on our bridge, which is all that is reported of it.
    assert {report.flow for report in host.server.of(stranger.port_id)} <= {FlowName.UNWIRE}


def test_a_group_the_server_does_not_know_fails_its_port_only(host, make_vm, settled):
    (good,) = settled(make_vm("good"))
    bad = make_vm("bad")
    missing = group()
    host.bind(bad, network(), [missing])
    del host.server.groups[missing.id]
    bad.plug()
    host.server.wait_failed(bad.port_id, "apply-security-groups")
    host.change(good)
    host.casts.ports_changed(HOST, [good.port_id])
    host.server.wait_wired([good.port_id])


def test_an_unmapped_physical_network_fails_its_port_by_name(host, make_vm, settled):
    settled(make_vm("good"))
    bad = make_vm("bad")
    host.bind(bad, network(NetworkType.FLAT, physical_network="moon"), [open_group()])
    bad.plug()
    error = host.server.wait_failed(bad.port_id, "provision-network").failed.error
    assert "moon" in error.message
    assert host.port_flows(host.switch.ofport(bad.tap)) == []


def test_an_invalid_group_fails_its_ports_only_and_leaves_their_old_rules(host, make_vm, settled):
    rules = open_group()
    one, two = settled(make_vm("one"), make_vm("two"), groups=[rules])
    (three,) = settled(make_vm("three"), net=host.server.ports[one.port_id].network)
    two.listen(80)
    reason = "rules.0.port_range_max: must not be below port_range_min 90 (got 80)"
    host.server.refused[rules.id] = Refused(reason, 2, "{'port_range_min': 90}")
    host.casts.security_groups_changed(HOST, [rules.id])
    report = host.server.wait_failed(one.port_id, "apply-security-groups")
    assert report.security_group_revisions == {rules.id: 2}
    assert reason in report.failed.error.message
    assert one.connect(two.ip, 80)
    assert all(each.failed is None for each in host.server.of(three.port_id))


def test_an_invalid_port_spec_is_reported_and_leaves_the_port_wired(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    host.server.refused[one.port_id] = Refused("mac_address: must be a MAC address", 2, "'no'")
    host.casts.ports_changed(HOST, [one.port_id])
    report = host.server.wait_failed(one.port_id, "locate-interface")
    assert report.revision == 2
    assert "mac_address" in report.failed.error.message
    assert one.connect(two.ip, 80)
