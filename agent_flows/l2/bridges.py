"""The integration bridge, and the patch ports that join it to the physical networks' bridges.

No state is kept: each question is answered from the current content of OVSDB. A
row's identity counts, not its name: a bridge that was deleted and created again
has none of the earlier one's flows.
"""

import hashlib
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from oslo_log import log

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.l2.replica import Content
from agent_flows.report import TaskError

LOG = log.getLogger(__name__)

# For ovs-ofctl: bundles came with OpenFlow 1.4.
_OPENFLOW = "OpenFlow14"
# A controller reached over IP adds flows above all others, which no dump of OpenFlow shows: they
# let what belongs to its connection pass (ofproto/in-band.c; vswitchd.conf.db(5), Bridge).
_NO_IN_BAND = {"disable-in-band": "true"}
# What ovs-vswitchd understands an empty datapath_type as (vswitchd.conf.db(5)).
_KERNEL = "system"
# Columns of a Port row that restrict the VLANs it carries (vswitchd.conf.db(5), "VLAN
# Configuration").
_OF_VLANS = ("tag", "trunks", "vlan_mode")
# IFNAMSIZ less the final zero byte; longer patch port names are cut as Neutron
# cuts them (neutron_lib/plugins/utils.py, get_interface_name).
_NAME_CHARS = 15
_HASH_CHARS = 6


@dataclass(frozen=True)
class Make:
    """How a bridge is configured. If it is equal later, the bridge still has its flows, as far as
    OVSDB shows."""

    row: uuid.UUID
    fail_mode: str
    protocols: frozenset[str]
    datapath_type: str
    controller: frozenset[str]
    changes: int
    """How often one of these was changed, and perhaps changed back, while we were connected."""
    spanning_tree: bool = False
    """Whether it may block ports, whatever the flows are. Known of the integration bridge only."""
    in_band: bool = False
    """Whether a controller may add flows that overrule ours, and are hidden. Likewise."""

    @property
    def speaks_openflow(self) -> bool:
        # An empty column means every version (vswitchd.conf.db(5)).
        return not self.protocols or _OPENFLOW in self.protocols


@dataclass(frozen=True)
class Uplink:
    """Where the integration bridge meets the bridge of a physical network.

    ``ofport`` is the patch port's on the integration bridge, ``peer_ofport``
    the other end's on ``bridge``; ``made_of`` is the identity of all it is made of.
    """

    physical_network: str
    bridge: str
    ofport: int
    peer_ofport: int
    made_of: "MadeOf | None" = None


@dataclass(frozen=True)
class MadeOf:
    """The physical network's bridge, and the rows of the patch ports' interfaces: that of the
    integration bridge, and the other."""

    make: Make
    near: uuid.UUID
    far: uuid.UUID


def patch_names(bridge: str) -> tuple[str, str]:
    """Names of the patch ports to ``bridge``: on the integration bridge, and on it."""
    return _fitting("int-", bridge), _fitting("phy-", bridge)


def _fitting(prefix: str, name: str) -> str:
    if len(prefix + name) <= _NAME_CHARS:
        return prefix + name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:_HASH_CHARS]
    return prefix + name[: _NAME_CHARS - len(prefix) - _HASH_CHARS] + digest


def difference(name: str, before: Make, now: Make | None) -> str:
    """What happened to bridge ``name``, in one line."""
    if now is None:
        return f"bridge {name} does not exist: it was deleted"
    if now.row != before.row:
        return f"bridge {name} was deleted and created again, without its flows"
    for column in ("fail_mode", "datapath_type", "protocols", "controller"):
        was, is_ = getattr(before, column), getattr(now, column)
        if was != is_:
            was, is_ = (
                ",".join(sorted(value)) if isinstance(value, frozenset) else value
                for value in (was, is_)
            )
            return f"{column} of bridge {name} was changed from {was or 'none'} to {is_ or 'none'}"
    if now.spanning_tree and not before.spanning_tree:
        return f"a spanning tree protocol was enabled on bridge {name}"
    if now.in_band and not before.in_band:
        return f"in-band control of bridge {name} was enabled: it adds hidden flows"
    return f"a setting of bridge {name} was changed and changed back, which empties its flow tables"


