"""Networks that reach beyond the host, over a physical network's bridge."""

import pytest

from agent_flows.report import FlowName
from agent_flows.spec import NetworkType
from lab.model import network, open_group


@pytest.fixture
def provider(host):
    """br-ex is the bridge of physnet1."""
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.mappings = {"physnet1": "br-ex"}
    return host


@pytest.fixture
def make_outsider(provider, make_vm):
    """A machine on the physical network, on a VLAN or untagged."""

    def make(name, vlan=None):
        vm = make_vm(name)
        vm.plug("br-ex")
        vm.raise_link()
        if vlan is not None:
            provider.switch.vsctl("set", "Port", vm.tap, f"tag={vlan}")
        return vm

    return make


def vlan(segment):
    return network("vlan", segmentation_id=segment)


def flat():
    return network("flat")


def test_a_vlan_network_is_translated_both_ways(provider, make_vm, make_outsider, settled):
    (inside,) = settled(make_vm("inside"), net=vlan(100))
    outside, other = make_outsider("outside", 100), make_outsider("other", 101)
    for vm in (inside, outside, other):
        vm.listen(80)
    assert inside.reach(outside.ip, 80) == "outside"
    assert outside.reach(inside.ip, 80) == "inside"
    assert not inside.connect(other.ip, 80)
    assert not other.connect(inside.ip, 80)


def test_a_flat_network_is_the_untagged_traffic(provider, make_vm, make_outsider, settled):
    (inside,) = settled(make_vm("inside"), net=flat())
    outside, tagged = make_outsider("outside"), make_outsider("tagged", 100)
    outside.listen(80)
    inside.listen(80)
    assert inside.reach(outside.ip, 80) == "outside"
    assert outside.reach(inside.ip, 80) == "inside"
    assert not tagged.connect(inside.ip, 80)


def test_two_networks_of_one_physical_network_do_not_meet(
    provider, make_vm, make_outsider, settled
):
    (one,) = settled(make_vm("one"), net=vlan(100))
    (two,) = settled(make_vm("two"), net=vlan(200))
    two.listen(80)
    outside = make_outsider("outside", 200)
    assert outside.connect(two.ip, 80)
    assert not one.connect(two.ip, 80)


def test_a_local_network_does_not_leave_the_host(provider, make_vm, make_outsider, settled):
    (inside,) = settled(make_vm("inside"))
    outside = make_outsider("outside")
    watcher = outside.wire()
    inside.connect(outside.ip, 80, timeout=0.3)
    source = bytes.fromhex(inside.mac.replace(":", ""))
    assert watcher.arrived(source) == 0


def test_nothing_of_a_released_network_stays(provider, make_vm, make_outsider, settled):
    (inside,) = settled(make_vm("inside"), net=vlan(100))
    before = len(provider.switch.flows("br-ex"))
    inside.unplug()
    provider.server.wait_for(lambda: provider.server.of(inside.port_id, FlowName.UNWIRE))
    assert len(provider.switch.flows("br-ex")) == before - 1
    assert not [f for f in provider.switch.flows("br-int") if "dl_vlan=100" in f]


def test_a_second_network_on_the_same_segment_is_refused(provider, make_vm, settled):
    settled(make_vm("first"), net=vlan(100))
    second = make_vm("second")
    provider.bind(second, vlan(100), [open_group()])
    second.plug()
    error = provider.server.wait_failed(second.port_id, "provision-network").failed.error
    assert error.type == "SegmentInUse"
    assert "VLAN 100" in error.message


def test_a_tunnel_network_is_refused_by_name(provider, make_vm, settled):
    settled(make_vm("first"))
    vm = make_vm()
    provider.bind(vm, network(NetworkType.VXLAN, segmentation_id=70000), [open_group()])
    vm.plug()
    error = provider.server.wait_failed(vm.port_id, "provision-network").failed.error
    assert error.type == "Unsupported"
    assert "vxlan" in error.message


def test_a_missing_bridge_fails_its_ports_until_it_appears(host, make_vm, settled):
    host.mappings = {"physnet1": "br-ex"}
    settled(make_vm("local"))
    vm = make_vm()
    host.bind(vm, vlan(100), [open_group()])
    vm.plug()
    error = host.server.wait_failed(vm.port_id, "provision-network").failed.error
    assert error.type == "BridgeNotFound"
    assert "br-ex" in error.message
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.server.wait_wired([vm.port_id])


def test_translation_survives_a_restart_of_the_switch(provider, make_vm, make_outsider, settled):
    (inside,) = settled(make_vm("inside"), net=vlan(100))
    outside = make_outsider("outside", 100)
    outside.listen(80)
    assert inside.connect(outside.ip, 80)
    provider.switch.restart_vswitchd()
    provider.server.wait_for(lambda: provider.server.of(inside.port_id, FlowName.RESYNC))
    provider.server.wait_wired([inside.port_id])
    assert inside.connect(outside.ip, 80)


def test_a_network_moved_to_another_segment_leaves_the_old_one(
    provider, make_vm, make_outsider, settled
):
    net = vlan(100)
    (inside,) = settled(make_vm("inside"), net=net)
    old, new = make_outsider("old", 100), make_outsider("new", 300)
    inside.listen(80)
    assert old.connect(inside.ip, 80)
    provider.change(
        inside,
        network=type(net)(
            id=net.id,
            network_type=NetworkType.VLAN,
            physical_network="physnet1",
            segmentation_id=300,
        ),
    )
    provider.casts.ports_changed("host-1", [inside.port_id])
    provider.server.wait_wired([inside.port_id])
    assert new.connect(inside.ip, 80)
    assert not old.connect(inside.ip, 80)
