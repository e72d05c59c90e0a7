"""A port's wiring in OVSDB: its tag, and the network of that."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.openflow.pipeline import DEAD_VLAN
from agent_flows.spec import NetworkSpec


@dataclass(frozen=True)
class Binding:
    """The VLAN of a Port row and its network."""

    name: str
    vlan: int
    network: NetworkSpec

    @property
    def columns(self) -> dict[str, Any]:
        """Of the Port row, with Neutron's keys (ovs_neutron_agent.py, _add_port_tag_info), so
        that its readers find them."""
        network = self.network
        keys = {
            "tag": str(self.vlan),
            "net_uuid": network.id,
            "network_type": str(network.network_type),
            "physical_network": str(network.physical_network),
            "segmentation_id": str(network.segmentation_id),
        }
        return {"tag": self.vlan, "other_config": keys}


@dataclass(frozen=True)
class Carried:
    """What the Port row of an interface has."""

    tag: int | None
    other_config: Mapping[str, str]


_DEAD = {"tag": DEAD_VLAN, "other_config": {"tag": str(DEAD_VLAN)}}


class Bindings:
    """Reads and writes Port and Interface rows; every change is one transaction."""

    def __init__(self, ovsdb: Ovsdb) -> None:
        self._ovsdb = ovsdb

    def bind(self, bindings: Mapping[str, Binding]) -> frozenset[str]:
        """Tag the ports, those that are tagged so already at no cost.

        Returns the names of the others. Raises :class:`TaskFailed`.
        """
        rows = {binding.name: binding.columns for binding in bindings.values()}
        changed = {name: row for name, row in rows.items() if not self._holds(name, row)}
        self._write("Port", changed)
        return frozenset(changed)

    def close(self, names: Collection[str]) -> None:
        """Put ports on the dead VLAN, but for those that no longer exist.

        Raises :class:`TaskFailed`.
        """
        closed = {name: _DEAD for name, tag in self.tags(names).items() if tag != DEAD_VLAN}
        self._write("Port", closed, if_exists=True)

    def tags(self, names: Collection[str]) -> dict[str, int | None]:
        """The tags of those ports that exist."""
        return {name: carried.tag for name, carried in self.carried(names).items()}

    def carried(self, names: Collection[str]) -> dict[str, Carried]:
        """Of those ports that exist."""
        with self._ovsdb.reading() as content:
            rows = {name: content.row("Port", name) for name in names}
            return {
                name: Carried(next(iter(row.tag), None), row.other_config)
                for name, row in rows.items()
                if row is not None
            }

    def request_mtu(self, mtus: Mapping[str, int | None]) -> None:
        """Ask ovs-vswitchd for the MTU of internal ports, in bytes. Raises :class:`TaskFailed`."""
        with self._ovsdb.reading() as content:
            rows = {name: content.row("Interface", name) for name in mtus}
            changed = {
                name: mtus[name]
                for name, row in rows.items()
                if row is not None and next(iter(row.mtu_request), None) != mtus[name]
            }
        self._write("Interface", {name: {"mtu_request": mtu} for name, mtu in changed.items()})

    def _holds(self, name: str, columns: Mapping[str, Any]) -> bool:
        with self._ovsdb.reading() as content:
            row = content.row("Port", name)
            return (
                row is not None
                and list(row.tag) == [columns["tag"]]
                and columns["other_config"].items() <= row.other_config.items()
            )

    def _write(
        self, table: str, rows: Mapping[str, Mapping[str, Any]], *, if_exists: bool = False
    ) -> None:
        if rows:
            self._ovsdb.transact([self._ovsdb.set_rows(table, rows, if_exists=if_exists)])
