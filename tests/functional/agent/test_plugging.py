"""Which interfaces are taken for a port's, however and however often they are plugged."""

import uuid

import pytest

from agent_flows.report import FlowName, TaskState
from lab.model import HOST, network, open_group

FOREIGN = {
    "a name": "vm-7-eth0",
    "capitals": str(uuid.uuid4()).upper(),
    "braces": f"{{{uuid.uuid4()}}}",
    "a urn": f"urn:uuid:{uuid.uuid4()}",
    "without hyphens": uuid.uuid4().hex,
    "300 characters": "x" * 300,
    "nothing": "",
    "a line more": f"{uuid.uuid4()}\n",
}


def add_interfaces(host, *names_and_ids: tuple[str, str]) -> None:
    """Internal interfaces with these iface-ids, all in one transaction."""
    words = ["--no-wait"]
    for name, iface_id in names_and_ids:
        words += ["--", "add-port", "br-int", name, "--", "set", "Interface", name]
        escaped = iface_id.replace("\n", "\\n")
        words += ["type=internal", f'external_ids:iface-id="{escaped}"']
    host.switch.vsctl(*words)


def test_foreign_iface_ids_disturb_no_port_and_no_sweep(host, make_vm, settled):
    host.switch.add_bridge("br-int")
    add_interfaces(host, *((f"foreign{n}", each) for n, each in enumerate(FOREIGN.values())))
    (vm,) = settled(make_vm())
    host.change(vm)
    host.casts.ports_changed(HOST, [vm.port_id])
    host.server.wait_wired([vm.port_id])
    asked = {port_id for ids in host.server.asked for port_id in ids or ()}
    assert asked == {vm.port_id}
    assert {report.resource_id for report in host.server.reports} == {vm.port_id}
    host.until(lambda: host.server.states[-1]["waiting"] == 0, "nothing waits")
    # A stale flow of a port that is gone is swept for all that.
    host.stop()
    vm.unplug()
    host.start()
    host.until(lambda: host.port_flows() == [], "the sweep")


def plugged_again(host, vm) -> list[str]:
    """Interface and port row are replaced."""
    words = ["del-port", "br-int", vm.tap, "--", "add-port", "br-int", vm.tap, "--"]
    return [*words, "set", "Interface", vm.tap, f"external_ids:iface-id={vm.port_id}"]


def port_row_replaced(host, vm) -> list[str]:
    """The interface's row stays."""
    interface = host.switch.vsctl("get", "Interface", vm.tap, "_uuid").strip()
    port = host.switch.vsctl("get", "Port", vm.tap, "_uuid").strip()
    return [
        *("remove", "Bridge", "br-int", "ports", port, "--"),
        *("--id=@new", "create", "Port", f"name={vm.tap}", f"interfaces={interface}", "--"),
        *("add", "Bridge", "br-int", "ports", "@new"),
    ]


@pytest.mark.parametrize("words", [plugged_again, port_row_replaced])
def test_a_port_replaced_in_one_transaction_is_wired_again(host, make_vm, settled, words):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    reports = len(host.server.of(one.port_id))
    host.switch.vsctl(*words(host, one))
    host.server.wait_for(lambda: len(host.server.of(one.port_id)) > reports)
    host.server.wait_wired([one.port_id])
    host.until(lambda: host.tag(one.tap) == host.tag(two.tap), "the tag is back")
    assert one.connect(two.ip, 80)


def test_a_port_that_moves_to_another_interface_is_wired_there(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    host.switch.namespace.ip("link", "set", one.tap, "down")
    host.switch.namespace.ip("link", "set", one.tap, "name", "renamed0")
    words = ["del-port", "br-int", one.tap, "--", "add-port", "br-int", "renamed0", "--"]
    words += ["set", "Interface", "renamed0", f"external_ids:iface-id={one.port_id}"]
    host.switch.vsctl(*words)
    host.until(lambda: host.tag("renamed0") == host.tag(two.tap), "the tag of the new interface")
    host.server.wait_wired([one.port_id])
    assert one.connect(two.ip, 80)


def test_a_tag_cleared_by_another_tool_is_back_after_a_resync(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    host.switch.vsctl("clear", "Port", one.tap, "tag")
    host.casts.resync(HOST, [one.port_id])
    host.until(lambda: host.tag(one.tap) == host.tag(two.tap), "the tag is back")
    assert one.connect(two.ip, 80)


def test_the_patch_interface_of_a_trunks_parent_is_wired_without_a_kernel_link(
    host, make_vm, settled
):
    (peer,) = settled(make_vm("peer"))
    peer.listen(80)
    parent = make_vm("parent")
    host.bind(parent, host.server.ports[peer.port_id].network, list(host.server.groups.values()))
    host.switch.add_bridge("tbr-1", fail_mode="standalone")
    parent.raise_link()
    host.switch.vsctl(
        *("add-port", "tbr-1", parent.tap, "--"),
        *("add-port", "tbr-1", "tpt-1", "--", "set", "Interface", "tpt-1", "type=patch"),
        *("options:peer=tpi-1", "--", "add-port", "br-int", "tpi-1", "--", "set", "Interface"),
        *("tpi-1", "type=patch", "options:peer=tpt-1", f"external_ids:iface-id={parent.port_id}"),
    )
    host.server.wait_wired([parent.port_id])
    tasks = {task.name: task.state for task in host.server.of(parent.port_id)[-1].tasks}
    assert tasks["raise-link"] is TaskState.SKIPPED
    assert parent.connect(peer.ip, 80)


def test_an_iface_id_claimed_twice_is_a_conflict_until_one_interface_goes(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    add_interfaces(host, ("thief", one.port_id))
    error = host.server.wait_failed(one.port_id, "locate-interface").failed.error
    assert error.type == "Conflict"
    assert one.tap in error.message
    assert "thief" in error.message
    host.switch.vsctl("del-port", "br-int", "thief")
    host.server.wait_wired([one.port_id])
    assert one.connect(two.ip, 80)


def test_the_absence_of_a_bound_port_is_reported_once_for_each_revision(host, make_vm, settled):
    (good,) = settled(make_vm("good"))
    absent, elsewhere = make_vm("absent"), make_vm("elsewhere")
    host.bind(absent, network(), [open_group()])
    for _ in range(3):
        host.casts.ports_changed(HOST, [absent.port_id, elsewhere.port_id])
        host.server.wait_for(lambda: host.server.of(absent.port_id, FlowName.UNWIRE))
        host.until(lambda: host.server.states[-1]["waiting"] == 0, "nothing waits")
    [report] = host.server.of(absent.port_id)
    assert (report.flow, report.failed, report.revision) == (FlowName.UNWIRE, None, 1)
    host.change(absent)
    host.casts.ports_changed(HOST, [absent.port_id])
    host.server.wait_for(lambda: len(host.server.of(absent.port_id)) == 2)
    assert host.server.of(absent.port_id)[-1].revision == 2
    assert host.server.of(elsewhere.port_id) == []
    absent.plug()
    host.server.wait_wired([absent.port_id])
    assert host.server.of(good.port_id)[-1].flow is FlowName.WIRE


def test_a_port_plugged_soon_after_the_server_named_it_is_not_reported_as_absent(
    host, make_vm, settled
):
    (peer,) = settled(make_vm("peer"))
    vm = make_vm("late")
    host.bind(vm, host.server.ports[peer.port_id].network, list(host.server.groups.values()))
    host.casts.ports_changed(HOST, [vm.port_id])
    host.plug_quietly(vm)
    host.server.wait_wired([vm.port_id])
    assert host.server.of(vm.port_id, FlowName.UNWIRE) == []
