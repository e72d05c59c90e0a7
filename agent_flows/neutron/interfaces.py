"""Where ports are plugged in, read with the agent's bridge object.

A batch of any size needs the bridge's interfaces, and what the agent stored with
them when it bound their ports; some are read at a time.
"""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import pydantic
from ovsdbapp import exceptions
from ovsdbapp.backend.ovs_idl import idlutils

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.fairness import fair
from agent_flows.openflow import wiring
from agent_flows.openflow.attachment import Attachment
from agent_flows.report import TaskError
from agent_flows.spec import NetworkSpec
from agent_flows.validation import Invalid, parse

# OVSDB's values for no ofport (yet) (neutron/agent/common/ovs_lib.py).
_NO_OFPORT: tuple[object, ...] = (None, -1, [])
_VLANS = range(1, 4095)
_NO_NETWORK = "00000000-0000-0000-0000-000000000000"
_NETWORK = pydantic.TypeAdapter(NetworkSpec)
# Reading 500 rows takes 150 ms, in which no other thread of Neutron 26's agent would run.
_AT_ONCE = 20


class Bridge(Protocol):
    """The part of neutron.agent.common.ovs_lib.OVSBridge that is used here."""

    br_name: str

    def get_port_name_list(self) -> Sequence[str]: ...

    def get_ports_attributes(
        self, table: str, columns: Sequence[str], ports: Sequence[str], if_exists: bool
    ) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True)
class Interface:
    """A port's interface on the integration bridge.

    The agent bound it to ``network``, with local VLAN ``vlan``; ``mac`` is the
    hypervisor's attached-mac, if there is one. ``row`` is OVSDB's id of its
    Port: another one after it was unplugged and plugged in again.
    """

    name: str
    ofport: int
    vlan: int
    network: NetworkSpec
    mac: str | None
    row: object = None


@dataclass(frozen=True)
class Located:
    """``ofports`` and ``rows`` include those of ports that cannot be wired. The ports in ``absent``
    have no interface at all, and are in ``errors``, too."""

    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    errors: Mapping[str, TaskError] = field(default_factory=dict)
    ofports: Mapping[str, int] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    rows: Mapping[str, object] = field(default_factory=dict)

    def attachments(self, port_ids: Collection[str]) -> dict[str, Attachment]:
        return {
            port_id: Attachment(port_id, found.ofport, found.vlan)
            for port_id in port_ids
            if (found := self.interfaces.get(port_id)) is not None
        }


def locate(bridge: Bridge, port_ids: Collection[str]) -> Located:
    """The interfaces of ``port_ids`` or their errors; raises nothing for a port. If OVSDB does not
    answer, that is every port's error."""
    if not port_ids:
        return Located()
    try:
        vifs = _vifs(bridge, frozenset(port_ids))
        bound = _bindings(bridge, [vif.name for vif in vifs.values()])
    except (exceptions.OvsdbAppException, RuntimeError) as exc:
        return Located(errors=dict.fromkeys(port_ids, _ovsdb_error(bridge, exc)))
    interfaces: dict[str, Interface] = {}
    errors: dict[str, TaskError] = {}
    ofports: dict[str, int] = {}
    rows: dict[str, object] = {}
    for port_id in fair(port_ids):
        vif = vifs.get(port_id)
        if vif is not None and vif.name in bound:
            rows[port_id] = bound[vif.name].row
        if vif is None:
            errors[port_id] = wiring.NO_INTERFACE
        elif vif.ofport in _NO_OFPORT:
            errors[port_id] = wiring.no_ofport(vif.name)
        else:
            ofports[port_id] = vif.ofport
            port = bound.get(vif.name, _UNBOUND)
            found = interface(vif.name, vif.ofport, vif.mac, port.binding, port.row)
            if isinstance(found, TaskError):
                errors[port_id] = found
            else:
                interfaces[port_id] = found
    return Located(interfaces, errors, ofports, frozenset(port_ids) - vifs.keys(), rows)


def _rows(
    bridge: Bridge, table: str, columns: Sequence[str], names: Sequence[str]
) -> list[Mapping[str, Any]]:
    """The rows of these names that exist."""
    rows: list[Mapping[str, Any]] = []
    for first in fair(range(0, len(names), _AT_ONCE)):
        some = names[first : first + _AT_ONCE]
        rows += bridge.get_ports_attributes(table, columns=columns, ports=some, if_exists=True)
    return rows


class _Vif(NamedTuple):
    name: str
    ofport: Any
    mac: str | None


