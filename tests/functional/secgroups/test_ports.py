"""A port through its life: plugged in, moved, down, replugged, removed."""

import pytest

from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import Host, Vm, outsider

ANY = (rule(), rule(ethertype="IPv6"), *egress_to_anywhere())


@pytest.fixture
def vms(host: Host) -> list[Vm]:
    """Three open ports on one network."""
    made = [host.boot(number) for number in (1, 2, 3)]
    open_ = group(*ANY)
    for vm in made:
        host.port(vm, open_)
    host.wire(*made)
    return made


def broadcast(vm: Vm) -> str:
    return packets.udp((vm.mac, packets.BROADCAST), (vm.ip, "10.0.0.255"), (1, 9999))


def test_port_that_is_only_plugged_in_passes_nothing(host: Host, vms: list[Vm]) -> None:
    stranger = host.boot(9)
    assert not host.udp(stranger, vms[0], 53)
    assert not host.udp(stranger, outsider(), 53)
    assert host.send("vm9", broadcast(stranger)) == set()
    assert not host.udp(vms[0], stranger, 53)
    assert "vm9" not in host.send("vm1", broadcast(vms[0]))
    assert not host.udp(outsider(), stranger, 53)


def test_port_that_is_down_passes_nothing(host: Host, vms: list[Vm]) -> None:
    down = vms[2]
    host.port(down, group(*ANY), admin_state_up=False)
    host.wire(down)
    assert not host.udp(down, vms[0], 53)
    assert not host.udp(vms[0], down, 53)
    assert not host.udp(outsider(), down, 53)
    assert host.send("vm1", broadcast(vms[0])) == {"vm2", "uplink"}
    host.port(down, group(*ANY))
    host.wire(down)
    assert host.udp(vms[0], down, 53)


def test_removed_port_passes_nothing_and_leaves_nothing(host: Host, vms: list[Vm]) -> None:
    before = len(host.ofctl.dump())
    extra = host.boot(4)
    host.port(extra, group(*ANY, members=[extra]))
    host.wire(extra)
    host.firewall.remove([extra.id])
    assert not host.udp(extra, vms[0], 53)
    assert not host.udp(vms[0], extra, 53)
    assert host.send("vm1", broadcast(vms[0])) == {"vm2", "vm3", "uplink"}
    assert len(host.ofctl.dump()) == before


def test_frame_of_the_dead_vlan_reaches_no_port(host: Host, vms: list[Vm]) -> None:
    packet = packets.udp(("0e:00:00:00:00:01", vms[0].mac), ("10.0.0.9", vms[0].ip), (1, 53))
    assert host.send("uplink", packets.tagged(packet, 4095)) == set()


def test_moved_port_is_on_its_new_network_alone(host: Host, vms: list[Vm]) -> None:
    host.add_network(2)
    moved = vms[0].but(vlan=2)
    host.wire(moved)
    assert not host.udp(vms[0], vms[1], 53)
    assert host.udp(outsider(2), moved, 53)
    assert not host.udp(outsider(1), vms[0], 53)


def test_replugged_port_has_its_rules_on_its_new_ofport(host: Host, vms: list[Vm]) -> None:
    first, second = vms[0], vms[1]
    before = len(host.ofctl.dump())
    host.unplug(first.name)
    host.plug("vm7")
    assert not host.udp(second, first.but(name="vm7"), 53)
    host.wire(first.but(name="vm7"))
    assert host.udp(second, first.but(name="vm7"), 53)
    assert len(host.ofctl.dump()) == before


def test_interface_of_another_port_has_that_ports_rules_alone(host: Host, vms: list[Vm]) -> None:
    before = len(host.ofctl.dump())
    heir = vms[0].but(mac="fa:16:3e:00:01:99", ip="10.0.0.99", id="0" * 8 + vms[0].id[8:])
    host.port(heir, group(*ANY))
    host.wire(heir)
    assert host.udp(vms[1], heir, 53)
    assert not host.udp(vms[0], vms[1], 53)
    assert not host.udp(vms[1], vms[0], 53)
    assert len(host.ofctl.dump()) == before


def test_removed_port_no_longer_gets_a_shared_mac(
    host: Host,
) -> None:
    one, two, sender = host.boot(1), host.boot(2), host.boot(3)
    virtual = one.but(mac="00:00:5e:00:01:07", ip="10.0.0.77")
    pairs = [{"ip_address": "10.0.0.77/32", "mac_address": virtual.mac}]
    for vm in (one, two):
        host.port(vm, group(*ANY), allowed_address_pairs=pairs)
    host.port(sender, group(*ANY))
    host.wire(one, sender)
    host.wire(two)
    packet = packets.udp((sender.mac, virtual.mac), (sender.ip, virtual.ip), (1, 53))
    assert host.send(sender.name, packet) == {"vm1", "vm2", "uplink"}
    host.firewall.remove([one.id])
    assert host.send(sender.name, packet) == {"vm2", "uplink"}


def test_port_whose_security_is_switched_on_gets_no_more_unknown_unicast(host: Host) -> None:
    vm, peer = host.boot(1), outsider()
    unknown = vm.but(mac="0e:00:00:00:00:01")
    host.port(vm, port_security_enabled=False)
    host.wire(vm)
    assert host.udp(peer, unknown, 53)
    host.port(vm, group(*ANY))
    host.wire(vm)
    assert not host.udp(peer, unknown, 53)
