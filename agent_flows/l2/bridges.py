"""The integration bridge, and the patch ports that join it to the physical networks' bridges."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oslo_log import log

from agent_flows.flows.task import TaskFailed
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.report import TaskError

LOG = log.getLogger(__name__)

# ovs-ofctl speaks it to us: bundles came with OpenFlow 1.4.
_OPENFLOW = "OpenFlow14"
# IFNAMSIZ less the final zero byte; longer patch port names are cut as Neutron
# cuts them (neutron_lib/plugins/utils.py, get_interface_name).
_NAME_CHARS = 15
_HASH_CHARS = 6


@dataclass(frozen=True)
class Uplink:
    """Where the integration bridge meets the bridge of a physical network.

    ``ofport`` is the patch port's on the integration bridge, ``peer_ofport``
    the other end's on ``bridge``.
    """

    physical_network: str
    bridge: str
    ofport: int
    peer_ofport: int


def patch_names(bridge: str) -> tuple[str, str]:
    """Names of the patch ports to ``bridge``: on the integration bridge, and on it."""
    return _fitting("int-", bridge), _fitting("phy-", bridge)


def _fitting(prefix: str, name: str) -> str:
    if len(prefix + name) <= _NAME_CHARS:
        return prefix + name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:_HASH_CHARS]
    return prefix + name[: _NAME_CHARS - len(prefix) - _HASH_CHARS] + digest


class Bridges:
    """Makes the bridges what the agent needs. ``mappings``: physical network to bridge."""

    def __init__(
        self, ovsdb: Ovsdb, integration: str, datapath_type: str, mappings: Mapping[str, str]
    ) -> None:
        self._ovsdb = ovsdb
        self.integration = integration
        self._datapath_type = datapath_type
        self.mappings = dict(mappings)
        self._lock = threading.Lock()
        self._uplinks: dict[str, Uplink] = {}

    def ensure_integration(self) -> None:
        """The integration bridge is there and drops what no flow allows.

        Raises :class:`TaskFailed`.
        """
        api = self._ovsdb.api
        with self._ovsdb.reading() as content:
            row = content.row("Bridge", self.integration)
            exists = row is not None
            fail_mode = list(row.fail_mode) if row is not None else []
            protocols = list(row.protocols) if row is not None else []
        commands: list[Any] = []
        if not exists:
            commands.append(api.add_br(self.integration, datapath_type=self._datapath_type))
        if fail_mode != ["secure"]:
            commands.append(self._set(self.integration, fail_mode="secure"))
        commands += self._speaks_openflow(self.integration, protocols)
        if commands:
            self._ovsdb.transact(commands)

    def uplink(self, physical_network: str) -> Uplink:
        """The uplink to a physical network, made if it is not there.

        Raises :class:`TaskFailed` that says which bridge or mapping is missing.
        """
        with self._lock:
            if physical_network not in self._uplinks:
                self._uplinks[physical_network] = self._ensure_uplink(physical_network)
            return self._uplinks[physical_network]

    def physical(self) -> list[str]:
        """The physical networks' bridges that are joined."""
        with self._lock:
            return sorted({uplink.bridge for uplink in self._uplinks.values()})

    def forget(self) -> None:
        """The switch was restarted: ofports may be others now."""
        with self._lock:
            self._uplinks.clear()

    def _ensure_uplink(self, physical_network: str) -> Uplink:
        bridge = self.mappings.get(physical_network)
        if bridge is None:
            raise TaskFailed(
                TaskError(
                    "UnknownPhysicalNetwork",
                    f"bridge_mappings names no bridge for physical network {physical_network}",
                )
            )
        with self._ovsdb.reading() as content:
            row = content.row("Bridge", bridge)
            protocols = list(row.protocols) if row is not None else []
        if row is None:
            raise TaskFailed(
                TaskError(
                    "BridgeNotFound",
                    f"bridge {bridge} of physical network {physical_network} does not exist",
                )
            )
        near, far = patch_names(bridge)
        commands = [
            *self._speaks_openflow(bridge, protocols),
            *self._patch(self.integration, near, far),
            *self._patch(bridge, far, near),
        ]
        if commands:
            self._ovsdb.transact(commands)
        uplink = Uplink(physical_network, bridge, self._ofport(near), self._ofport(far))
        LOG.info("Physical network %s is reached through %s", physical_network, bridge)
        return uplink

    def _patch(self, bridge: str, name: str, peer: str) -> list[Any]:
        with self._ovsdb.reading() as content:
            interface = content.row("Interface", name)
            port = content.row("Port", name)
            if (
                interface is not None
                and port is not None
                and port.uuid in content.ports_on(bridge)
                and interface.type == "patch"
                and interface.options.get("peer") == peer
            ):
                return []
        api = self._ovsdb.api
        return [
            api.add_port(bridge, name),
            api.db_set(
                "Interface", name, ("type", "patch"), ("options", {"peer": peer}), if_exists=False
            ),
        ]

    def _ofport(self, name: str) -> int:
        with self._ovsdb.reading() as content:
            row = content.row("Interface", name)
            ofport = next(iter(row.ofport), -1) if row is not None else -1
        if ofport < 1:
            raise TaskFailed(
                TaskError("PatchPort", f"Open vSwitch gave patch port {name} no ofport")
            )
        return int(ofport)

    def _speaks_openflow(self, bridge: str, protocols: list[str]) -> list[Any]:
        # An empty column means every version (vswitchd.conf.db(5)).
        if not protocols or _OPENFLOW in protocols:
            return []
        return [self._set(bridge, protocols=[*protocols, _OPENFLOW])]

    def _set(self, bridge: str, **columns: object) -> Any:
        return self._ovsdb.api.db_set("Bridge", bridge, *columns.items(), if_exists=False)
