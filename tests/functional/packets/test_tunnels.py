"""Tunnels: on the integration bridge of Neutron's agent, whose tunnel bridge hands over
what has come through VXLAN from a kernel on another host."""

from collections.abc import Iterator

import pytest

from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import (
    DesiredState,
    PortSpec,
    SecurityGroupSpec,
)
from lab import frames, model, tunnel
from lab.model import addresses_of, everything, group, ip, network, rule
from lab.switch import Switch
from lab.traffic import Wire
from lab.tunnel import FarVm
from lab.vm import Vm, plug
from tests.functional.packets.bridge import prepare
from tests.functional.packets.world import BRIDGE

LOCAL_VLAN, VNI = 1, 77
NETWORK = network("vxlan", segmentation_id=VNI)


class TunnelledHost:
    """Two VMs of a network that reaches ``far`` through a tunnel."""

    def __init__(self, switch: Switch, vms: list[Vm], far: FarVm) -> None:
        self.switch, self.vms, self.far = switch, vms, far
        ofctl = prepare(switch, BRIDGE, Home.NEUTRON, [vm.tap for vm in vms], LOCAL_VLAN)
        self.firewall = Firewall(ofctl, Pipeline(Home.NEUTRON))
        self.firewall.start()
        self._ports: dict[str, PortSpec] = {}
        self._groups: dict[str, SecurityGroupSpec] = {}
        self._wires: dict[str, Wire] = {}
        self._connect_bridges()

    def _connect_bridges(self) -> None:
        """As Neutron's agent and its br-tun do for one network."""
        words: list[str] = []
        for bridge, name, peer in (
            (BRIDGE, "patch-tun", "patch-int"), (tunnel.BRIDGE, "patch-int", "patch-tun"),
        ):  # fmt: skip
            words += ["--", "add-port", bridge, name, "--", "set", "Interface", name]
            words += ["type=patch", f"options:peer={peer}"]
        self.switch.vsctl(*words)
        inside, outside = (self.switch.ofport(each) for each in ("patch-int", tunnel.PORT))
        self.switch.bundle(
            tunnel.BRIDGE,
            f"in_port={inside},dl_vlan={LOCAL_VLAN} "
            f"actions=strip_vlan,set_field:{VNI}->tun_id,output:{outside}",
            f"in_port={outside},tun_id={VNI} actions=push_vlan:0x8100,"
            f"set_field:{0x1000 | LOCAL_VLAN}->vlan_vid,output:{inside}",
        )

    def wire(self, vm: Vm, *groups: SecurityGroupSpec) -> None:
        self._groups |= {each.id: each for each in groups}
        self._ports[vm.port_id] = model.port(
            *groups,
            id=vm.port_id,
            network=NETWORK,
            mac_address=vm.mac,
            fixed_ips=addresses_of(vm),
        )
        attachment = Attachment(vm.port_id, self.switch.ofport(vm.tap), LOCAL_VLAN)
        self.firewall.apply(DesiredState(self._ports, self._groups), {vm.port_id: attachment})
        self.firewall.verify([vm.port_id])
        self.firewall.commit([vm.port_id])
        self.switch.appctl("revalidator/purge")

    def wire_of(self, machine: Vm | FarVm) -> Wire:
        if machine.name not in self._wires:
            self._wires[machine.name] = machine.wire()
        return self._wires[machine.name]


@pytest.fixture(scope="module")
def host() -> Iterator[TunnelledHost]:
    far_addresses = "10.0.0.99/24", "fd00::99/64"
    with Switch() as switch:
        switch.add_bridge(BRIDGE)
        with (
            Vm(switch, "sender", "fa:16:3e:00:00:01", ["10.0.0.1/24", "fd00::1/64"]) as sender,
            Vm(switch, "guarded", "fa:16:3e:00:00:02", ["10.0.0.2/24", "fd00::2/64"]) as guarded,
            FarVm(switch, "far", VNI, "fa:16:3e:00:00:99", *far_addresses) as far,
        ):
            plug(switch, [sender, guarded])
            for vm in (sender, guarded):
                vm.raise_link()
                vm.listen(80)
                vm.listen(81)
            far.listen(80)
            far.listen(81)
            yield TunnelledHost(switch, [sender, guarded], far)


