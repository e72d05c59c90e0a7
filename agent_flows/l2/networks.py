"""Networks on this host: their ports, local VLANs and flows."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from oslo_log import log

from agent_flows.engine.task import PortErrors, TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.l2 import network_flows
from agent_flows.l2.bridges import Bridges, Uplink
from agent_flows.l2.vlans import LocalVlans, VlanRecords
from agent_flows.openflow import connections, cookie
from agent_flows.openflow.connections import Speaker
from agent_flows.openflow.flow import Flow
from agent_flows.openflow.ofctl import Ofctl, SwitchError
from agent_flows.openflow.outcome import switch_errors
from agent_flows.report import TaskError
from agent_flows.spec import NetworkSpec, NetworkType, PortSpec

LOG = log.getLogger(__name__)

# Of a cookie: owner and kind.
_KIND_MASK = 0xFFFF_FF00_0000_0000


@dataclass(frozen=True)
class Provisioned:
    """A network as its flows are installed; a local one has no uplink."""

    network: NetworkSpec
    vlan: int
    uplink: Uplink | None


@dataclass(frozen=True)
class Outside:
    """What is ours on a physical network's bridge: flows by cookie, and the networks by local
    VLAN. Not ``swept``: flows of an older process may be there too."""

    flows: Mapping[int, Sequence[Flow]]
    networks: Mapping[int, str]
    swept: bool


@dataclass(frozen=True)
class _User:
    """A port of a network, and the addresses it sends from."""

    network: str
    addresses: frozenset[str]


class Networks:
    """Provisions networks for ports and removes them after the last one.

    Thread-safe: the ports of a network change under the same lock as its flows,
    so it is not removed while a port is being wired to it.

    When a port leaves, the connections of its addresses are ended: their next
    owner must not get the replies to them.
    """

    def __init__(
        self, vlan_records: VlanRecords, bridges: Bridges, ofctl: Callable[[str], Ofctl]
    ) -> None:
        self._vlans = LocalVlans(vlan_records, self._flush)
        self._bridges = bridges
        self._ofctl = ofctl
        self._lock = threading.Lock()
        self._users: dict[str, _User] = {}
        self._provisioned: dict[str, Provisioned] = {}
        self._cut_off: dict[str, str] = {}
        self._swept = False

    def provision(self, ports: Mapping[str, PortSpec], *, rewrite: bool = False) -> dict[str, int]:
        """Make the networks of ``ports`` work here; returns each port's local VLAN.

        One OVSDB transaction for all networks new to this host, and one bundle
        for each bridge that needs flows; with ``rewrite`` for each bridge, even
        if its flows seem right. Raises :class:`PortErrors` for the ports of
        networks that cannot be provisioned.
        """
        with self._lock:
            networks = {port.network.id: port.network for port in ports.values()}
            uplinks, errors = self._uplinks(networks.values())
            errors |= self._conflicts(networks, uplinks)
            errors |= self._vlans.give([n for n in networks if n not in errors])
            if errors:
                raise PortErrors(
                    {
                        port_id: errors[port.network.id]
                        for port_id, port in ports.items()
                        if port.network.id in errors
                    }
                )
            users = {
                port_id: _User(port.network.id, connections.addresses_of(port))
                for port_id, port in ports.items()
            }
            before = {port_id: self._users[port_id] for port_id in users if port_id in self._users}
            self._users |= users
            self._install(
                [
                    Provisioned(network, self._vlans.given[network.id], uplinks.get(network.id))
                    for network in networks.values()
                ],
                rewrite,
            )
            abandoned = self._abandoned(before, self._users)
            given = {p: self._vlans.given[port.network.id] for p, port in ports.items()}
        self._end_connections(abandoned)
        return given

    def vlans(self) -> dict[str, int]:
        """Network id to local VLAN, of every network on this host."""
        with self._lock:
            return self._vlans.known()

    def join(self, physical_network: str) -> Uplink:
        """The uplink to a physical network, checked and repaired.

        If it is not the one its networks were provisioned with, they are cut
        off until their ports are provisioned again: untranslated frames must
        not get to a bridge without our flows.

        Raises :class:`TaskFailed`.
        """
        with self._lock:
            return self._join(physical_network)

    def cut_off(self) -> Mapping[str, str]:
        """The physical networks whose networks were cut off since the last call, and why: their
        ports must be provisioned again."""
        with self._lock:
            cut_off, self._cut_off = self._cut_off, {}
            return cut_off

    def mend_records(self) -> None:
        """Correct changed records of VLANs. Raises :class:`TaskFailed`."""
        with self._lock:
            if self._bridges.exists(self._bridges.integration):
                self._vlans.record({user.network for user in self._users.values()})

    def flow_count(self) -> int:
        """How many flows of networks the integration bridge should hold."""
        return sum(map(len, map(self._inside, self._provisioned.copy().values())))

    def uplinks(self) -> frozenset[int]:
        """The ofports of the integration bridge that lead to the physical networks."""
        provisioned = self._provisioned.copy().values()
        return frozenset(each.uplink.ofport for each in provisioned if each.uplink is not None)

    @contextlib.contextmanager
    def held_flows(self) -> Iterator[dict[int, list[Flow]]]:
        """These flows by cookie; none of them changes inside the block."""
        with self._lock:
            yield {
                cookie.network(each.vlan): self._inside(each) for each in self._provisioned.values()
            }

    def outside(self) -> dict[str, Outside]:
        """What each physical network's bridge should hold of ours.

        A bridge whose uplink is not the one its networks were provisioned with is
        left out: they are about to be cut off, or provisioned again.
        """
        provisioned = list(self._provisioned.copy().values())
        uplinks = {each.uplink for each in provisioned if each.uplink}
        moved = {
            each.bridge
            for each in uplinks
            if each != self._bridges.current_uplink(each.physical_network)
        }
        flows: dict[str, dict[int, Sequence[Flow]]] = {}
        networks: dict[str, dict[int, str]] = {}
        for each in provisioned:
            if each.uplink is None or each.uplink.bridge in moved:
                continue
            base = {cookie.network(0): network_flows.base_of_physical_bridge(each.uplink)}
            flows.setdefault(each.uplink.bridge, dict(base))[cookie.network(each.vlan)] = (
                network_flows.on_physical_bridge(each.network, each.vlan, each.uplink)
            )
            networks.setdefault(each.uplink.bridge, {})[each.vlan] = each.network.id
        return {
            bridge: Outside(its_flows, networks[bridge], self._swept)
            for bridge, its_flows in flows.items()
        }

    @contextlib.contextmanager
    def held_outside(self) -> Iterator[dict[str, Outside]]:
        """The same; nothing of it changes inside the block."""
        with self._lock:
            yield self.outside()

    def rewrite_outside(self, bridge: str) -> None:
        """Write what is ours on a physical network's bridge again. Raises :class:`TaskFailed`."""
        with self._lock:
            outside = self.outside().get(bridge)
            if outside is not None:
                lines = [
                    line
                    for value, flows in outside.flows.items()
                    for line in network_flows.replacement(flows, cookie.serial(value))
                ]
                self._write(bridge, lines)

    @staticmethod
    def _inside(each: Provisioned) -> list[Flow]:
        return network_flows.on_integration_bridge(each.network, each.vlan, each.uplink)

    def release(self, port_ids: Collection[str]) -> None:
        """These ports are gone; remove the networks that have no others.

        Call it again if it raises :class:`TaskFailed`.
        """
        with self._lock:
            gone = {p: self._users[p] for p in port_ids if p in self._users}
            remaining = {p: user for p, user in self._users.items() if p not in gone}
            used = {user.network for user in remaining.values()}
            self._take_down([network for network in self._vlans.given if network not in used])
            abandoned = self._abandoned(gone, remaining)
        self._end_connections(abandoned)
        with self._lock:
            for port_id, user in gone.items():
                if self._users.get(port_id) == user:
                    del self._users[port_id]

    def sweep(self) -> None:
        """Remove records and flows that no port wired since the start uses.

        Call it after every port on the host was provisioned.
        """
        with self._lock:
            used = {user.network for user in self._users.values()}
            known = {*self._vlans.given, *self._provisioned, *self._vlans.recorded()}
            self._take_down([each for each in sorted(known) if each not in used])
            live = {each.vlan for each in self._provisioned.values()}
            for bridge in self._all_bridges():
                stale = self._installed_vlans(bridge) - live
                self._write(bridge, [network_flows.removal(vlan) for vlan in sorted(stale)])
            self._swept = True

    def forget(self) -> None:
        """The switch lost all flows."""
        with self._lock:
            self._provisioned.clear()

    def empty_ahead(self) -> None:
        """End the connections left in the zones that will be given next. Raises
        :class:`TaskFailed`."""
        while self._empty_next():
            pass

    def _empty_next(self) -> bool:
        # The lock for one zone at a time: provisioning need not wait for all.
        with self._lock:
            exists = self._bridges.exists(self._bridges.integration)
            return exists and self._vlans.empty_next()

    def _flush(self, zone: int) -> None:
        with switch_errors():
            self._ofctl(self._bridges.integration).flush_connections(zone)

    def _join(self, physical_network: str) -> Uplink:
        now = self._bridges.current_uplink(physical_network)
        moved = {
            each: each.uplink
            for each in self._provisioned.values()
            if each.uplink is not None
            and each.uplink.physical_network == physical_network
            and each.uplink != now
        }
        if not moved:
            return self._bridges.uplink(physical_network)
        reason = self._bridges.change_of_uplink(next(iter(moved.values())))
        if self._bridges.exists(self._bridges.integration):
            LOG.warning(
                "The uplink to physical network %s has changed (%s); cutting off %d networks",
                physical_network,
                reason,
                len(moved),
            )
            removals = [network_flows.removal(each.vlan) for each in moved]
            self._write(self._bridges.integration, removals)
        self._cut_off[physical_network] = reason
        for each in moved:
            del self._provisioned[each.network.id]
        return self._bridges.uplink(physical_network)

    def _uplinks(
        self, networks: Iterable[NetworkSpec]
    ) -> tuple[dict[str, Uplink], dict[str, TaskError]]:
        uplinks: dict[str, Uplink] = {}
        errors: dict[str, TaskError] = {}
        for network in networks:
            if network.network_type.is_tunnel:
                errors[network.id] = TaskError(
                    ErrorType.UNSUPPORTED,
                    f"network {network.id} is a {network.network_type} tunnel; this agent wires "
                    "local, flat and vlan networks",
                )
                continue
            if network.physical_network is None:
                continue
            try:
                uplinks[network.id] = self._join(network.physical_network)
            except TaskFailed as exc:
                if exc.whole_batch:
                    raise
                errors[network.id] = exc.error
        return uplinks, errors

    def _conflicts(
        self, networks: Mapping[str, NetworkSpec], uplinks: Mapping[str, Uplink]
    ) -> dict[str, TaskError]:
        """Networks that claim another one's segment: their traffic could not be distinguished."""
        used = {user.network for user in self._users.values()}
        holders = {
            _segment(each.network): each.network.id
            for each in self._provisioned.values()
            if each.uplink is not None and each.network.id in used
        }
        errors = {}
        for network in networks.values():
            if network.id not in uplinks:
                continue
            holder = holders.setdefault(_segment(network), network.id)
            if holder != network.id:
                errors[network.id] = TaskError(
                    ErrorType.SEGMENT_IN_USE,
                    f"network {holder} already has {_described(network)} on this host",
                )
        return errors

    def _install(self, wanted: Iterable[Provisioned], rewrite: bool) -> None:
        changed = [
            each for each in wanted if rewrite or self._provisioned.get(each.network.id) != each
        ]
        lines: dict[str, list[str]] = {}
        for each in changed:
            # Until the bundles are acknowledged, its flows are unknown.
            self._provisioned.pop(each.network.id, None)
            # Flows of another segment have other matches: the new ones would not
            # replace them.
            inside = lines.setdefault(self._bridges.integration, [])
            inside += network_flows.replacement(self._inside(each), each.vlan)
            if each.uplink is not None:
                # Flows for a patch port with another number go.
                base = network_flows.base_of_physical_bridge(each.uplink)
                outside = lines.setdefault(each.uplink.bridge, network_flows.replacement(base, 0))
                outside += network_flows.replacement(
                    network_flows.on_physical_bridge(each.network, each.vlan, each.uplink),
                    each.vlan,
                )
        # The physical bridges first: nothing gets there until the integration
        # bridge has its flows.
        for bridge in sorted(lines, key=lambda name: name == self._bridges.integration):
            self._write(bridge, lines[bridge])
        self._provisioned |= {each.network.id: each for each in changed}
        for each in changed:
            self._vlans.use(each.vlan)

    def _take_down(self, networks: Collection[str]) -> None:
        """First the switch, then the record, then our state: if one fails, all is done again."""
        if not networks:
            return
        known = self._vlans.known()
        gone = {network: known[network] for network in networks if network in known}
        for bridge in self._all_bridges():
            self._write(bridge, [network_flows.removal(vlan) for vlan in gone.values()])
        if self._bridges.exists(self._bridges.integration):
            for vlan in gone.values():
                self._vlans.empty(vlan)
            self._vlans.remove_records(networks)
        for network in networks:
            self._provisioned.pop(network, None)
            self._vlans.take_back(network)

    def _abandoned(
        self, before: Mapping[str, _User], after: Mapping[str, _User]
    ) -> dict[int, set[str]]:
        """The addresses, by local VLAN, that these ports had and no port has any more, on
        networks that are still here."""
        return connections.abandoned(self._speakers(before), self._speakers(after))

    def _speakers(self, users: Mapping[str, _User]) -> list[Speaker]:
        given = self._vlans.given
        return [
            Speaker(given[user.network], user.addresses)
            for user in users.values()
            if user.network in given
        ]

    def _end_connections(self, abandoned: Mapping[int, Collection[str]]) -> None:
        ofctl = self._ofctl(self._bridges.integration)
        with switch_errors():
            for vlan, addresses in abandoned.items():
                connections.end(ofctl, vlan, addresses)

    def _all_bridges(self) -> list[str]:
        """Ours that exist: on others nothing is left to remove."""
        integration = self._bridges.integration
        inside = [integration] if self._bridges.exists(integration) else []
        return [*inside, *self._bridges.physical()]

    def _installed_vlans(self, bridge: str) -> set[int]:
        """Local VLANs of the networks that have flows on a bridge."""
        kind = cookie.network(0)
        with switch_errors():
            seen = self._ofctl(bridge).dump(kind, _KIND_MASK)
        return {cookie.serial(entry.cookie) for entry in seen} - {cookie.serial(kind)}

    def _write(self, bridge: str, lines: Sequence[str]) -> None:
        """One bundle. Raises :class:`PortErrors` for the ports of a network that was refused,
        else :class:`TaskFailed`."""
        with switch_errors():
            try:
                self._ofctl(bridge).bundle(lines)
            except SwitchError as exc:
                refused = {cookie.serial(each.cookie): each for each in exc.refusals if each.cookie}
                numbers = self._vlans.given
                errors = {
                    port_id: TaskError(
                        ErrorType.FLOW_REFUSED,
                        f"bridge {bridge} refused a flow of the network: "
                        f"{refused[numbers[user.network]].error}",
                        refused[numbers[user.network]].text,
                    )
                    for port_id, user in self._users.items()
                    if numbers.get(user.network) in refused
                }
                if errors:
                    raise PortErrors(errors) from exc
                raise


def _segment(network: NetworkSpec) -> tuple[str | None, int | None]:
    return network.physical_network, network.segmentation_id


def _described(network: NetworkSpec) -> str:
    if network.network_type is NetworkType.FLAT:
        return f"the untagged traffic of physical network {network.physical_network}"
    return f"VLAN {network.segmentation_id} of physical network {network.physical_network}"
