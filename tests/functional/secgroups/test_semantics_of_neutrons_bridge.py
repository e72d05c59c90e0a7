"""What is special about ports on Neutron's bridge: the doors from and to Neutron's own flows."""

import pytest

from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.pipeline import Home, Pipeline
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import UPLINK, Host, Vm, outsider


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline(Home.NEUTRON)


ANY = (rule(), rule(ethertype="IPv6"), *egress_to_anywhere())
DNS = rule(protocol="udp", port_range_min=53, port_range_max=53)


def datagram(source: Vm, destination: Vm, port: int = 53) -> str:
    return packets.udp((source.mac, destination.mac), (source.ip, destination.ip), (40000, port))


def broadcast(vm: Vm) -> str:
    return packets.udp((vm.mac, packets.BROADCAST), (vm.ip, "10.0.0.255"), (1, 9999))


@pytest.fixture
def vms(host: Host) -> list[Vm]:
    """Three ports that may send anything and receive DNS."""
    made = [host.boot(number) for number in (1, 2, 3)]
    dns = group(DNS, *egress_to_anywhere())
    for vm in made:
        host.port(vm, dns)
    host.wire(*made)
    return made


def test_neutrons_own_table_is_left_alone(host: Host, vms: list[Vm]) -> None:
    assert not [entry for entry in host.ofctl.dump() if entry.table == 0]


def test_a_local_port_gets_what_its_rules_allow_and_nobody_else_does(
    host: Host, vms: list[Vm]
) -> None:
    one, two, _ = vms
    assert host.reaches_only(one, two, datagram(one, two))
    assert host.send(one.name, datagram(one, two, 54)) == set()
    assert host.reaches_only(outsider(), two, datagram(outsider(), two))


def test_what_may_leave_is_switched_by_normal(host: Host, vms: list[Vm]) -> None:
    # NORMAL floods what it has not learned, to filtered ports too, as under Neutron.
    assert host.send("vm1", datagram(vms[0], outsider())) == {"vm2", "vm3", UPLINK}
    # An answer to anybody's ARP teaches it.
    heard = packets.arp(
        (outsider().mac, packets.BROADCAST), (outsider().mac, outsider().ip), "1.1.1.1"
    )
    host.send(UPLINK, packets.tagged(heard, 1001))
    assert host.send("vm1", datagram(vms[0], outsider())) == {UPLINK}


def test_broadcast_goes_round_the_rules_of_its_receivers(host: Host, vms: list[Vm]) -> None:
    assert host.send("vm1", broadcast(vms[0])) == {"vm2", "vm3", UPLINK}
    assert host.send(UPLINK, packets.tagged(broadcast(outsider()), 1001)) == {"vm1", "vm2", "vm3"}


def test_broadcast_of_a_port_passes_its_own_egress_rules(host: Host, vms: list[Vm]) -> None:
    host.port(vms[0], group(DNS))
    host.wire(vms[0])
    assert host.send("vm1", broadcast(vms[0])) == set()


def test_frame_with_the_tag_of_a_local_vlan_does_not_pass_for_the_uplinks(
    host: Host, vms: list[Vm]
) -> None:
    one, two, _ = vms
    assert host.send(one.name, packets.tagged(datagram(one, two), 1)) == set()
    host.port(one, port_security_enabled=False)
    host.wire(one)
    assert host.send(one.name, packets.tagged(datagram(one, two), 1)) == set()


def test_packet_that_arrives_tracked_starts_anew(host: Host, vms: list[Vm]) -> None:
    one, two, _ = vms
    in_port = host.switch.ofport(one.name)
    host.ofctl.bundle([f"add table=0,priority=9,ip,in_port={in_port} actions=ct(table=58,zone=77)"])
    assert host.sent(one, two, datagram(one, two))
    assert host.udp(two, one, 40000, sport=53)
    assert not host.sent(one, two, datagram(one, two, 54))
    host.port(one, group(DNS))
    host.wire(one)
    assert not host.sent(one, outsider(), datagram(one, outsider()))


def test_packet_that_arrives_tracked_is_nothing_to_a_stateless_port(
    host: Host, vms: list[Vm]
) -> None:
    one = vms[0]
    host.port(one, group(*egress_to_anywhere(), stateful=False))
    host.wire(one)
    in_port = host.switch.ofport(one.name)
    host.ofctl.bundle([f"add table=0,priority=9,ip,in_port={in_port} actions=ct(table=58,zone=77)"])
    assert host.tcp(one, outsider(), 80, "syn|fin")