@pytest.mark.parametrize("version", [4, 6])
def test_rules_decide_about_what_comes_through_a_tunnel(host: TunnelledHost, version: int) -> None:
    sender, _ = host.vms
    host.wire(sender, group(rule(protocol="tcp", port=80, ethertype=f"IPv{version}")))
    with host.far.open(ip(sender, version), 80) as connection:
        assert connection.ask() == "sender"
    with pytest.raises(TimeoutError):
        host.far.open(ip(sender, version), 81, timeout=0.3)
    with pytest.raises(TimeoutError):
        host.far.open(ip(sender, 10 - version), 80, timeout=0.3)


def test_rules_decide_about_what_leaves_through_a_tunnel(host: TunnelledHost) -> None:
    sender, _ = host.vms
    host.wire(sender, group(rule("egress", protocol="tcp", port=80)))
    assert sender.reach(host.far.ip, 80) == "far"
    assert sender.reach(host.far.ip, 81, timeout=0.3) is None


def test_a_member_at_the_other_end_is_let_in_until_it_leaves(host: TunnelledHost) -> None:
    sender, guarded = host.vms
    web = group(members=[host.far.ip])
    rules = group(rule(protocol="tcp", remote_group_id=web.id))
    host.wire(guarded, group(*everything("egress")))
    host.wire(sender, rules, web)
    connection = host.far.open(sender.ip, 80)
    assert connection.ask() == "sender"
    assert guarded.reach(sender.ip, 80, timeout=0.3) is None
    host.wire(sender, group(id=web.id, revision=2), group(
        rule(protocol="tcp", remote_group_id=web.id), id=rules.id, revision=2))  # fmt: skip
    assert connection.ask(timeout=0.4) is None


def test_ports_of_one_host_and_of_two_meet_in_one_network(host: TunnelledHost) -> None:
    sender, guarded = host.vms
    host.wire(sender, group(rule(protocol="tcp", port=80), *everything("egress")))
    host.wire(guarded, group(rule(protocol="tcp", port=81), *everything("egress")))
    assert guarded.reach(sender.ip, 80) == "sender"
    assert guarded.reach(sender.ip, 81, timeout=0.3) is None
    assert sender.reach(guarded.ip, 81) == "guarded"
    assert sender.reach(host.far.ip, 80) == "far"
    with host.far.open(guarded.ip, 81) as connection:
        assert connection.ask() == "guarded"


def test_a_forged_sender_does_not_get_into_the_tunnel(host: TunnelledHost) -> None:
    sender, _ = host.vms
    host.wire(sender, group(*everything("egress")))
    seen = host.wire_of(host.far)
    ends = (sender.mac, host.far.mac), ("10.0.0.166", host.far.ip)
    host.wire_of(sender).send(frames.udp(*ends, (1, 53), b"forged"))
    ends = (sender.mac, host.far.mac), (sender.ip, host.far.ip)
    host.wire_of(sender).send(frames.udp(*ends, (1, 53), b"honest"))
    assert seen.wait_for(b"honest")
    assert not seen.arrived(b"forged")


def test_another_network_of_the_same_tunnel_is_another_network(host: TunnelledHost) -> None:
    sender, _ = host.vms
    host.wire(sender, group(*everything("ingress")))
    host.far.namespace.ip(
        "link", "add", "other", "type", "vxlan", "id", str(VNI + 1),
        "remote", "172.31.0.1", "dstport", "4789", "dev", "eth0",
    )  # fmt: skip
    host.far.namespace.ip("link", "set", "other", "up")
    with Wire(host.far.namespace, "other") as other:
        ends = (host.far.mac, sender.mac), (host.far.ip, sender.ip)
        other.send(frames.udp(*ends, (1, 53), b"of another VNI"))
        seen = host.wire_of(sender)
        host.wire_of(host.far).send(frames.udp(*ends, (1, 54), b"of ours"))
        assert seen.wait_for(b"of ours")
        assert not seen.arrived(b"of another VNI")
