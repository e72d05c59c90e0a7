"""The wiring of proven ports is changed by another program: found, reported and repaired."""

import contextlib

import pytest

from agent_flows.report import FlowName, Trouble
from lab.model import network
from lab.process import slowed
from tests.functional.drift.repairs import repaired, right, settled

BRIDGE = "br-int"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["set", "Port", "{tap}", "tag=999"], "the tag of {tap} is 999 instead of 1"),
        (["clear", "Port", "{tap}", "tag"], "the tag of {tap} is not set instead of 1"),
        (
            ["remove", "Port", "{tap}", "other_config", "net_uuid"],
            "other_config of {tap} was changed: net_uuid",
        ),
        (
            ["set", "Interface", "{tap}", "ofport_request=77"],
            "the ofport of {tap} is 77 instead of {ofport}",
        ),
    ],
    ids=["tag changed", "tag removed", "other_config", "ofport"],
)
def test_a_changed_row_of_a_port_is_reported_and_repaired(host, pair, words, expected):
    one, two = pair
    values = {"tap": two.tap, "ofport": host.switch.ofport(two.tap)}
    host.switch.vsctl(*(word.format(**values) for word in words))
    assert repaired(host, two).message == expected.format(**values)
    assert host.tag(two.tap) == 1
    right(one, two)
    assert not host.server.of(one.port_id, FlowName.AUDIT)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["down"], "link {tap} is down"),
        (["mtu", "1400"], "link {tap} has MTU 1400 instead of 1500"),
    ],
    ids=" ".join,
)
def test_a_changed_link_is_reported_and_repaired(host, pair, words, expected):
    one, two = pair
    host.switch.namespace.ip("link", "set", two.tap, *words)
    assert repaired(host, two).message == expected.format(tap=two.tap)
    link = host.switch.namespace.ip("link", "show", two.tap)
    assert "UP" in link
    assert "mtu 1500" in link
    right(one, two)


@pytest.mark.parametrize("forbidden", ["receive", "forward"])
def test_a_port_that_openflow_blocks_is_found_by_the_audit_and_repaired(
    host, make_vm, settled, forbidden
):
    host.start(audit_interval=2)
    host.ready()
    net = network()
    one, two = settled(make_vm("one"), make_vm("two"), net=net)
    two.listen(80)
    assert one.connect(two.ip, 80)
    bridge = host.switch.management(BRIDGE)
    host.switch.ofctl("mod-port", bridge, two.tap, f"no-{forbidden}")
    assert repaired(host, two).message == f"OpenFlow port {two.tap} must not {forbidden} packets"
    assert one.connect(two.ip, 80)


def test_a_link_that_vanished_while_its_interface_stayed_is_found_by_the_audit(
    host, make_vm, settled
):
    host.start(audit_interval=1)
    host.ready()
    (vm,) = settled(make_vm())
    host.switch.namespace.ip("link", "delete", vm.tap)
    report = host.server.wait_for(lambda: host.server.of(vm.port_id, FlowName.AUDIT)[:1], 20)[0]
    assert f"there is no link {vm.tap} on this host" in report.failed.error.message
    assert host.server.wait_failed(vm.port_id, "raise-link").flow is FlowName.RESYNC


def test_a_port_whose_link_goes_before_its_interface_has_no_drift(host, pair):
    _, two = pair
    host.switch.namespace.ip("link", "delete", two.tap)
    two.unplug()
    host.server.wait_for(lambda: host.server.of(two.port_id, FlowName.UNWIRE))
    assert not host.server.of(two.port_id, FlowName.AUDIT)


def test_several_changes_of_a_port_are_one_report(host, pair):
    one, two = pair
    host.switch.vsctl("set", "Port", two.tap, "tag=999", "other_config:tag=7")
    assert repaired(host, two).message == (
        f"the tag of {two.tap} is 999 instead of 1; other_config of {two.tap} was changed: tag"
    )
    right(one, two)


