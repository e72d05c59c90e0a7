"""The l2 tasks of the flows: each one thing done for a batch of ports, its revert beside it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from taskflow.types.failure import Failure

from agent_flows.engine.task import FlowTask, PortErrors, Skipped
from agent_flows.l2 import interfaces as switch_interfaces
from agent_flows.l2 import links
from agent_flows.l2.bindings import Binding, Bindings
from agent_flows.l2.interfaces import Interface
from agent_flows.l2.links import Link
from agent_flows.l2.networks import Networks
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.openflow import wiring
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.outcome import switch_errors
from agent_flows.report import Step, TaskError
from agent_flows.spec import DesiredState


class RaiseLink(FlowTask):
    """Sets the kernel links up, with the network's MTU."""

    name_ = "raise-link"
    step = Step.L2

    def __init__(self, bindings: Bindings, ofctl: Ofctl | None = None) -> None:
        """With ``ofctl`` also have the switch take packets from the ports and give them to them,
        if another program forbade that."""
        super().__init__()
        self._bindings, self._ofctl = bindings, ofctl

    def execute(
        self, port_ids: Collection[str], interfaces: Mapping[str, Interface], desired: DesiredState
    ) -> Skipped:
        if self._ofctl is not None:
            self._unblock(self._ofctl, {interfaces[port_id].ofport for port_id in port_ids})
        absent = linkless(interfaces[port_id] for port_id in port_ids)
        wanted = _links(port_ids, absent, interfaces, desired)
        # ovs-vswitchd gives an internal port the smallest MTU of its bridge
        # whenever another changes, unless this column asks for one (measured).
        self._bindings.request_mtu(
            {
                link.name: link.mtu
                for port_id, link in wanted.items()
                if interfaces[port_id].type == "internal"
            }
        )
        if errors := _by_port(wanted, links.raise_links(wanted.values())):
            raise PortErrors(errors)
        return Skipped(absent)

    @staticmethod
    def _unblock(ofctl: Ofctl, ofports: Collection[int | None]) -> None:
        with switch_errors():
            for ofport, forbidden in ofctl.blocked().items():
                if ofport in ofports:
                    ofctl.unblock(ofport, forbidden)


class ProvisionNetwork(FlowTask):
    """Gives each network a local VLAN and joins it to its segment on the physical network."""

    name_ = "provision-network"
    step = Step.L2
    default_provides = "attachments"

    def __init__(self, networks: Networks, *, rewrite: bool) -> None:
        """``rewrite`` the networks' flows even if they seem right."""
        super().__init__()
        self._networks, self._rewrite = networks, rewrite

    def execute(
        self, port_ids: Collection[str], interfaces: Mapping[str, Interface], desired: DesiredState
    ) -> Mapping[str, Attachment]:
        vlans = self._networks.provision(
            {port_id: desired.ports[port_id] for port_id in port_ids}, rewrite=self._rewrite
        )
        return {
            port_id: switch_interfaces.attach(interfaces[port_id], vlans[port_id])
            for port_id in port_ids
        }


class BindVlan(FlowTask):
    """Tags each port with its network's local VLAN: the dead VLAN is lifted."""

    name_ = "bind-vlan"
    step = Step.L2

    def __init__(self, bindings: Bindings) -> None:
        super().__init__()
        self._bindings = bindings

    def execute(
        self,
        port_ids: Collection[str],
        interfaces: Mapping[str, Interface],
        attachments: Mapping[str, Attachment],
        desired: DesiredState,
    ) -> frozenset[str]:
        return self._bindings.bind(
            {
                port_id: Binding(
                    interfaces[port_id].name,
                    attachments[port_id].vlan,
                    desired.ports[port_id].network,
                )
                for port_id in port_ids
            }
        )

    def revert(self, result: frozenset[str] | Failure, **_: Any) -> None:
        # A port that was bound before passes verified traffic: another port's
        # failure must not close it. A failed transaction bound no port.
        if not isinstance(result, Failure):
            self._bindings.close(result)


class VerifyWiring(FlowTask):
    """Reads tag, ofport and link back."""

    name_ = "verify-wiring"
    step = Step.L2

    def __init__(self, ovsdb: Ovsdb, bridge: str, bindings: Bindings) -> None:
        super().__init__()
        self._ovsdb, self._bridge, self._bindings = ovsdb, bridge, bindings

    def execute(
        self,
        port_ids: Collection[str],
        interfaces: Mapping[str, Interface],
        attachments: Mapping[str, Attachment],
        desired: DesiredState,
    ) -> None:
        found = switch_interfaces.find(self._ovsdb, self._bridge, port_ids)
        errors = switch_interfaces.missing(port_ids, found)
        tags = self._bindings.tags({interfaces[port_id].name for port_id in port_ids})
        for port_id in set(port_ids) - errors.keys():
            wired, vlan = interfaces[port_id], attachments[port_id].vlan
            error = wiring.error(wired, found[port_id], wired.name, tags.get(wired.name), (vlan,))
            if error is not None:
                errors[port_id] = error
        present = [port_id for port_id in port_ids if port_id not in errors]
        absent = linkless(interfaces[port_id] for port_id in present)
        wanted = _links(present, absent, interfaces, desired)
        errors |= _by_port(wanted, links.verify_links(wanted.values()))
        if errors:
            raise PortErrors(errors)


class ClosePort(FlowTask):
    """Puts what is left of each port on the dead VLAN; one without interface is closed."""

    name_ = "close-port"
    step = Step.L2

    def __init__(self, ovsdb: Ovsdb, bridge: str, bindings: Bindings) -> None:
        super().__init__()
        self._ovsdb, self._bridge, self._bindings = ovsdb, bridge, bindings

    def execute(self, port_ids: Collection[str]) -> None:
        found = switch_interfaces.find(self._ovsdb, self._bridge, port_ids)
        self._bindings.close([interface.name for interface in found.values()])


class ReleaseVlan(FlowTask):
    """Removes the networks that lost their last port on this host."""

    name_ = "release-vlan"
    step = Step.L2

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self._networks = networks

    def execute(self, port_ids: Collection[str]) -> None:
        self._networks.release(port_ids)


def linkless(interfaces: Iterable[Interface]) -> dict[str, str]:
    """Ports without a kernel link in our network namespace, and why this is no failure."""
    reasons = {}
    for interface in interfaces:
        if not interface.has_kernel_link:
            reasons[interface.port_id] = f"a {interface.type} interface has no kernel link"
        elif interface.type == "internal" and not links.exists(interface.name):
            reasons[interface.port_id] = "the internal port is in another network namespace"
    return reasons


def _links(
    port_ids: Iterable[str],
    absent: Collection[str],
    interfaces: Mapping[str, Interface],
    desired: DesiredState,
) -> dict[str, Link]:
    """What the links of ``port_ids`` should be, but for ports whose link is ``absent``."""
    return {
        port_id: Link(interfaces[port_id].name, desired.ports[port_id].network.mtu)
        for port_id in port_ids
        if port_id not in absent
    }


def _by_port(wanted: Mapping[str, Link], errors: Mapping[str, TaskError]) -> dict[str, TaskError]:
    return {port_id: errors[link.name] for port_id, link in wanted.items() if link.name in errors}