class Bridges:
    """Configures the bridges as the agent needs them. ``mappings``: physical network to bridge."""

    def __init__(
        self, ovsdb: Ovsdb, integration: str, datapath_type: str, mappings: Mapping[str, str]
    ) -> None:
        self._ovsdb = ovsdb
        self.integration = integration
        self._datapath_type = datapath_type
        self._found_type: str | None = None
        self.mappings = dict(mappings)
        self._lock = threading.Lock()
        self._joined: set[str] = set()

    def integration_make(self) -> Make | None:
        """How the integration bridge is configured now; None if it does not exist."""
        with self._ovsdb.reading() as content:
            make, row = _make(content, self.integration), content.row("Bridge", self.integration)
            if make is None or row is None:
                return None
            return replace(
                make,
                spanning_tree=row.stp_enable or row.rstp_enable,
                in_band=not _NO_IN_BAND.items() <= row.other_config.items(),
            )

    def ensure_integration(self) -> Make:
        """Have an integration bridge that drops what no flow allows.

        An existing bridge keeps its datapath type; if it is changed later, it
        is restored. Raises :class:`TaskFailed`.
        """
        for _ in range(3):
            now = self.integration_make()
            if now is not None and self._found_type is None:
                self._found_type = now.datapath_type
            commands = self._to_be_right(now)
            if now is not None and not commands:
                return now
            self._ovsdb.transact(commands)
        raise TaskFailed(
            TaskError(
                ErrorType.BRIDGE_CHANGED,
                f"bridge {self.integration} is changed again and again by another program",
            )
        )

    def _to_be_right(self, now: Make | None) -> list[Any]:
        datapath_type = self._found_type or self._datapath_type
        commands: list[Any] = []
        if now is None:
            LOG.info("Bridge %s does not exist; creating it", self.integration)
            commands.append(self._ovsdb.api.add_br(self.integration, datapath_type=datapath_type))
        elif now.datapath_type != datapath_type:
            commands.append(self._set(self.integration, datapath_type=datapath_type))
        if now is None or now.fail_mode != "secure":
            commands.append(self._set(self.integration, fail_mode="secure"))
        if now is not None and now.spanning_tree:
            commands.append(self._set(self.integration, stp_enable=False, rstp_enable=False))
        if now is None or now.in_band:
            commands.append(self._set(self.integration, other_config=_NO_IN_BAND))
        return [*commands, *self._to_speak_openflow(self.integration, now)]

    def current_uplink(self, physical_network: str) -> Uplink | None:
        """The uplink to a physical network as it is now; None unless it is complete."""
        bridge = self.mappings.get(physical_network)
        if bridge is None:
            return None
        near, far = patch_names(bridge)
        with self._ovsdb.reading() as content:
            make = _make(content, bridge)
            here = _patch(content, self.integration, near, far)
            there = _patch(content, bridge, far, near)
        if make is None or not make.speaks_openflow or here is None or there is None:
            return None
        (near_row, ofport), (far_row, peer_ofport) = here, there
        if min(ofport, peer_ofport) < 1:
            return None
        made_of = MadeOf(make, near_row, far_row)
        return Uplink(physical_network, bridge, ofport, peer_ofport, made_of)

    def change_of_uplink(self, before: Uplink) -> str:
        """What happened to an uplink, in one line."""
        near, far = patch_names(before.bridge)
        was = before.made_of
        with self._ovsdb.reading() as content:
            make = _make(content, before.bridge)
            if was is not None and make != was.make:
                return difference(before.bridge, was.make, make)
            reason = _fault(content, self.integration, near, far, was.near if was else None)
            reason = reason or _fault(content, before.bridge, far, near, was.far if was else None)
        if reason:
            return reason
        now = self.current_uplink(before.physical_network)
        if now is None:
            return f"patch ports {near} and {far} have no ofport"
        return (
            f"the ofports of patch ports {near} and {far} are {now.ofport} and {now.peer_ofport} "
            f"instead of {before.ofport} and {before.peer_ofport}"
        )

    def uplink(self, physical_network: str) -> Uplink:
        """The uplink to a physical network, created if it is not complete.

        Raises :class:`TaskFailed` that says which bridge or mapping is missing.
        """
        with self._lock:
            uplink = self.current_uplink(physical_network)
            if uplink is None:
                uplink = self._join(physical_network)
            self._joined.add(uplink.bridge)
            return uplink

    def physical(self) -> list[str]:
        """The physical networks' bridges that were joined and exist."""
        with self._lock, self._ovsdb.reading() as content:
            return [name for name in sorted(self._joined) if content.row("Bridge", name)]

    def exists(self, bridge: str) -> bool:
        """Whether a bridge with this name exists."""
        with self._ovsdb.reading() as content:
            return content.row("Bridge", bridge) is not None

    def is_missing(self, bridge: str) -> bool:
        """Whether OVSDB has no such bridge; False if it does not answer."""
        try:
            return not self.exists(bridge)
        except TaskFailed:
            return False

    def _join(self, physical_network: str) -> Uplink:
        bridge = self.mappings.get(physical_network)
        if bridge is None:
            raise TaskFailed(
                TaskError(
                    ErrorType.UNKNOWN_PHYSICAL_NETWORK,
                    f"bridge_mappings names no bridge for physical network {physical_network}",
                )
            )
        with self._ovsdb.reading() as content:
            make = _make(content, bridge)
        for name in (self.integration, bridge):
            if not self.exists(name):
                raise TaskFailed(missing_bridge(name, physical_network if name == bridge else None))
        near, far = patch_names(bridge)
        commands = [
            *self._to_speak_openflow(bridge, make),
            *self._to_patch(self.integration, near, far),
            *self._to_patch(bridge, far, near),
        ]
        if commands:
            self._ovsdb.transact(commands)
        uplink = self.current_uplink(physical_network)
        if uplink is None:
            raise TaskFailed(
                TaskError(
                    ErrorType.PATCH_PORT,
                    f"patch ports {near} and {far} do not join {self.integration} and {bridge}",
                    "Open vSwitch gave them no ofport: `ovs-vsctl show` and its log show why",
                )
            )
        LOG.info("Physical network %s is reached through %s", physical_network, bridge)
        return uplink

    def _to_patch(self, bridge: str, name: str, peer: str) -> list[Any]:
        with self._ovsdb.reading() as content:
            if _patch(content, bridge, name, peer) is not None:
                return []
            port = content.row("Port", name)
            elsewhere = port is not None and port.uuid not in content.ports_on(bridge)
        api = self._ovsdb.api
        return [
            *([api.del_port(name, if_exists=True)] if elsewhere else []),
            api.add_port(bridge, name),
            api.db_set(
                "Interface", name, ("type", "patch"), ("options", {"peer": peer}), if_exists=False
            ),
            api.db_set("Port", name, *((column, []) for column in _OF_VLANS), if_exists=False),
        ]

    def _to_speak_openflow(self, bridge: str, make: Make | None) -> list[Any]:
        if make is None or make.speaks_openflow:
            return []
        return [self._set(bridge, protocols=[*sorted(make.protocols), _OPENFLOW])]

    def _set(self, bridge: str, **columns: object) -> Any:
        return self._ovsdb.api.db_set("Bridge", bridge, *columns.items(), if_exists=False)