class TestPortOfTheNetwork:
    """Trusted: Neutron filters none of them, and NORMAL leads to them."""

    @pytest.fixture
    def dhcp(self, host: Host) -> Vm:
        made = host.boot(7)
        host.port(made, device_owner="network:dhcp")
        host.wire(made)
        return made

    def test_may_say_what_no_vm_may(self, host: Host, dhcp: Vm, vms: list[Vm]) -> None:
        offer = packets.udp((dhcp.mac, vms[0].mac), (dhcp.ip, vms[0].ip), (67, 68))
        assert host.reaches_only(dhcp, vms[0], offer)
        assert host.icmp(dhcp, vms[0], 134, v6=True)
        assert host.udp(dhcp.but(ip="10.0.0.66"), outsider(), 53)

    def test_is_reached_by_what_may_leave(self, host: Host, dhcp: Vm, vms: list[Vm]) -> None:
        assert host.udp(vms[0], dhcp, 53)
        assert host.connect(vms[0], dhcp, 80)
        assert host.udp(outsider(), dhcp, 53)

    def test_is_filtered_by_its_peers_rules(self, host: Host, dhcp: Vm, vms: list[Vm]) -> None:
        assert host.udp(dhcp, vms[0], 53)
        assert not host.udp(dhcp, vms[0], 54)

    def test_has_no_flows_but_its_door(self, host: Host, dhcp: Vm) -> None:
        assert len(host.flows(Kind.PORT)) == 2
        assert not host.flows(Kind.DELIVERY)


class TestUntranslatedSegment:
    """Neutron's distributed routers hand frames on that never got a local VLAN."""

    @pytest.fixture
    def pipeline(self) -> Pipeline:
        return Pipeline(Home.NEUTRON, distributed_routing=True)

    @pytest.fixture
    def router(self, host: Host) -> Vm:
        uplink = host.switch.ofport(UPLINK)
        mac = "fa:16:3f:00:00:01"
        host.ofctl.bundle([
            f"add table=0,priority=5,in_port={uplink},dl_src={mac} actions=resubmit(,58)"
        ])  # fmt: skip
        return outsider().but(mac=mac)

    def test_of_a_vlan_network(self, host: Host, vms: list[Vm], router: Vm) -> None:
        assert host.reaches_only(router, vms[0], datagram(router, vms[0]))
        assert not host.sent(router, vms[0], datagram(router, vms[0], 54))

    def test_of_a_flat_network(self, host: Host, router: Vm) -> None:
        vm = host.boot(4)
        flat = {"id": vm.id, "network_type": "flat", "physical_network": "physnet1"}
        host.port(vm, group(DNS), network=flat)
        host.wire(vm)
        assert host.send(UPLINK, datagram(router, vm)) == {vm.name}
        assert host.send(UPLINK, datagram(router, vm, 54)) == set()

    def test_is_kept_for_a_port_that_a_new_agent_has_not_applied_yet(
        self, host: Host, vms: list[Vm], router: Vm
    ) -> None:
        before = len(host.ofctl.dump())
        host.restart_agent()
        host.wire(vms[1], vms[2])
        host.firewall.sweep({vms[1].id, vms[2].id}, [host.switch.ofport(vms[0].name)])
        assert host.sent(router, vms[0], datagram(router, vms[0]))
        host.wire(vms[0])
        host.firewall.sweep({vm.id for vm in vms})
        assert len(host.ofctl.dump()) == before


def test_number_of_a_segment_is_no_local_vlan(host: Host, vms: list[Vm]) -> None:
    uplink = host.switch.ofport(UPLINK)
    # Local VLAN 1001 is another network's.
    host.ofctl.bundle(
        [f"add table=0,priority=5,in_port={uplink},dl_vlan=1001 actions=resubmit(,58)"]
    )
    packet = packets.tagged(datagram(outsider(), vms[0]), 1001)
    assert host.send(UPLINK, packet) == set()


def test_neighbours_are_looked_for_by_normal_which_learns_from_it(
    host: Host, vms: list[Vm]
) -> None:
    one, two, _ = vms
    assert host.icmp(one, two, 133, v6=True)
    told = packets.arp((one.mac, two.mac), (one.mac, one.ip), two.ip, operation=2)
    assert host.sent(one, two, told)
    assert one.mac in host.switch.appctl("fdb/show", "br-int")


