"""Looks at a port on this host: in OVSDB, in the kernel, and in the switch. Changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.l2 import drift, interfaces, links
from agent_flows.l2.bindings import Binding, Bindings
from agent_flows.l2.bridges import Bridges, Uplink
from agent_flows.l2.drift import Seen
from agent_flows.l2.interfaces import Interface
from agent_flows.l2.links import Link
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.l2.tasks import linkless
from agent_flows.l2.vlans import VlanRecords
from agent_flows.openflow import flow
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.pipeline import Home, Pipeline, Register, Table
from agent_flows.openflow.trace import Tracer
from agent_flows.secgroups.difference import Line
from agent_flows.spec import DesiredState, Direction, NetworkSpec, PortSpec
from agent_flows.verification import comparison, packets
from agent_flows.verification.comparison import Subject
from agent_flows.verification.packets import Packet


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: ``what`` it is, and what it is like, in one line."""

    is_right: bool
    what: str
    found: str


class Host:
    """The host whose agent has these options."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        ours = conf[options.AGENT]
        self.name: str = ours.host
        self._bridge: str = ours.integration_bridge
        self._run_dir: str = ours.ovs_run_dir
        self._timeout: int = ours.openflow_timeout
        self._ovsdb = Ovsdb(ours.ovsdb_connection, ours.ovsdb_timeout, options.ovsdb_tls(ours))
        self._bridges = Bridges(self._ovsdb, self._bridge, ours.datapath_type, ours.bridge_mappings)
        self._pipeline = Pipeline(Home.OWN, frozenset(ours.permitted_ethertypes))

    def __enter__(self) -> Self:
        """Raises :class:`agent_flows.l2.ovsdb.OvsdbUnreachable`."""
        self._ovsdb.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ovsdb.stop()

    def checks(self, port: PortSpec, desired: DesiredState) -> list[Check]:
        """What this host has of the port.

        Raises :class:`.comparison.CannotCompile`, :class:`SwitchError`, :class:`Timeout` and
        :class:`TaskFailed`.
        """
        interface = interfaces.find(self._ovsdb, self._bridge, [port.id]).get(port.id)
        found = {} if interface is None else {port.id: interface}
        errors = interfaces.missing([port.id], found)
        if interface is None or interface.ofport is None:
            return [Check(False, "interface", errors[port.id].message)]
        where = f"{interface.name} on {self._bridge}, ofport {interface.ofport}"
        checks = [Check(True, "interface", f"{where}, iface-id {port.id}")]
        vlan = VlanRecords(self._ovsdb, self._bridge).recorded().get(port.network.id)
        if vlan is None:
            line = f"{self._bridge} has no record of a local VLAN for network {port.network.id}"
            return [*checks, Check(False, "network", line)]
        uplink = self._uplink(port.network)
        if port.network.physical_network is not None and uplink is None:
            line = f"{self._bridge} is not joined to physical network "
            checks.append(Check(False, "network", line + port.network.physical_network))
        checks.append(self._wiring(interface, vlan, port.network))
        subject = Subject(
            port,
            desired,
            interfaces.attach(interface, vlan),
            uplink,
            self._pipeline,
            self._ofctl(self._bridge).dump(),
        )
        checks += self._flows(subject)
        if uplink is not None:
            checks += self._flows_outside(subject, uplink)
        return checks + [self._traced(each, subject) for each in packets.of_port(port, desired)]

    def _uplink(self, network: NetworkSpec) -> Uplink | None:
        if network.physical_network is None:
            return None
        return self._bridges.current_uplink(network.physical_network)

    def _ofctl(self, bridge: str) -> Ofctl:
        return Ofctl(self._run_dir, bridge, self._timeout)

    def _wiring(self, interface: Interface, vlan: int, network: NetworkSpec) -> Check:
        row = Bindings(self._ovsdb).carried([interface.name])[interface.name]
        without_link = linkless([interface])
        link = None
        if not without_link:
            link = links.verify_links([Link(interface.name, network.mtu)]).get(interface.name)
        blocked = self._ofctl(self._bridge).blocked().get(interface.ofport or 0, ())
        seen = Seen(interface, row.tag, row.other_config, link, blocked)
        wrong = drift.of_port(interface, Binding(interface.name, vlan, network), seen)
        if wrong is not None:
            return Check(False, "wiring", wrong.error.message)
        state = without_link.get(interface.port_id, f"link up, MTU {network.mtu}")
        return Check(True, "wiring", f"tag {vlan}, the local VLAN of {network.id}; {state}")

    def _flows(self, subject: Subject) -> list[Check]:
        ofctl = self._ofctl(self._bridge)
        wanted = comparison.expected(subject)
        found = ofctl.differences(wanted.lines)
        if wanted.numbers:
            wanted = comparison.expected(subject, comparison.numbers(wanted, found))
            found = ofctl.differences(wanted.lines)
        uplinks = {each.ofport for each in self._uplinks()}
        lines = comparison.concerning(subject, wanted, found, uplinks)
        shared = len(wanted.lines) - wanted.own
        all_ = f"{wanted.own} of its own and {shared} shared ones on {self._bridge}"
        return _compared(lines, all_)

    def _uplinks(self) -> Iterator[Uplink]:
        for name in self._bridges.mappings:
            uplink = self._bridges.current_uplink(name)
            if uplink is not None:
                yield uplink

    def _flows_outside(self, subject: Subject, uplink: Uplink) -> list[Check]:
        wanted = comparison.outside(subject, uplink)
        found = self._ofctl(uplink.bridge).differences(wanted)
        lines = comparison.concerning_outside(subject, found)
        return _compared(list(lines), f"{len(wanted)} on {uplink.bridge}")

    def _traced(self, packet: Packet, subject: Subject) -> Check:
        tracer = Tracer(self._run_dir, self._bridge, self._timeout)
        ofport = subject.attachment.ofport
        if packet.direction is Direction.EGRESS:
            trace = tracer.received(f"{flow.in_port(ofport)},{packet.fields}")
            passes = Table.ACCEPT_OR_INGRESS in trace.tables
        else:
            # As if another port of the network had been allowed to send it: it is tracked then.
            network = flow.load(Register.NETWORK, subject.attachment.vlan)
            fields = f"ct_state=trk|new,ct_zone={subject.attachment.vlan},{packet.fields}"
            trace = tracer.handed_to(Table.ACCEPT_OR_INGRESS, fields, network)
            passes = ofport in trace.outputs
        way = "out" if packet.direction is Direction.EGRESS else "in"
        line = f"{way}: {packet.what}: {_VERDICTS[passes]}"
        if passes == packet.passes:
            return Check(True, "packet", line)
        return Check(False, "packet", f"{line}; right would be: {_VERDICTS[packet.passes]}")


_VERDICTS = {True: "passes", False: "dropped"}


def _compared(lines: list[Line], all_: str) -> list[Check]:
    if not lines:
        return [Check(True, "flows", all_)]
    return [Check(False, "flow", f"{what}: {entry}") for what, entry in lines]
