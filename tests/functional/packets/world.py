"""A host under the standalone agent, VMs on it, and machines on the physical network beyond.

The agent gets its desired state as from a server; packets are those of real kernels, and frames
made by hand.
"""

import contextlib
import dataclasses
import itertools
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from agent_flows.openflow.pipeline import Table
from agent_flows.report import FlowName, TaskError
from agent_flows.spec import (
    AddressGroupSpec,
    DesiredState,
    SecurityGroupSpec,
)
from lab import frames, model
from lab.model import HOST, PHYSICAL_NETWORK, Rule, address_group, addresses_of, ip, network
from lab.model import group as group_of
from lab.switch import Switch
from lab.traffic import Transport, Wire
from lab.vm import Vm
from tests.functional.agent.host import Host

BRIDGE, PHYSICAL_BRIDGE = "br-int", "br-ex"
SEGMENT = 100
PERMITTED = 0x88CC
"""LLDP's ethertype, in the agent's option permitted_ethertypes."""
_MARK = struct.Struct("!8sI")
_PADDING = 42  # where ARP ends in a frame of 60 bytes
_SEQUENCE = itertools.count(1)
_COOKIE = re.compile(r"cookie=0x[0-9a-f]+, ")


class World:
    """One network of a VLAN; ``insiders`` are on the host, ``outsider`` is on the VLAN."""

    def __init__(self, switch: Switch, state_dir: Path) -> None:
        self.switch = switch
        self.host = Host(switch, state_dir)
        self.network = network("vlan", segmentation_id=SEGMENT)
        self.server = self.host.server
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.host.close)
        self._numbers = itertools.count(1)
        self._serving: set[tuple[str, str, int]] = set()
        self._wires: dict[str, Wire] = {}
        switch.add_bridge(PHYSICAL_BRIDGE, fail_mode="standalone")
        self.host.mappings = {PHYSICAL_NETWORK: PHYSICAL_BRIDGE}
        self.start_agent()

    def start_agent(self) -> None:
        self.host.start(permitted_ethertypes=[f"{PERMITTED:#06x}"])
        self.host.ready()

    def close(self) -> None:
        self._stack.close()

    # Machines.

    def insider(self, name: str, *addresses: str, mac: str | None = None) -> Vm:
        """A VM that is plugged in; the server has no port of it yet."""
        vm = self._machine(name, addresses, mac)
        self.host.plug_quietly(vm)
        return vm

    def outsider(self, name: str, *, segment: int | None = SEGMENT) -> Vm:
        """A machine on a VLAN of the physical network (None: untagged), without any filter."""
        vm = self._machine(name)
        vm.plug(PHYSICAL_BRIDGE)
        vm.raise_link()
        if segment is not None:
            self.switch.vsctl("set", "Port", vm.tap, f"tag={segment}")
        return vm

    def _machine(self, name: str, addresses: Sequence[str] = (), mac: str | None = None) -> Vm:
        n = next(self._numbers)
        vm = Vm(
            self.switch,
            name,
            mac or f"fa:16:3e:00:00:{n:02x}",
            addresses or [f"10.0.0.{n}/24", f"fd00::{n:x}/64"],
        )
        return self._stack.enter_context(vm)

    # What is desired.

    def want(self, vm: Vm, *groups: SecurityGroupSpec, **fields: object) -> None:
        """State what is desired of ``vm``'s port; :meth:`settle` makes it so."""
        before = self.server.ports.get(vm.port_id)
        self.add(*groups)
        values: dict[str, object] = {
            "id": vm.port_id,
            "revision": before.revision + 1 if before else 1,
            "network": before.network if before else self.network,
            "mac_address": vm.mac,
            "fixed_ips": addresses_of(vm),
            **fields,
        }
        self.server.ports[vm.port_id] = model.port(*groups, **values)

    def add(self, *groups: SecurityGroupSpec | AddressGroupSpec) -> None:
        for each in groups:
            if isinstance(each, AddressGroupSpec):
                self.server.address_groups[each.id] = each
            else:
                self.server.groups[each.id] = each

    def settle(self, *vms: Vm) -> None:
        """Have the ports brought to what is desired and wait until they are."""
        self.host.casts.ports_changed(HOST, [vm.port_id for vm in vms])
        self.wait_settled(*vms)

    def wire(self, vm: Vm, *groups: SecurityGroupSpec, **fields: object) -> None:
        self.want(vm, *groups, **fields)
        self.settle(vm)

    def replace(
        self, group: SecurityGroupSpec, *rules: Rule, members: Iterable[Vm] | None = None
    ) -> None:
        """Other rules for a group that is in use, or with ``members`` other members;
        waits until the agent has applied them."""
        old = self.server.groups[group.id]
        if members is None:
            changed = dataclasses.replace(old, rules=group_of(*rules).rules)
        else:
            changed = dataclasses.replace(old, members=group_of(members=members).members)
        self.server.groups[group.id] = changed
        self._tell_of({group.id})

    def replace_addresses(self, group: AddressGroupSpec, *addresses: str) -> None:
        self.server.address_groups[group.id] = address_group(*addresses, id=group.id)
        self._tell_of({group.id})

    def _tell_of(self, ids: set[str]) -> None:
        risen = {
            each.id
            for each in self.server.groups.values()
            if each.id in ids
            or any({r.remote_group_id, r.remote_address_group_id} & ids for r in each.rules)
        }
        for id_ in risen:
            old = self.server.groups[id_]
            self.server.groups[id_] = dataclasses.replace(old, revision=old.revision + 1)
        self.host.casts.security_groups_changed(HOST, sorted(ids))
        wired = {report.resource_id for report in self.server.reports}
        self._wait(
            [
                port.id
                for port in self.server.ports.values()
                if port.id in wired and risen.intersection(port.security_groups)
            ]
        )

    def refused(self, vm: Vm, *others: Vm) -> TaskError:
        """Have the ports brought to what is desired, in one batch; how the first one fails."""
        before = len(self.server.of(vm.port_id))
        self.host.casts.ports_changed(HOST, [each.port_id for each in (vm, *others)])
        self._wait([each.port_id for each in others])
        self.server.wait_for(lambda: len(self.server.of(vm.port_id)) > before)
        failed = self.server.of(vm.port_id)[before].failed
        assert failed is not None, "it succeeded"
        assert failed.error is not None
        return failed.error

    def wait_settled(self, *vms: Vm) -> None:
        self._wait([vm.port_id for vm in vms])

    def _wait(self, port_ids: Sequence[str]) -> None:
        def settled() -> bool:
            desired = self.server.get_ports()
            return all(self._is_settled(desired, port_id) for port_id in port_ids)

        self.server.wait_for(settled, 20, f"success of {list(port_ids)}")
        # The datapath's cache would follow the tables a moment later.
        self.switch.appctl("revalidator/purge")

    def _is_settled(self, desired: DesiredState, port_id: str) -> bool:
        reports = [r for r in self.server.of(port_id) if r.flow is not FlowName.UNWIRE]
        port = desired.ports[port_id]
        return (
            bool(reports)
            and reports[-1].failed is None
            and reports[-1].revision == port.revision
            and reports[-1].security_group_revisions == model.group_revisions(desired, port)
        )

    # Packets.

    def serve(self, vm: Vm, port: int, protocol: Transport = "tcp") -> None:
        """``vm`` answers there from now on, over IPv4 and IPv6."""
        if (vm.name, protocol, port) not in self._serving:
            vm.listen(port, protocol)
            self._serving.add((vm.name, protocol, port))

    def reaches(
        self,
        source: Vm,
        target: Vm,
        port: int,
        protocol: Transport = "tcp",
        *,
        version: int = 4,
        timeout: float | None = None,
    ) -> bool:
        """Whether ``source``'s kernel gets an answer of ``target``'s, which serves there."""
        self.serve(target, port, protocol)
        return source.reach(ip(target, version), port, protocol, timeout or 0.4) == target.name

    def wire_of(self, vm: Vm) -> Wire:
        if vm.name not in self._wires:
            self._wires[vm.name] = vm.wire()
        return self._wires[vm.name]

    def passes(self, source: Vm, target: Vm, frame: bytes) -> bool:
        """Whether ``frame`` sent by ``source`` arrives at ``target`` as it is.

        What has not arrived when two questions by ARP have, sent one after the other, was
        dropped: within one batch of frames the switch may change the order.
        """
        return self.receivers(source, [target], frame) == {target.name}

    def receivers(self, source: Vm, targets: list[Vm], frame: bytes) -> set[str]:
        """The names of those of ``targets`` where it arrives."""
        for target in targets:
            self.wire_of(target).take()
        self.wire_of(source).send(frame)
        for target in targets * 2:
            self._mark(source, target)
        return {
            target.name
            for target in targets
            if self.wire_of(target).arrived(lambda seen: seen[: len(frame)] == frame)
        }

    def _mark(self, source: Vm, target: Vm) -> None:
        """Until an ARP request of ``source`` has arrived at ``target``."""
        mark = _MARK.pack(b"af-mark.", next(_SEQUENCE))
        asked = frames.arp_request(source.mac, (source.mac, ip(source)), ip(target))
        self.wire_of(source).send(frames.mac_bytes(target.mac) + asked[6:_PADDING] + mark)
        arrived = self.wire_of(target).wait_for(mark, 10)
        assert arrived, f"no ARP of {source.name} reaches {target.name}"

    def udp_passes(
        self, source: Vm, target: Vm, port: int, *, version: int = 4, source_port: int | None = None
    ) -> bool:
        """A datagram of a new connection."""
        number = next(_SEQUENCE)
        ports = (source_port or 20000 + number % 40000, port)
        ends = _macs(source, target), _ips(source, target, version)
        return self.passes(source, target, frames.udp(*ends, ports, b"datagram %d" % number))

    def syn_passes(self, source: Vm, target: Vm, port: int, *, version: int = 4) -> bool:
        """The first segment of a new connection."""
        number = next(_SEQUENCE)
        ports = (20000 + number % 40000, port)
        ends = _macs(source, target), _ips(source, target, version)
        return self.passes(source, target, frames.tcp(*ends, ports, frames.SYN, (number, 0)))

    # What is in the switch.

    def flows(self) -> list[str]:
        """Every flow of the integration bridge: what it matches and does, not whose it is."""
        return sorted(_COOKIE.sub("", line) for line in self.switch.flows(BRIDGE))

    def flows_of(self, vm: Vm) -> list[str]:
        """Those for one port alone."""
        ofport = self.switch.ofport(vm.tap)
        return sorted(_COOKIE.sub("", line) for line in self.host.port_flows(ofport))

    @contextlib.contextmanager
    def room_for(self, more: int) -> Iterator[None]:
        """The switch takes only so many more flows in the table of ingress rules."""
        count = len(self.switch.flows(BRIDGE, f"table={Table.RULES_INGRESS:d}"))
        self.switch.set_flow_limit(BRIDGE, Table.RULES_INGRESS, count + more)
        try:
            yield
        finally:
            self.switch.lift_flow_limit(BRIDGE, Table.RULES_INGRESS)

    def conntrack(self) -> list[str]:
        """The switch's own table of connections, one a line."""
        return self.switch.appctl("dpctl/dump-conntrack").splitlines()


def _macs(source: Vm, target: Vm) -> tuple[str, str]:
    return source.mac, target.mac


def _ips(source: Vm, target: Vm, version: int) -> tuple[str, str]:
    return ip(source, version), ip(target, version)