def test_tunnel_network_has_its_local_vlan_only(host: Host) -> None:
    vm = host.boot(4)
    tunnel = {"id": vm.id, "network_type": "vxlan", "segmentation_id": 70000}
    host.port(vm, group(DNS), network=tunnel)
    host.wire(vm)
    uplink = host.switch.ofport(UPLINK)
    host.ofctl.bundle([f"add table=0,priority=5,in_port={uplink},dl_vlan=1 actions=resubmit(,58)"])
    assert host.send(UPLINK, packets.tagged(datagram(outsider(), vm), 1)) == {vm.name}
    assert host.send(UPLINK, packets.tagged(datagram(outsider(), vm, 54), 1)) == set()


def test_same_mac_and_address_on_two_networks(host: Host) -> None:
    host.add_network(2)
    one, other = host.boot(1), host.boot(2, vlan=2).but(mac="fa:16:3e:00:01:01", ip="10.0.0.1")
    host.port(one, group(rule(protocol="udp")))
    host.port(other, group(rule(protocol="tcp")))
    host.wire(one, other)
    assert host.udp(outsider(1), one, 53)
    assert not host.tcp(outsider(1), one, 53)
    assert host.tcp(outsider(2), other, 53)
    assert not host.udp(outsider(2), other, 53)


def test_mac_of_several_ports_reaches_each_by_its_own_rules(host: Host, vms: list[Vm]) -> None:
    one, two, sender = vms
    virtual = one.but(mac="00:00:5e:00:01:07", ip="10.0.0.77")
    pairs = [{"ip_address": "10.0.0.77/32", "mac_address": virtual.mac}]
    host.port(one, group(DNS), allowed_address_pairs=pairs)
    host.port(two, group(), allowed_address_pairs=pairs)
    host.wire(one, two)
    assert host.send(sender.name, datagram(sender, virtual)) == {one.name}
    host.port(two, group(DNS), allowed_address_pairs=pairs)
    host.wire(two)
    assert host.send(sender.name, datagram(sender, virtual)) == {one.name, two.name}


def test_port_moves_to_another_network(host: Host, vms: list[Vm]) -> None:
    host.add_network(2)
    moved = vms[0].but(vlan=2)
    host.switch.vsctl("set", "Port", moved.name, "tag=2")
    host.wire(moved)
    assert host.udp(outsider(2), moved, 53)
    assert not host.udp(outsider(1), vms[0], 53)
    assert not host.udp(vms[1], vms[0], 53)


def test_port_is_replugged_and_has_another_ofport(host: Host, vms: list[Vm]) -> None:
    one, two, _ = vms
    before = len(host.ofctl.dump())
    host.unplug(one.name)
    host.plug("vm7")
    host.switch.vsctl("set", "Port", "vm7", "tag=1")
    again = one.but(name="vm7")
    assert not host.sent(two, again, datagram(two, again))
    host.wire(again)
    assert host.reaches_only(two, again, datagram(two, again))
    assert host.sent(again, outsider(), datagram(again, outsider()))
    assert len(host.ofctl.dump()) == before


def test_port_that_is_administratively_down_sends_nothing(host: Host, vms: list[Vm]) -> None:
    host.port(vms[0], group(*ANY), admin_state_up=False)
    host.wire(vms[0])
    assert host.send("vm1", datagram(vms[0], vms[1])) == set()
    assert host.send("vm1", packets.tagged(datagram(vms[0], vms[1]), 1)) == set()


def test_removed_port_leaves_nothing(host: Host, vms: list[Vm]) -> None:
    before = len(host.ofctl.dump())
    extra = host.boot(4)
    host.port(extra, group(*ANY, members=[extra]))
    host.wire(extra)
    host.firewall.remove([extra.id])
    assert len(host.ofctl.dump()) == before


def test_connection_outlives_a_restart_of_the_agent(host: Host, vms: list[Vm]) -> None:
    assert host.connect(vms[0], outsider(), 443)
    host.restart_agent()
    assert host.tcp(vms[0], outsider(), 443, "ack")
    host.wire(*vms)
    assert host.tcp_reply(outsider(), vms[0], 443, "ack")
    assert not host.tcp(outsider(), vms[0], 443)