def missing_bridge(name: str, physical_network: str | None = None) -> TaskError:
    """The error of ports that need a bridge that does not exist."""
    if physical_network is None:
        return TaskError(ErrorType.BRIDGE_NOT_FOUND, f"integration bridge {name} does not exist")
    return TaskError(
        ErrorType.BRIDGE_NOT_FOUND,
        f"bridge {name} of physical network {physical_network} does not exist",
    )


def _make(content: Content, bridge: str) -> Make | None:
    row = content.row("Bridge", bridge)
    if row is None:
        return None
    return Make(
        row.uuid,
        next(iter(row.fail_mode), ""),
        frozenset(row.protocols),
        row.datapath_type or _KERNEL,
        frozenset(each.target for each in row.controller if each is not None),
        content.makes(row),
    )


def _patch(content: Content, bridge: str, name: str, peer: str) -> tuple[uuid.UUID, int] | None:
    """The row and the ofport (-1: none yet) of a patch port, if it is as it must be."""
    if _fault(content, bridge, name, peer):
        return None
    interface = content.row("Interface", name)
    if interface is None:
        return None
    return interface.uuid, int(next(iter(interface.ofport), -1))


def _fault(
    content: Content, bridge: str, name: str, peer: str, row: uuid.UUID | None = None
) -> str:
    """Why a patch port is not as it must be; "" if it is. ``row`` is its interface's, as far as
    known."""
    interface, port = content.row("Interface", name), content.row("Port", name)
    if interface is None or port is None or port.uuid not in content.ports_on(bridge):
        return f"bridge {bridge} has no patch port {name}: it was deleted"
    if row is not None and interface.uuid != row:
        return f"patch port {name} was deleted and created again"
    if interface.type != "patch":
        return f"the type of {name} is {interface.type or 'system'} instead of patch"
    if (is_ := interface.options.get("peer")) != peer:
        return f"the peer of patch port {name} is {is_ or 'not set'} instead of {peer}"
    changed = [column for column in _OF_VLANS if getattr(port, column)]
    if changed:
        return f"{' and '.join(changed)} of patch port {name} is set: it does not carry all VLANs"
    return ""
