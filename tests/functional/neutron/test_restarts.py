"""Restarts of the agent and of Open vSwitch; ports in quarantine until they are verified."""

from agent_flows.neutron.agent.quarantine import Endpoint
from tests.functional.neutron.cloud import Cloud
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BRIDGE, Vm, outsider


def closed(cloud: Cloud, vm: Vm, *macs: str) -> Endpoint:
    return Endpoint(vm.id, cloud.switch.ofport(vm.name), vm.vlan, frozenset({vm.mac, *macs}))


class TestOfTheAgent:
    def test_wired_ports_are_never_closed_nor_cut(self, cloud: Cloud, group: str) -> None:
        a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
        cloud.wire_ports(a, b)
        assert cloud.connect(a, b, 80)
        cloud.stop_agent()
        cloud.start_agent()
        assert cloud.tcp(a, b, 80, "ack")
        cloud.driver.quarantine([closed(cloud, a), closed(cloud, b)])
        assert cloud.tcp(a, b, 80, "ack")
        cloud.wire_ports(a, b)
        assert cloud.tcp(a, b, 80, "ack")
        assert cloud.connect(a, b, 80, sport=40001)
        assert not cloud.tcp(a, b, 81)

    def test_flows_of_ports_unplugged_before_it_are_swept(self, cloud: Cloud, group: str) -> None:
        a, gone, waiting = (
            cloud.boot_port(1, group),
            cloud.boot_port(2, group),
            cloud.boot_port(3, group),
        )
        cloud.wire_ports(a, gone, waiting)
        ofport = cloud.switch.ofport(gone.name)
        cloud.stop_agent()
        cloud.unplug(gone.name)
        cloud.start_agent()
        cloud.gone(gone)
        cloud.wire_ports(a)
        assert not any(flow.number("in_port") == ofport for flow in cloud.ofctl.dump())
        assert cloud.tcp(a, waiting, 80), "the agent has not come to this one yet"

    def test_a_port_that_was_never_verified_is_still_in_quarantine(
        self, cloud: Cloud, group: str
    ) -> None:
        a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
        cloud.wire_ports(a)
        cloud.bind(b)
        cloud.driver.quarantine([closed(cloud, b)])
        cloud.stop_agent()
        cloud.start_agent()
        assert not cloud.tcp(b, a, 80)
        cloud.wire_ports(b)
        assert cloud.tcp(b, a, 80)


class TestOfOpenVswitch:
    def test_every_port_is_put_back(self, cloud: Cloud, group: str) -> None:
        a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
        cloud.wire_ports(a, b)
        with cloud.switch_stopped():
            pass
        cloud.sees(a, b)
        cloud.recover()
        assert cloud.connect(a, b, 80)
        assert not cloud.tcp(a, b, 81)
        assert not cloud.tcp(outsider(), b, 81)

    def test_a_port_that_was_closed_is_closed_again(self, cloud: Cloud, group: str) -> None:
        a, unbound = cloud.boot_port(1, group), cloud.boot_port(2, group)
        cloud.sees(unbound)
        cloud.wire_ports(a)
        cloud.sg_agent.setup_port_filters({unbound.id}, set())
        assert cloud.error(unbound).type == "NoTag"
        with cloud.switch_stopped():
            pass
        cloud.sees(a, unbound)
        cloud.recover()
        assert not cloud.tcp(unbound, a, 80)


class TestQuarantine:
    """As an extension uses it, which sees a port before its filters are applied."""

    def test_a_port_in_quarantine_sends_and_gets_nothing(self, cloud: Cloud, group: str) -> None:
        a, new = cloud.boot_port(1, group), cloud.boot_port(2, group)
        cloud.wire_ports(a)
        cloud.bind(new)
        assert cloud.tcp(outsider(), new, 81), "as Neutron leaves it"
        cloud.driver.quarantine([closed(cloud, new)])
        for way in ((new, a), (a, new), (new, outsider()), (outsider(), new)):
            assert not cloud.tcp(*way, 80)
            assert not cloud.tcp(*way, 81)
        arp = packets.arp((a.mac, new.mac), (a.mac, a.ip), new.ip)
        assert not cloud.sent(a, new, arp)
        cloud.wire_ports(new)
        assert cloud.connect(a, new, 80)

    def test_it_costs_one_bundle_for_any_number_of_ports(self, cloud: Cloud, group: str) -> None:
        vms = [cloud.boot_port(number, group) for number in (1, 2, 3)]
        cloud.bind(*vms)
        cloud.bundles()
        cloud.driver.quarantine([closed(cloud, vm) for vm in vms])
        assert cloud.bundles() == 1

    def test_a_mac_that_a_wired_port_shares_stays_reachable(self, cloud: Cloud, group: str) -> None:
        shared = "fa:16:3e:00:01:aa"
        pairs = [(shared, "192.0.2.5/32")]
        a, new = cloud.boot_port(1, group, pairs=pairs), cloud.boot_port(2, group, pairs=pairs)
        cloud.wire_ports(a)
        cloud.bind(new)
        cloud.driver.quarantine([closed(cloud, new, shared)])
        assert "vm1" in cloud.send(
            "uplink",
            packets.tagged(
                packets.tcp((outsider().mac, shared), (outsider().ip, "192.0.2.5"), (1, 80), "syn"),
                1001,
            ),
        )

    def test_a_port_that_is_removed_leaves_none_behind(self, cloud: Cloud, group: str) -> None:
        a, new = cloud.boot_port(1, group), cloud.boot_port(2, group)
        cloud.wire_ports(a)
        before = len(cloud.switch.flows(BRIDGE))
        cloud.sees(new)
        cloud.driver.quarantine([closed(cloud, new)])
        cloud.sg_agent.setup_port_filters({new.id}, set())
        assert len(cloud.switch.flows(BRIDGE)) > before
        cloud.remove(new)
        assert len(cloud.switch.flows(BRIDGE)) == before
