"""Local VLANs: which network has which, recorded in OVSDB so that it survives restarts.

A record is a key of the integration bridge's external_ids. It is written before the first flow
with the VLAN and removed after the last one, so no VLAN is given to a second network while flows
of the first are left. Anybody may change external_ids, so records count least: before them come
the VLANs that this process gave, then the tags of the ports.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping

from agent_flows.errors import ErrorType
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.report import TaskError

# 802.1Q: 0 and 4095 are reserved.
VLANS = range(1, 4095)
# Zones emptied ahead: a call of ovs-ofctl takes 5 ms, and ten times as long while the switch
# opens 100 ports, which must not wait for it.
_AHEAD = 4
_KEY = "agent-flows-vlan-"


def settle(*sources: Mapping[str, int]) -> dict[str, int]:
    """Network to VLAN from several sources, the most reliable first: a network keeps the first
    VLAN found for it, and no VLAN stays with two networks."""
    settled: dict[str, int] = {}
    taken: set[int] = set()
    for source in sources:
        for network, vlan in sorted(source.items()):
            if network not in settled and vlan not in taken:
                settled[network] = vlan
                taken.add(vlan)
    return settled


def choose(
    taken: Mapping[str, int], networks: Iterable[str], busy: Collection[int] = (), after: int = 0
) -> dict[str, int]:
    """A free VLAN for each network that has none, as long as there are free ones.

    ``busy`` are other VLANs in use. The search begins above ``after``, so that
    the VLAN freed last is the last to be given again.
    """
    in_use = {*taken.values(), *busy}
    order = itertools.chain(range(after + 1, VLANS.stop), range(VLANS.start, after + 1))
    free = (vlan for vlan in order if vlan not in in_use)
    wanted = (network for network in networks if network not in taken)
    return dict(zip(wanted, free, strict=False))


class VlanRecords:
    """The records on ``bridge``, and the VLANs its ports carry."""

    def __init__(self, ovsdb: Ovsdb, bridge: str) -> None:
        self._ovsdb = ovsdb
        self._bridge = bridge

    def recorded(self) -> dict[str, int]:
        """Network id to local VLAN; invalid records are left out."""
        return {
            network: int(value)
            for network, value in self._records().items()
            if value.isascii() and value.isdecimal() and int(value) in VLANS
        }

    def named(self) -> frozenset[str]:
        """Every network that has a record, even an invalid one."""
        return frozenset(self._records())

    def carried(self) -> tuple[dict[str, int], frozenset[int]]:
        """By the ports on the bridge: network id to local VLAN, unless ports of the network
        differ; and every VLAN that is the tag of any port, or should be."""
        networks: dict[str, set[int]] = {}
        tags: set[int] = set()
        with self._ovsdb.reading() as content:
            for row in content.port_rows(self._bridge):
                config = row.other_config
                written = config.get("tag", "")
                found = {*row.tag, *([int(written)] if written.isdecimal() else [])}
                tags |= found
                if network := config.get("net_uuid"):
                    networks.setdefault(network, set()).update(found)
        usable = {n: {v for v in found if v in VLANS} for n, found in networks.items()}
        agreed = {n: found.pop() for n, found in usable.items() if len(found) == 1}
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


class LocalVlans:
    """A local VLAN is also a conntrack zone: ``flush`` ends the connections in one, and none is
    given to a network before that.

    Not thread-safe. Methods raise what OVSDB and ``flush`` do.
    """

    def __init__(self, records: VlanRecords, flush: Callable[[int], None]) -> None:
        self._records = records
        self._flush = flush
        self.given: dict[str, int] = {}
        """Of every network that got one since the start and still has it."""
        self._last = 0  # Given to a network that had none.
        self._empty_zones: set[int] = set()

    def known(self) -> dict[str, int]:
        """Network id to local VLAN, of every network on this host."""
        return settle(self.given, self._records.recorded())

    def give(self, networks: Collection[str]) -> dict[str, TaskError]:
        """Give a local VLAN to each network that has none; the errors of those left without."""
        new = [network for network in networks if network not in self.given]
        if new:
            known, chosen = self._choose(new)
            for vlan in chosen.values():
                if vlan not in self._empty_zones:
                    self.empty(vlan)
                self._last = vlan
            all_ = {**known, **chosen}
            self.given |= {network: all_[network] for network in new if network in all_}
        self.record(networks)
        return {
            network: TaskError(
                ErrorType.NO_LOCAL_VLAN, "all 4094 local VLANs of this host are in use"
            )
            for network in networks
            if network not in self.given
        }

    def record(self, networks: Iterable[str]) -> None:
        """Correct the records of these networks, and remove others that claim the same VLANs."""
        recorded = self._records.recorded()
        right = {network: self.given[network] for network in networks if network in self.given}
        wrong = {network: vlan for network, vlan in right.items() if recorded.get(network) != vlan}
        owners = {vlan: network for network, vlan in self.given.items()}
        false = [
            network for network, vlan in recorded.items() if owners.get(vlan, network) != network
        ]
        if wrong or false:
            self._records.record(wrong, [network for network in false if network not in wrong])

    def recorded(self) -> frozenset[str]:
        """Every network that has a record, even an invalid one."""
        return self._records.named()

    def remove_records(self, networks: Collection[str]) -> None:
        self._records.record({}, self.recorded() & set(networks))

    def take_back(self, network: str) -> None:
        self.given.pop(network, None)

    def use(self, vlan: int) -> None:
        """Connections may come into this zone from now on."""
        self._empty_zones.discard(vlan)

    def empty(self, zone: int) -> None:
        self._flush(zone)
        self._empty_zones.add(zone)

    def empty_next(self) -> bool:
        """Empty one of the zones that will be given next; False if all are empty."""
        coming = [f"coming {number}" for number in range(_AHEAD)]
        if set(choose(self.known(), coming, (), self._last).values()) <= self._empty_zones:
            return False
        _, chosen = self._choose(coming)
        zone = next((zone for zone in chosen.values() if zone not in self._empty_zones), None)
        if zone is not None:
            self.empty(zone)
        return zone is not None

    def _choose(self, networks: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
        """The VLANs that networks have, by what their ports carry too, and those of ``networks``
        that have none."""
        carried, busy = self._records.carried()
        known = settle(self.given, carried, self._records.recorded())
        return known, choose(known, networks, busy, self._last)