def _vifs(bridge: Bridge, port_ids: Set[str]) -> dict[str, _Vif]:
    """The interfaces of those of the ports that have one (as ovs_lib.py, get_vifs_by_ids, which
    reads all at once)."""
    columns = ["name", "external_ids", "ofport"]
    found = {}
    for row in _rows(bridge, "Interface", columns, bridge.get_port_name_list()):
        external_ids = row["external_ids"]
        port_id = external_ids.get("iface-id")
        if port_id in port_ids:
            found[port_id] = _Vif(row["name"], row["ofport"], external_ids.get("attached-mac"))
    return found


class _PortRow(NamedTuple):
    binding: Mapping[str, str]
    row: object


_UNBOUND = _PortRow({}, None)


def _bindings(bridge: Bridge, names: Sequence[str]) -> dict[str, _PortRow]:
    """Other_config of Port, which the agent writes (ovs_neutron_agent.py, port_bound). Not the
    column tag: that may be the dead VLAN at the moment."""
    rows = _rows(bridge, "Port", ["name", "other_config", "_uuid"], names)
    return {row["name"]: _PortRow(row["other_config"], row["_uuid"]) for row in rows}


def interface(
    name: str, ofport: int, mac: str | None, binding: Mapping[str, str], row: object = None
) -> Interface | TaskError:
    """An interface with OVSDB's values, or why no port can be wired with it."""
    tag = binding.get("tag", "")
    if not (tag.isascii() and tag.isdigit() and int(tag) in _VLANS):
        return TaskError(
            ErrorType.NO_TAG,
            f"the agent has not bound interface {name} to a local VLAN: other_config:tag is "
            f"{tag or 'not set'}",
        )
    segment = binding.get("segmentation_id", "")
    physical = binding.get("physical_network")
    fields = {
        "id": binding.get("net_uuid", _NO_NETWORK),
        "network_type": binding.get("network_type", "local"),
        "segmentation_id": int(segment) if segment.isascii() and segment.isdigit() else None,
        # Neutron writes the word None for a network without one.
        "physical_network": None if physical == "None" else physical,
    }
    try:
        return Interface(name, ofport, int(tag), parse(_NETWORK, fields), mac, row)
    except Invalid as exc:
        return TaskError(
            ErrorType.INVALID_SPEC, f"invalid other_config of port {name}: {exc}", repr(binding)
        )


def tags(bridge: Bridge, names: Sequence[str]) -> dict[str, int]:
    """The tags of those ports that have one. Raises :class:`TaskFailed`."""
    try:
        rows = _rows(bridge, "Port", ["name", "tag"], names)
    except (exceptions.OvsdbAppException, RuntimeError) as exc:
        raise TaskFailed(_ovsdb_error(bridge, exc), whole_batch=True) from exc
    return {row["name"]: row["tag"] for row in rows if isinstance(row["tag"], int)}


@dataclass(frozen=True)
class Link:
    """``up``: None if Open vSwitch does not know. ``error``: why it cannot use the interface."""

    up: bool | None
    error: str


def links(bridge: Bridge, names: Sequence[str]) -> dict[str, Link]:
    """The interfaces as ovs-vswitchd has them. Internal ones, which may be in a namespace where it
    does not see them, are left out. Raises :class:`TaskFailed`."""
    try:
        rows = _rows(bridge, "Interface", ["name", "type", "admin_state", "error"], names)
    except (exceptions.OvsdbAppException, RuntimeError) as exc:
        raise TaskFailed(_ovsdb_error(bridge, exc), whole_batch=True) from exc
    return {
        row["name"]: _link(row["admin_state"], row["error"])
        for row in rows
        if row["type"] != "internal"
    }


def _link(admin_state: object, error: object) -> Link:
    # OVSDB's value for an empty column is [].
    up = {"up": True, "down": False}.get(admin_state) if isinstance(admin_state, str) else None
    return Link(up, error if isinstance(error, str) else "")


def ofports(bridge: Bridge) -> frozenset[int]:
    """Every ofport of the bridge. Raises :class:`TaskFailed`."""
    try:
        rows = _rows(bridge, "Interface", ["name", "ofport"], bridge.get_port_name_list())
    except (exceptions.OvsdbAppException, RuntimeError) as exc:
        raise TaskFailed(_ovsdb_error(bridge, exc), whole_batch=True) from exc
    return frozenset(row["ofport"] for row in rows if isinstance(row["ofport"], int))


def _ovsdb_error(bridge: Bridge, exc: Exception) -> TaskError:
    # The bridge is the only row that is asked for by itself.
    if isinstance(exc, idlutils.RowNotFound):
        return TaskError(ErrorType.BRIDGE_NOT_FOUND, f"bridge {bridge.br_name} does not exist")
    return TaskError(
        ErrorType.OVSDB_ERROR, "could not read from OVSDB where the ports are", str(exc)
    )
