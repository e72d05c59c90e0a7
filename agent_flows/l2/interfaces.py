"""Interfaces of ports: their state in the switch, and where they are."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from agent_flows.errors import ErrorType
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.l2.replica import NO_OFPORT
from agent_flows.openflow import wiring
from agent_flows.openflow.attachment import Attachment
from agent_flows.report import TaskError

# Types of interfaces with a kernel link of their name, "" being "system"
# (vswitchd.conf.db(5), Interface:type). The others are ports of a userspace
# datapath (dpdk, vhost-user), tunnels, patch ports, or nothing at all.
_WITH_KERNEL_LINK = frozenset({"", "system", "internal", "tap", "afxdp", "afxdp-nonpmd"})


@dataclass(frozen=True)
class Interface:
    """The interface that carries a port.

    ``ofport`` is None until ovs-vswitchd has opened it; ``error`` is why it
    could not. ``row`` and ``port_row`` are the rows of OVSDB: with
    another row the interface was plugged again, whatever its name and ofport.
    ``claimants`` are the names of all interfaces that claim the port, if more
    than one of them works.
    """

    port_id: str
    name: str
    type: str
    ofport: int | None
    error: str | None = None
    row: uuid.UUID | None = None
    port_row: uuid.UUID | None = None
    claimants: tuple[str, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether ovs-vswitchd has opened it, or failed to."""
        return self.ofport is not None or self.error is not None

    @property
    def has_kernel_link(self) -> bool:
        """Whether the kernel has a link of this name to be raised."""
        return self.type in _WITH_KERNEL_LINK


def find(ovsdb: Ovsdb, bridge: str, port_ids: Collection[str]) -> dict[str, Interface]:
    """The interfaces of ``port_ids`` on ``bridge``; a port without one is left out.

    Two interfaces may claim a port while it is replugged: the one that works
    counts. Two that work are an error: an interface with ``claimants``.
    """
    with ovsdb.reading() as content:
        plugged = content.ports_on(bridge) if port_ids else frozenset()
        found = {}
        for port_id in port_ids:
            rows = ((row, content.port_of(row)) for row in content.interfaces_of(port_id))
            claims = [_interface(port_id, row, port) for row, port in rows if port in plugged]
            if claims:
                found[port_id] = _choose(claims)
        return found


def find_all(ovsdb: Ovsdb, bridge: str) -> dict[str, Interface]:
    """Every port's interface on ``bridge``."""
    with ovsdb.reading() as content:
        return find(ovsdb, bridge, content.port_ids())


def attach(interface: Interface, vlan: int) -> Attachment:
    """A located interface on its network's local VLAN."""
    if interface.ofport is None:
        raise ValueError(f"{interface.name} was located without an ofport")
    return Attachment(interface.port_id, interface.ofport, vlan)


def missing(port_ids: Collection[str], found: Mapping[str, Interface]) -> dict[str, TaskError]:
    """What is wrong with the ports that have no working interface and so cannot be wired."""
    errors = {}
    for port_id in port_ids:
        interface = found.get(port_id)
        if interface is None:
            errors[port_id] = wiring.NO_INTERFACE
        elif interface.claimants:
            errors[port_id] = TaskError(
                ErrorType.CONFLICT,
                f"interfaces {' and '.join(interface.claimants)} name the same port as their "
                "iface-id",
            )
        elif interface.error is not None:
            errors[port_id] = TaskError(
                ErrorType.INTERFACE_ERROR,
                f"Open vSwitch cannot use interface {interface.name}: {interface.error}",
                interface.error,
            )
        elif interface.ofport is None:
            errors[port_id] = wiring.no_ofport(interface.name)
    return errors


def _interface(port_id: str, row: Any, port_row: uuid.UUID | None) -> Interface:
    ofport = next(iter(row.ofport), None)
    error = next(iter(row.error), None)
    if ofport == NO_OFPORT:
        ofport, error = None, error or "ovs-vswitchd could not open it"
    return Interface(port_id, row.name, row.type, ofport, error, row.uuid, port_row)


def _choose(claims: list[Interface]) -> Interface:
    # Rows have no order: the same claims must give the same interface.
    claims.sort(key=lambda each: each.name)
    working = [each for each in claims if each.ofport is not None]
    if len(working) > 1:
        names = tuple(each.name for each in working)
        error = f"several interfaces claim the port: {', '.join(names)}"
        return replace(working[0], ofport=None, error=error, claimants=names)
    return (working or claims)[0]


class PresentPorts(Set[str]):
    """The ports on ``bridge`` whenever it is read, so it is never out of date.

    One that is being moved between bridges counts as present.
    """

    def __init__(self, ovsdb: Ovsdb, bridge: str) -> None:
        self._ovsdb, self._bridge = ovsdb, bridge

    def __contains__(self, port_id: object) -> bool:
        with self._ovsdb.reading() as content:
            return isinstance(port_id, str) and bool(content.interfaces_of(port_id))

    def __iter__(self) -> Iterator[str]:
        return iter(find_all(self._ovsdb, self._bridge))

    def __len__(self) -> int:
        return len(find_all(self._ovsdb, self._bridge))
