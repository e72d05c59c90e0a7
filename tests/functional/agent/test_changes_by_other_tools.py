"""Changes that other tools make to the host are found, reported and repaired."""

import pytest

from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.report import FlowName, Trouble
from lab.model import egress_to_anywhere, group, network
from tests.functional.agent.test_provider_networks import vlan


def closed():
    """Lets everything out and nothing in."""
    return group(*egress_to_anywhere())


def healed(host, *vms):
    """Each has been proven again."""
    for vm in vms:
        host.server.wait_for(lambda vm=vm: host.server.of(vm.port_id, FlowName.RESYNC))
    host.server.wait_wired([vm.port_id for vm in vms])
    host.without_trouble()


# The integration bridge.


@pytest.mark.parametrize(
    "words",
    [
        ["set-fail-mode", "br-int", "standalone"],
        ["del-fail-mode", "br-int"],
        ["set-controller", "br-int", "tcp:127.0.0.1:1"],
        ["set", "Bridge", "br-int", "protocols=OpenFlow10"],
        ["set", "Bridge", "br-int", "protocols=OpenFlow13", "--", "set-fail-mode", "br-int",
         "standalone"],
        ["--no-wait", "set", "Bridge", "br-int", "datapath_type=system"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_changed_integration_bridge_is_restored_with_all_its_ports(host, pair, words):
    one, two = pair
    assert one.connect(two.ip, 80)
    host.switch.vsctl(*words)
    healed(host, *pair)
    assert host.switch.vsctl("get", "Bridge", "br-int", "fail_mode") == "secure"
    assert host.switch.vsctl("get", "Bridge", "br-int", "datapath_type") == "netdev"
    assert one.connect(two.ip, 80)
    assert not two.connect(one.ip, 80, timeout=0.4)


def test_a_fail_mode_changed_and_changed_back_at_once_is_restored_too(host, pair):
    one, two = pair
    host.switch.vsctl("set-fail-mode", "br-int", "standalone")
    host.switch.vsctl("set-fail-mode", "br-int", "secure")
    healed(host, *pair)
    assert one.connect(two.ip, 80)
    assert not two.connect(one.ip, 80, timeout=0.4)


def test_a_deleted_integration_bridge_is_the_hosts_trouble_and_created_again(host, pair, make_vm):
    one, two = pair
    host.switch.vsctl("del-br", "br-int")
    line = host.trouble(Trouble.BRIDGE)
    assert "br-int" in line
    assert "does not exist" in line
    host.until(
        lambda: host.switch.vsctl("--if-exists", "get", "Bridge", "br-int", "fail_mode"),
        "it is back",
    )
    for vm in pair:
        host.server.wait_for(lambda vm=vm: host.server.of(vm.port_id, FlowName.UNWIRE))
    host.plug_quietly(*pair)
    host.server.wait_wired([vm.port_id for vm in pair], 20)
    host.without_trouble()
    assert one.connect(two.ip, 80)
    assert not two.connect(one.ip, 80, timeout=0.4)


DELETE = ["del-br", "br-int"]
CREATE = ["add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"]


@pytest.mark.parametrize(
    "transactions", [[DELETE, CREATE], [[*DELETE, "--", *CREATE]]], ids=["two", "one"]
)
def test_an_integration_bridge_replaced_by_another_tool_is_restored(host, pair, transactions):
    one, two = pair
    for words in transactions:
        host.switch.vsctl(*words)
    host.plug_quietly(*pair)
    host.server.wait_wired([vm.port_id for vm in pair], 20)
    host.until(
        lambda: host.switch.vsctl("get", "Bridge", "br-int", "fail_mode") == "secure",
        "it is secure",
    )
    host.until(lambda: one.connect(two.ip, 80, timeout=0.4), "it works", 20)
    assert not two.connect(one.ip, 80, timeout=0.4)


def test_records_of_local_vlans_that_were_cleared_are_written_again(host, pair):
    before = host.local_vlans()
    host.switch.vsctl("clear", "Bridge", "br-int", "external_ids")
    host.until(lambda: host.local_vlans() == before, "they are back")


# The switch, and its database.


def test_a_switch_that_was_killed_is_the_hosts_trouble_until_it_is_back(host, pair):
    one, two = pair
    host.switch.kill_vswitchd()
    line = host.trouble(Trouble.SWITCH)
    assert "ovs-vswitchd" in line
    assert "br-int" in line
    assert Trouble.BRIDGE not in host.troubles()
    host.switch.start_vswitchd()
    healed(host, *pair)
    assert one.connect(two.ip, 80)


def test_a_switch_that_hangs_is_the_hosts_trouble_until_it_answers(host, pair):
    with host.switch.held_vswitchd():
        assert "hangs" in host.trouble(Trouble.SWITCH)
    host.without_trouble()


def test_a_stopped_database_is_the_hosts_trouble_and_is_followed_again_when_it_is_back(
    host, pair, make_vm
):
    one, two = pair
    host.switch.stop_ovsdb()
    assert host.switch.database in host.trouble(Trouble.OVSDB)
    host.switch.start_ovsdb()
    host.without_trouble(20)
    late = make_vm("late")
    host.bind(late, host.server.ports[two.port_id].network, [closed()])
    host.plug_quietly(late)
    one.unplug()
    host.server.wait_wired([late.port_id])
    host.server.wait_for(lambda: host.server.of(one.port_id, FlowName.UNWIRE))
    assert late.connect(two.ip, 80)


def test_a_database_that_hangs_is_the_hosts_trouble_until_it_answers(host, pair):
    with host.switch.held_ovsdb():
        assert host.switch.database in host.trouble(Trouble.OVSDB)
    host.without_trouble(30)


def test_an_agent_started_beside_a_database_that_hangs_reports_it_and_starts_once_it_answers(
    host, make_vm
):
    vm = make_vm()
    host.bind(vm, network(), [closed()])
    with host.switch.held_ovsdb():
        host.start(ovsdb_timeout=1)
        assert host.switch.database in host.trouble(Trouble.OVSDB)
    host.until(lambda: not host.troubles(), "it has started", 20)
    host.plug_quietly(vm)
    host.server.wait_wired([vm.port_id])


def test_an_agent_started_without_a_switch_reports_it_and_starts_with_it(host, make_vm):
    host.switch.add_bridge("br-int")
    host.switch.stop_vswitchd()
    host.start()
    assert "ovs-vswitchd" in host.trouble(Trouble.SWITCH)
    host.switch.start_vswitchd()
    host.without_trouble(20)


def test_an_unexpected_error_is_a_trouble_and_ends_no_loop(host, make_vm, monkeypatch):
    start, failures = Ovsdb.start, iter(["first", "second"])

    def fails_twice(self, listener=None):
        # As ovsdbapp does when ovsdb-server goes while its schema is asked for.
        if failure := next(failures, None):
            raise Exception(f"as the test wants it: {failure}")
        start(self, listener)

    monkeypatch.setattr(Ovsdb, "start", fails_twice)
    vm = make_vm()
    host.bind(vm, network(), [closed()])
    host.start()
    assert "as the test wants it" in host.trouble(Trouble.CONTROL)
    host.without_trouble()
    host.plug_quietly(vm)
    host.server.wait_wired([vm.port_id])


# The physical networks.


@pytest.mark.parametrize(
    "words",
    [
        ["set-fail-mode", "br-ex", "secure"],
        ["set-controller", "br-ex", "tcp:127.0.0.1:1"],
        ["del-port", "phy-br-ex"],
        ["del-port", "int-br-ex"],
        ["set", "Interface", "phy-br-ex", "options:peer=elsewhere"],
        ["set", "Interface", "int-br-ex", "options:peer=elsewhere"],
        ["set", "Interface", "int-br-ex", "ofport_request=77"],
        ["set", "Bridge", "br-ex", "protocols=OpenFlow10"],
    ],
    ids=" ".join,
)
def test_a_changed_uplink_is_repaired_and_its_ports_proven_again(host, outside, words):
    inside, machine = outside
    host.switch.vsctl(*words)
    host.server.wait_for(lambda: host.server.of(inside.port_id, FlowName.RESYNC))
    host.server.wait_wired([inside.port_id])
    host.until(lambda: inside.connect(machine.ip, 80, timeout=0.4), "it works again")
    host.without_trouble()


def test_a_physical_bridge_that_is_gone_fails_its_ports_by_name_until_it_is_back(
    host, outside, make_vm
):
    inside, machine = outside
    local = make_vm("local")
    host.switch.vsctl("del-br", "br-ex")
    line = host.trouble(Trouble.UPLINK)
    assert "br-ex" in line
    assert "physnet1" in line
    error = host.server.wait_failed(inside.port_id, "provision-network").failed.error
    assert error.type == "BridgeNotFound"
    host.bind(local, network(), [closed()])
    host.plug_quietly(local)
    host.server.wait_wired([local.port_id])
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.switch.vsctl("add-port", "br-ex", machine.tap, "tag=100")
    host.server.wait_wired([inside.port_id])
    host.until(lambda: inside.connect(machine.ip, 80, timeout=0.4), "it works again")
    host.without_trouble()


def test_flows_deleted_from_a_physical_bridge_come_back_with_a_resync_of_one_port(host, outside):
    inside, machine = outside
    host.switch.ofctl("del-flows", host.switch.management("br-ex"))
    assert not inside.connect(machine.ip, 80, timeout=0.4)
    host.casts.resync("host-1", [inside.port_id])
    host.until(lambda: inside.connect(machine.ip, 80, timeout=0.4), "it works again")


def test_a_physical_bridge_that_comes_after_the_agent_is_joined(host, make_vm, settled):
    host.mappings = {"physnet1": "br-ex"}
    host.start_once()
    assert "br-ex" in host.troubles()[Trouble.UPLINK]
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.without_trouble()
    assert host.switch.ofport("int-br-ex") > 0
    settled(make_vm(), net=vlan(100))
