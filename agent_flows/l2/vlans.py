"""Local VLANs: which network has which, recorded in OVSDB so that it survives restarts.

A record is a key of the integration bridge's external_ids. It is written
before the first flow that carries the VLAN and dropped after the last one, so
no VLAN is ever given to a second network while flows of the first are left.
Anybody may change external_ids, so a record is the last that is believed: what
this process gave out comes first, then what the ports carry.
"""

from collections.abc import Collection, Iterable, Mapping

from agent_flows.l2.ovsdb import Ovsdb

# 802.1Q: 0 and 4095 are reserved.
VLANS = range(1, 4095)
_KEY = "agent-flows-vlan-"


def settle(*sources: Mapping[str, int]) -> dict[str, int]:
    """Network to VLAN, of several sources, the most believed first: a network keeps the first
    VLAN it is said to have, and no VLAN stays with two networks."""
    settled: dict[str, int] = {}
    taken: set[int] = set()
    for source in sources:
        for network, vlan in sorted(source.items()):
            if network not in settled and vlan not in taken:
                settled[network] = vlan
                taken.add(vlan)
    return settled


def choose(
    taken: Mapping[str, int],
    networks: Iterable[str],
    busy: Collection[int] = (),
    after: int = 0,
) -> dict[str, int]:
    """A free VLAN for each network that has none; a network left out found none free.

    ``busy`` are VLANs that are in use besides. The search begins above
    ``after``, so that a VLAN somebody just left is the last to be given again.
    """
    in_use = {*taken.values(), *busy}
    order = (*range(after + 1, VLANS.stop), *range(VLANS.start, after + 1))
    free = (vlan for vlan in order if vlan not in in_use)
    wanted = (network for network in networks if network not in taken)
    return dict(zip(wanted, free, strict=False))


class Vlans:
    """The records on ``bridge``, and the VLANs its ports carry."""

    def __init__(self, ovsdb: Ovsdb, bridge: str) -> None:
        self._ovsdb = ovsdb
        self._bridge = bridge

    def recorded(self) -> dict[str, int]:
        """Network id to local VLAN; what is no VLAN counts as no record."""
        return {
            network: int(value)
            for network, value in self._records().items()
            if value.isascii() and value.isdecimal() and int(value) in VLANS
        }

    def named(self) -> frozenset[str]:
        """Every network that has a record, whatever it says."""
        return frozenset(self._records())

    def carried(self) -> tuple[dict[str, int], frozenset[int]]:
        """What the ports on the bridge say: network id to local VLAN, and every VLAN that is the
        tag of any of them, or was to be.

        Ports of a network that disagree say nothing of it.
        """
        networks: dict[str, set[int]] = {}
        tags: set[int] = set()
        with self._ovsdb.reading() as content:
            for row in content.port_rows(self._bridge):
                config = row.other_config
                written = config.get("tag", "")
                said = {*row.tag, *([int(written)] if written.isdecimal() else [])}
                tags |= said
                if network := config.get("net_uuid"):
                    networks.setdefault(network, set()).update(said)
        usable = {n: {v for v in said if v in VLANS} for n, said in networks.items()}
        agreed = {n: said.pop() for n, said in usable.items() if len(said) == 1}
        return agreed, frozenset(tags)

    def record(self, vlans: Mapping[str, int], gone: Collection[str] = ()) -> None:
        """Record ``vlans`` and drop the records of networks that are ``gone``, in one transaction.

        Raises :class:`TaskFailed`.
        """
        api = self._ovsdb.api
        commands = []
        if gone:
            keys = [_KEY + network for network in gone]
            commands.append(api.db_remove("Bridge", self._bridge, "external_ids", *keys))
        if vlans:
            values = {_KEY + network: str(vlan) for network, vlan in vlans.items()}
            commands.append(
                api.db_set("Bridge", self._bridge, ("external_ids", values), if_exists=False)
            )
        if commands:
            self._ovsdb.record(commands)

    def _records(self) -> dict[str, str]:
        with self._ovsdb.reading() as content:
            row = content.row("Bridge", self._bridge)
            records = {} if row is None else row.external_ids
            return {
                key.removeprefix(_KEY): value
                for key, value in records.items()
                if key.startswith(_KEY)
            }
