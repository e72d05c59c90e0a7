"""Local VLANs: which network has which, recorded in OVSDB so that it survives restarts.

A record is a key of the integration bridge's external_ids. It is written
before the first flow that carries the VLAN and dropped after the last one, so
no VLAN is ever given to a second network while flows of the first are left.
"""

from collections.abc import Collection, Iterable, Mapping

from agent_flows.l2.ovsdb import Ovsdb

# 802.1Q: 0 and 4095 are reserved; Neutron's dead VLAN is 4095.
VLANS = range(1, 4095)
DEAD_VLAN = 4095
_KEY = "agent-flows-vlan-"


def choose(taken: Mapping[str, int], networks: Iterable[str]) -> dict[str, int]:
    """A free VLAN for each network that has none; a network left out found none free."""
    in_use = set(taken.values())
    free = (vlan for vlan in VLANS if vlan not in in_use)
    wanted = (network for network in networks if network not in taken)
    return dict(zip(wanted, free, strict=False))


class Vlans:
    """The records on ``bridge``."""

    def __init__(self, ovsdb: Ovsdb, bridge: str) -> None:
        self._ovsdb = ovsdb
        self._bridge = bridge

    def recorded(self) -> dict[str, int]:
        """Network id to local VLAN."""
        with self._ovsdb.reading() as content:
            row = content.row("Bridge", self._bridge)
            records = {} if row is None else row.external_ids
        return {
            key.removeprefix(_KEY): int(value)
            for key, value in records.items()
            if key.startswith(_KEY) and value.isdecimal() and int(value) in VLANS
        }

    def record(self, vlans: Mapping[str, int]) -> None:
        """Raises :class:`TaskFailed`."""
        keys = {_KEY + network: str(vlan) for network, vlan in vlans.items()}
        put = self._ovsdb.api.db_set(
            "Bridge", self._bridge, ("external_ids", keys), if_exists=False
        )
        self._ovsdb.record([put])

    def drop(self, networks: Collection[str]) -> None:
        """Raises :class:`TaskFailed`."""
        keys = [_KEY + network for network in networks]
        self._ovsdb.record(
            [self._ovsdb.api.db_remove("Bridge", self._bridge, "external_ids", *keys)]
        )
