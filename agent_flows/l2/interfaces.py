"""Interfaces of ports: what the switch says about them, and where they are."""

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.report import TaskError
from agent_flows.secgroups.attachment import Attachment

# ovs-vswitchd writes this ofport for an interface it could not open (vswitchd.conf.db(5)).
_NO_OFPORT = -1


@dataclass(frozen=True)
class Interface:
    """The interface that carries a port.

    ``ofport`` is None until ovs-vswitchd has opened it; ``error`` is what it
    said if it could not.
    """

    port_id: str
    name: str
    type: str
    ofport: int | None
    error: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether ovs-vswitchd has dealt with it, for better or worse."""
        return self.ofport is not None or self.error is not None

    @property
    def has_kernel_link(self) -> bool:
        """A vhost-user interface is a socket of the userspace datapath (OVS, dpdk/vhost-user)."""
        return not self.type.startswith("dpdk")


def find(ovsdb: Ovsdb, bridge: str, port_ids: Collection[str]) -> dict[str, Interface]:
    """The interfaces of ``port_ids`` on ``bridge``; a port without one is left out.

    Two interfaces may claim a port while it is replugged: the one that works
    counts. Two that work are an error no port may be wired with, and come back
    as an interface that has it.
    """
    with ovsdb.reading() as content:
        plugged = content.ports_on(bridge) if port_ids else frozenset()
        found = {}
        for port_id in port_ids:
            claims = [
                _interface(port_id, row)
                for row in content.interfaces_of(port_id)
                if content.port_of(row) in plugged
            ]
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
    """What is wrong with the ports that cannot be wired, for want of a working interface."""
    errors = {}
    for port_id in port_ids:
        interface = found.get(port_id)
        if interface is None:
            errors[port_id] = TaskError(
                "InterfaceNotFound",
                "no interface on the integration bridge names this port as its iface-id",
            )
        elif interface.error is not None:
            errors[port_id] = TaskError(
                "InterfaceError",
                f"Open vSwitch cannot use interface {interface.name}: {interface.error}",
                interface.error,
            )
        elif interface.ofport is None:
            errors[port_id] = TaskError(
                "NoOfport", f"Open vSwitch has given interface {interface.name} no ofport yet"
            )
    return errors


def _interface(port_id: str, row: Any) -> Interface:
    ofport = next(iter(row.ofport), None)
    error = next(iter(row.error), None)
    if ofport == _NO_OFPORT:
        ofport, error = None, error or "ovs-vswitchd could not open it"
    return Interface(port_id, row.name, row.type, ofport, error)


def _choose(claims: list[Interface]) -> Interface:
    working = [each for each in claims if each.ofport is not None]
    if len(working) > 1:
        names = ", ".join(sorted(each.name for each in working))
        first = working[0]
        error = f"several interfaces claim the port: {names}"
        return Interface(first.port_id, first.name, first.type, None, error)
    return (working or claims)[0]


class PresentPorts(Set[str]):
    """The ports on ``bridge`` at the moment of asking, as a set that is never out of date.

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
