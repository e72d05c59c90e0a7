"""A dummy switch with ports as VMs and an uplink: packets go in, and it is seen who gets them.

Conntrack, conjunctions and bundles are the real ones of ovs-vswitchd; only the
wires are not there. The bridge is ours, or, with a pipeline for it, as
Neutron's agent sets up br-int.
"""

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent_flows import spec
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.flow import Action, Flow
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.pipeline import OWN_PIPELINE, Home, Pipeline, Register, Table
from agent_flows.openflow.priorities import LocalSwitching, Transient, Uplink
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import DesiredState, PortSpec, SecurityGroupSpec
from lab import model
from lab.model import new_id, numbered_id
from lab.switch import Switch
from tests.functional.secgroups import packets

BOTH_HOMES = pytest.mark.parametrize(
    "pipeline", [Pipeline(each) for each in Home], ids=[each.value for each in Home]
)
"""Marks tests of what holds on our own bridge and on Neutron's alike."""

BRIDGE = "br-int"
UPLINK = "uplink"
_PCAP_HEADER = 24
_SERIAL = itertools.count(1)


@dataclass(frozen=True)
class Vm:
    """A port's addresses; ``mac`` and ``ip`` may be changed to spoof."""

    name: str
    mac: str
    ip: str
    ip6: str
    vlan: int = 1
    id: str = field(default_factory=new_id)

    @property
    def addresses(self) -> tuple[str, str]:
        return self.ip, self.ip6

    def but(self, **changes: object) -> "Vm":
        return replace(self, **changes)  # type: ignore[arg-type]


def outsider(vlan: int = 1) -> Vm:
    """Somebody behind the uplink."""
    return Vm(UPLINK, "0e:00:00:00:00:99", "203.0.113.99", "2001:db8:99::99", vlan)


# Neutron's native/br_int.py, setup_default_table: what its agent has there before any port.
NEUTRONS_FLOWS = (
    "table=0,priority=65535,dl_vlan=4095 actions=drop",
    "table=0,priority=0 actions=resubmit(,58)",
    "table=58,priority=0 actions=resubmit(,59)",
    "table=59,priority=0 actions=resubmit(,60)",
    "table=60,priority=1 actions=NORMAL",
)


