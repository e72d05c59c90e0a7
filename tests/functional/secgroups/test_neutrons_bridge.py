"""Ports on Neutron's bridge: how their packets enter and leave the flows of Neutron's agent."""

import pytest

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


@pytest.fixture
def vms(host: Host) -> list[Vm]:
    """Three ports that may send anything and receive DNS."""
    made = [host.boot(number) for number in (1, 2, 3)]
    dns = group(DNS, *egress_to_anywhere())
    for vm in made:
        host.port(vm, dns)
    host.wire(*made)
    return made


def test_what_may_leave_is_switched_by_normal(host: Host, vms: list[Vm]) -> None:
    # NORMAL floods what it has not learned, to filtered ports too, as under Neutron.
    assert host.send("vm1", datagram(vms[0], outsider())) == {"vm2", "vm3", UPLINK}
    # An answer to anybody's ARP teaches it.
    question = packets.arp(
        (outsider().mac, packets.BROADCAST), (outsider().mac, outsider().ip), "1.1.1.1"
    )
    host.send(UPLINK, packets.tagged(question, 1001))
    assert host.send("vm1", datagram(vms[0], outsider())) == {UPLINK}


def test_connection_of_another_zone_does_not_count(host: Host, vms: list[Vm]) -> None:
    one, two, _ = vms
    in_port = host.switch.ofport(one.name)
    host.ofctl.bundle([f"add table=0,priority=9,ip,in_port={in_port} actions=ct(table=58,zone=77)"])
    assert host.sent(one, two, datagram(one, two))
    assert host.udp(two, one, 40000, sport=53)
    assert not host.sent(one, two, datagram(one, two, 54))
    host.port(one, group(DNS))
    host.wire(one)
    assert not host.sent(one, outsider(), datagram(one, outsider()))


def test_stateless_port_ignores_the_state_of_another_zone(host: Host, vms: list[Vm]) -> None:
    one = vms[0]
    host.port(one, group(*egress_to_anywhere(), stateful=False))
    host.wire(one)
    in_port = host.switch.ofport(one.name)
    host.ofctl.bundle([f"add table=0,priority=9,ip,in_port={in_port} actions=ct(table=58,zone=77)"])
    assert host.tcp(one, outsider(), 80, "syn|fin")


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


def test_neighbour_discovery_goes_by_normal_which_learns_from_it(host: Host, vms: list[Vm]) -> None:
    one, two, _ = vms
    assert host.icmp(one, two, 133, v6=True)
    answer = packets.arp((one.mac, two.mac), (one.mac, one.ip), two.ip, operation=2)
    assert host.sent(one, two, answer)
    assert one.mac in host.switch.appctl("fdb/show", "br-int")


def test_moved_port_is_on_its_new_network_alone(host: Host, vms: list[Vm]) -> None:
    host.add_network(2)
    moved = vms[0].but(vlan=2)
    host.switch.vsctl("set", "Port", moved.name, "tag=2")
    host.wire(moved)
    assert host.udp(outsider(2), moved, 53)
    assert not host.udp(outsider(1), vms[0], 53)
    assert not host.udp(vms[1], vms[0], 53)


def test_replugged_port_has_its_rules_on_its_new_ofport(host: Host, vms: list[Vm]) -> None:
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


def test_port_that_is_down_sends_nothing(host: Host, vms: list[Vm]) -> None:
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


def test_connection_survives_a_restart_of_the_agent(host: Host, vms: list[Vm]) -> None:
    assert host.connect(vms[0], outsider(), 443)
    host.restart_agent()
    assert host.tcp(vms[0], outsider(), 443, "ack")
    host.wire(*vms)
    assert host.tcp_reply(outsider(), vms[0], 443, "ack")
    assert not host.tcp(outsider(), vms[0], 443)
