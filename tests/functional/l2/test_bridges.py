"""What the agent makes of the bridges it finds."""

import pytest

from agent_flows.engine.task import TaskFailed
from agent_flows.openflow.ofctl import BridgeNotFound, Ofctl, SwitchUnreachable


def test_integration_bridge_is_created_without_flows(switch, bridges):
    assert switch.vsctl("get", "Bridge", "br-int", "fail_mode") == "secure"
    assert switch.flows("br-int") == []


def test_existing_bridge_becomes_secure_with_openflow_14(switch, ovsdb, bridges):
    switch.vsctl("set-fail-mode", "br-int", "standalone")
    switch.vsctl("set", "Bridge", "br-int", "protocols=OpenFlow10")
    ovsdb.settle()
    bridges.ensure_integration()
    assert switch.vsctl("get", "Bridge", "br-int", "fail_mode") == "secure"
    assert "OpenFlow14" in switch.vsctl("get", "Bridge", "br-int", "protocols")


def test_ensuring_twice_changes_nothing(switch, bridges):
    before = switch.vsctl("get", "Open_vSwitch", ".", "next_cfg")
    bridges.ensure_integration()
    assert switch.vsctl("get", "Open_vSwitch", ".", "next_cfg") == before


def test_uplink_is_a_pair_of_patch_ports(switch, ovsdb, bridges):
    switch.add_bridge("br-ex")
    ovsdb.settle()
    uplink = bridges.uplink("physnet1")
    assert uplink.ofport == switch.ofport("int-br-ex")
    assert uplink.peer_ofport == switch.ofport("phy-br-ex")
    assert switch.vsctl("get", "Interface", "int-br-ex", "options:peer") == "phy-br-ex"
    assert bridges.uplink("physnet1") == uplink


def test_missing_bridge_is_named(bridges):
    with pytest.raises(TaskFailed) as failed:
        bridges.uplink("physnet1")
    assert failed.value.error.type == "BridgeNotFound"
    assert "br-ex" in failed.value.error.message


def test_physical_network_without_mapping_is_named(bridges):
    with pytest.raises(TaskFailed) as failed:
        bridges.uplink("physnet9")
    assert failed.value.error.type == "UnknownPhysicalNetwork"
    assert "physnet9" in failed.value.error.message


def test_missing_bridge_is_distinguished_from_a_stopped_switch(switch, ovsdb, bridges):
    def call(bridge):
        tool = Ofctl(str(switch.run_dir), bridge, 5, is_missing=lambda: bridges.is_missing(bridge))
        with pytest.raises(SwitchUnreachable) as raised:
            tool.dump()
        return raised.value

    error = call("br-none")
    assert isinstance(error, BridgeNotFound)
    assert "br-none" in str(error)
    switch.stop_vswitchd()
    error = call("br-int")
    assert not isinstance(error, BridgeNotFound)
    assert "ovs-vswitchd" in str(error)