class Host:
    """The switch, its firewall, and what is desired of it."""

    def __init__(
        self, switch: Switch, timeout: int = 30, pipeline: Pipeline = OWN_PIPELINE
    ) -> None:
        self.switch = switch
        self.pipeline = pipeline
        self.ofctl = Ofctl(str(switch.run_dir), BRIDGE, timeout)
        self.firewall = Firewall(self.ofctl, pipeline)
        self.specs: dict[str, spec.Spec] = {}
        self._vms: dict[str, Vm] = {}
        self._captures: dict[str, Path] = {}
        self.plug(UPLINK)
        if pipeline.home is Home.NEUTRON:
            self.ofctl.bundle([f"add {line}" for line in NEUTRONS_FLOWS])
        self.firewall.start()
        self.add_network(1)

    # The wiring, as l2 would do it.

    def plug(self, name: str) -> int:
        capture = self.switch.run_dir / f"{name}-{next(_SERIAL)}.pcap"
        self.switch.vsctl(
            "add-port", BRIDGE, name, "--", "set", "Interface", name, "type=dummy",
            f"options:tx_pcap={capture}",
        )  # fmt: skip
        self._captures[name] = capture
        return self.switch.ofport(name)

    def unplug(self, name: str) -> None:
        self.switch.vsctl("del-port", BRIDGE, name)

    def add_network(self, vlan: int) -> None:
        """A network whose segment's tag is the local VLAN's number plus 1000."""
        uplink = self.switch.ofport(UPLINK)
        if self.pipeline.home is Home.NEUTRON:
            self.ofctl.bundle([
                f"add table=0,priority=3,in_port={uplink},dl_vlan={vlan + 1000} "
                f"actions=mod_vlan_vid:{vlan},resubmit(,58)"
            ])  # fmt: skip
            return
        tag = Action(f"set_field:{0x1000 | vlan}->vlan_vid")
        out = Action(f"set_field:{0x1000 | (vlan + 1000)}->vlan_vid")
        network = flow.load(Register.NETWORK, vlan)
        flows = [
            Flow(Table.LOCAL_SWITCHING, LocalSwitching.SENDER,
                 (flow.in_port(uplink), flow.vlan(vlan + 1000)), (tag, flow.to(Table.TRANSIENT))),
            Flow(Table.TRANSIENT, Transient.DELIVERY, (flow.vlan(vlan), flow.MULTICAST),
                 (flow.STRIP_VLAN, network, flow.to(Table.FLOOD))),
            Flow(Table.UPLINK, Uplink.NETWORK, (flow.register(Register.NETWORK, vlan),),
                 (Action("push_vlan:0x8100"), out, flow.output(uplink))),
        ]  # fmt: skip
        self.ofctl.bundle([flow.add(str(each), cookie.network(vlan)) for each in flows])

    def boot(self, number: int, *, vlan: int = 1) -> Vm:
        """Plug in a VM's interface; nothing is programmed for it yet."""
        name = f"vm{number}"
        self.plug(name)
        if self.pipeline.home is Home.NEUTRON:
            self.switch.vsctl("set", "Port", name, f"tag={vlan}")
        vm = Vm(name, f"fa:16:3e:00:{vlan:02x}:{number:02x}", f"10.0.0.{number}",
                f"2001:db8::{number:x}", vlan)  # fmt: skip
        self._vms[name] = vm
        return vm

    # What is desired, and doing it.

    def port(self, vm: Vm, *groups: SecurityGroupSpec, **fields: object) -> PortSpec:
        """State what is desired of ``vm``'s port."""
        net = model.network("vlan", id=numbered_id(3, vm.vlan), segmentation_id=vm.vlan + 1000)
        values = {"network": net, "mac_address": vm.mac, "fixed_ips": vm.addresses, **fields}
        made = model.port(*groups, id=vm.id, **values)
        self.add(made, *groups)
        return made

    def add(self, *specs: spec.Spec) -> None:
        self.specs |= {each.id: each for each in specs}

    @property
    def desired(self) -> DesiredState:
        return DesiredState.of(self.specs.values())

    def attachments(self, *vms: Vm) -> dict[str, Attachment]:
        return {vm.id: Attachment(vm.id, self.switch.ofport(vm.name), vm.vlan) for vm in vms}

    def apply(self, *vms: Vm) -> None:
        """Apply what is desired of ``vms`` and have it read back; not committed yet."""
        self.firewall.apply(self.desired, self.attachments(*vms))
        self.firewall.verify([vm.id for vm in vms])

    def wire(self, *vms: Vm) -> None:
        """A flow that succeeds."""
        self.apply(*vms)
        self.firewall.commit([vm.id for vm in vms])

    def restart_agent(self) -> None:
        """A new process: it knows only what is in the switch."""
        self.firewall = Firewall(self.ofctl, self.pipeline)
        self.firewall.start()

    # Packets.

    def send(self, source: str, packet: str) -> set[str]:
        """Put ``packet`` in at port ``source``; the names of the ports it came out of."""
        return self._received(source, f"in_port({self.switch.ofport(source)}),{packet}")

    def send_frame(self, source: str, frame: bytes) -> set[str]:
        """As :meth:`send`, a frame byte by byte."""
        return self._received(source, frame.hex())

    def _received(self, source: str, packet: str) -> set[str]:
        # The datapath's cache follows the tables only when a revalidator has had its turn: on a
        # busy machine a packet would meet what was decided about an earlier one like it.
        self.switch.appctl("revalidator/purge")
        before = self._captured()
        self.switch.appctl("netdev-dummy/receive", source, packet)
        # Each command is served in a turn of the main loop, after the packets before it.
        self.switch.appctl("version")
        return {name for name, size in self._captured().items() if size > before[name]}

    def _captured(self) -> dict[str, int]:
        return {
            name: capture.stat().st_size if capture.exists() else _PCAP_HEADER
            for name, capture in self._captures.items()
        }

    def captured(self, name: str) -> int:
        """Bytes of what came out of a port so far, as its capture file counts them."""
        return self._captured()[name]

    def sent(self, source: Vm, destination: Vm, packet: str) -> bool:
        """Whether ``destination`` got ``packet``; to and from the uplink it is tagged."""
        if source.name == UPLINK:
            packet = packets.tagged(packet, source.vlan + 1000)
        return destination.name in self.send(source.name, packet)

    def reaches_only(self, source: Vm, destination: Vm, packet: str) -> bool:
        """Whether ``destination`` got ``packet`` and no other port did."""
        if source.name == UPLINK:
            packet = packets.tagged(packet, source.vlan + 1000)
        return self.send(source.name, packet) == {destination.name}

    def tcp(
        self, source: Vm, destination: Vm, port: int, flags: str = "syn", sport: int = 40000
    ) -> bool:
        macs, ips = (source.mac, destination.mac), (source.ip, destination.ip)
        return self.sent(source, destination, packets.tcp(macs, ips, (sport, port), flags))

    def tcp_reply(
        self, server: Vm, client: Vm, port: int, flags: str = "syn|ack", dport: int = 40000
    ) -> bool:
        return self.sent(server, client, packets.tcp(
            (server.mac, client.mac), (server.ip, client.ip), (port, dport), flags))  # fmt: skip

    def connect(self, client: Vm, server: Vm, port: int, sport: int = 40000) -> bool:
        """A TCP handshake."""
        return (
            self.tcp(client, server, port, "syn", sport)
            and self.tcp_reply(server, client, port, "syn|ack", sport)
            and self.tcp(client, server, port, "ack", sport)
        )

    def udp(
        self, source: Vm, destination: Vm, port: int, *, v6: bool = False, sport: int = 40000
    ) -> bool:
        addresses = (source.ip6, destination.ip6) if v6 else (source.ip, destination.ip)
        return self.sent(source, destination, packets.udp(
            (source.mac, destination.mac), addresses, (sport, port)))  # fmt: skip

    def icmp(
        self, source: Vm, destination: Vm, type_: int, code: int = 0, *, v6: bool = False
    ) -> bool:
        addresses = (source.ip6, destination.ip6) if v6 else (source.ip, destination.ip)
        return self.sent(source, destination, packets.icmp(
            (source.mac, destination.mac), addresses, type_, code))  # fmt: skip

    def flows(self, kind: cookie.Kind) -> list[FlowEntry]:
        return self.ofctl.dump(cookie.OWNER << 48 | kind << 40, 0xFFFF_FF00_0000_0000)