# The integration bridge.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["set-fail-mode", "br-int", "standalone"],
            "fail_mode of bridge br-int was changed from secure to standalone",
        ),
        (["del-fail-mode", "br-int"], "fail_mode of bridge br-int was changed from secure to none"),
        (
            ["set-controller", "br-int", "tcp:127.0.0.1:1"],
            "controller of bridge br-int was changed from none to tcp:127.0.0.1:1",
        ),
        (
            ["set", "Bridge", "br-int", "protocols=OpenFlow13"],
            "protocols of bridge br-int was changed from none to OpenFlow13",
        ),
        (
            ["remove", "Bridge", "br-int", "other_config", "disable-in-band"],
            "in-band control of bridge br-int was enabled: it adds hidden flows",
        ),
        (
            ["set", "Bridge", "br-int", "stp_enable=true"],
            "a spanning tree protocol was enabled on bridge br-int",
        ),
        (
            ["set", "Bridge", "br-int", "rstp_enable=true"],
            "a spanning tree protocol was enabled on bridge br-int",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_changed_integration_bridge_is_reported_for_every_port_and_repaired(
    host, pair, words, expected
):
    one, two = pair
    host.switch.vsctl(*words)
    assert repaired(host, one).message == expected
    assert repaired(host, two).message == expected
    assert host.switch.vsctl("get", "Bridge", BRIDGE, "fail_mode") == "secure"
    right(one, two)
    host.without_trouble()


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_a_change_for_which_the_switch_closes_its_connections_is_repaired_once(host, pair, share):
    with contextlib.ExitStack() as slow:
        if share < 1.0:
            slow.enter_context(slowed(host.switch.held_vswitchd, 0.05, share))
        host.switch.vsctl("--no-wait", "set", "Bridge", BRIDGE, "protocols=OpenFlow13")
        for vm in pair:
            assert "protocols" in repaired(host, vm).message
    host.without_trouble()
    settled(host, len(pair))
    for vm in pair:
        flows = [report.flow for report in host.server.of(vm.port_id)]
        assert flows == [FlowName.WIRE, FlowName.AUDIT, FlowName.RESYNC]


def test_a_controller_adds_no_hidden_flows_that_let_forbidden_packets_pass(host, pair):
    one, two = pair
    host.switch.vsctl("set-controller", BRIDGE, f"tcp:{one.ip}:80")
    repaired(host, one)
    assert not two.connect(one.ip, 80, timeout=0.4)
    assert "NORMAL" not in host.switch.appctl("bridge/dump-flows", BRIDGE)


def test_nothing_forbidden_passes_once_a_standalone_bridge_was_found(host, pair):
    one, two = pair
    for _ in range(3):
        before = len(host.server.of(one.port_id))
        host.switch.vsctl("set-fail-mode", BRIDGE, "standalone")
        repaired(host, one, before)
        assert not two.connect(one.ip, 80, timeout=0.4)
        assert host.switch.vsctl("get", "Bridge", BRIDGE, "fail_mode") == "secure"


def test_a_bridge_that_is_changed_again_and_again_is_closed_at_once_and_its_ports_wait(host, pair):
    one, two = pair
    changes = 0

    def changed_again() -> bool:
        """One more time; whether the ports wait by now."""
        nonlocal changes
        changes += 1
        host.switch.vsctl("set-fail-mode", BRIDGE, "standalone")
        host.until(
            lambda: host.switch.vsctl("get", "Bridge", BRIDGE, "fail_mode") == "secure",
            "it is closed",
        )
        lines = (state["troubles"].get(Trouble.BRIDGE, "") for state in list(host.server.states))
        return any("again and again" in line for line in lines)

    host.until(changed_again, "its ports wait", 60)
    assert not two.connect(one.ip, 80, timeout=0.4)
    host.server.wait_for(
        lambda: host.server.of(two.port_id)[-1].flow is FlowName.RESYNC, 40, "the last repair"
    )
    host.until(lambda: one.connect(two.ip, 80, timeout=0.4), "it works again", 40)
    assert len(host.server.of(two.port_id, FlowName.AUDIT)) < changes


def test_a_link_that_went_down_while_the_database_was_away_is_found_when_it_is_back(host, pair):
    one, two = pair
    host.switch.stop_ovsdb()
    host.trouble(Trouble.OVSDB)
    host.switch.namespace.ip("link", "set", two.tap, "down")
    host.switch.start_ovsdb()
    assert repaired(host, two).message == f"link {two.tap} is down"
    right(one, two)


def test_each_port_is_proven_again_when_a_switch_that_hung_answers(host, pair):
    before = [len(host.server.of(vm.port_id)) for vm in pair]
    with host.switch.held_vswitchd():
        assert "hangs" in host.trouble(Trouble.SWITCH)
    for vm, number in zip(pair, before, strict=True):
        host.server.wait_for(lambda vm=vm, number=number: host.server.of(vm.port_id)[number:])
    host.server.wait_wired([vm.port_id for vm in pair])
    right(*pair)
    host.without_trouble()


@pytest.mark.parametrize("kill", ["kill_vswitchd", "stop_vswitchd"])
def test_a_restarted_switch_is_reported_for_every_port_and_each_is_proven_again(host, pair, kill):
    getattr(host.switch, kill)()
    assert "ovs-vswitchd" in host.trouble(Trouble.SWITCH)
    host.switch.start_vswitchd()
    for vm in pair:
        assert "lost its flows" in repaired(host, vm).message
    right(*pair)
    host.without_trouble()


# The physical networks.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["set-fail-mode", "br-ex", "secure"],
            "fail_mode of bridge br-ex was changed from standalone to secure",
        ),
        (
            ["set-controller", "br-ex", "tcp:127.0.0.1:1"],
            "controller of bridge br-ex was changed from none to tcp:127.0.0.1:1",
        ),
        (
            ["set", "Bridge", "br-ex", "protocols=OpenFlow10"],
            "protocols of bridge br-ex was changed from none to OpenFlow10",
        ),
        (["del-port", "phy-br-ex"], "bridge br-ex has no patch port phy-br-ex: it was deleted"),
        (["del-port", "int-br-ex"], "bridge br-int has no patch port int-br-ex: it was deleted"),
        (
            ["set", "Interface", "phy-br-ex", "options:peer=elsewhere"],
            "the peer of patch port phy-br-ex is elsewhere instead of int-br-ex",
        ),
        (
            ["set", "Port", "phy-br-ex", "tag=7"],
            "tag of patch port phy-br-ex is set: it does not carry all VLANs",
        ),
        (
            ["set", "Port", "phy-br-ex", "trunks=7", "vlan_mode=trunk"],
            "trunks and vlan_mode of patch port phy-br-ex is set: it does not carry all VLANs",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_changed_uplink_is_reported_and_repaired(host, outside, words, expected):
    inside, machine = outside
    host.switch.vsctl(*words)
    change = repaired(host, inside).message.removeprefix(
        "the uplink to physical network physnet1 was "
    )
    assert change == f"changed: {expected}"
    host.until(lambda: inside.connect(machine.ip, 80, timeout=0.4), "it works again")
    host.without_trouble()


def test_a_physical_bridge_deleted_and_created_again_is_reported_and_repaired(host, outside):
    inside, machine = outside
    host.switch.vsctl(
        "del-br", "br-ex", "--", "add-br", "br-ex", "--", "set", "Bridge", "br-ex",
        "datapath_type=netdev", "--", "add-port", "br-ex", machine.tap, "tag=100",
    )  # fmt: skip
    assert "bridge br-ex was deleted and created again" in repaired(host, inside).message
    host.until(lambda: inside.connect(machine.ip, 80, timeout=0.4), "it works again")
    host.without_trouble()
