"""Networks on this host: who uses them, their local VLANs and their flows."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent_flows.flows.task import PortErrors, TaskFailed
from agent_flows.l2 import network_flows, vlans
from agent_flows.l2.bridges import Bridges, Uplink
from agent_flows.l2.vlans import Vlans
from agent_flows.report import TaskError
from agent_flows.secgroups import cookie, readback
from agent_flows.secgroups.ofctl import Ofctl, SwitchError, SwitchUnreachable, Timeout
from agent_flows.spec import NetworkSpec, NetworkType

# Of a cookie: owner and kind.
_KIND_MASK = 0xFFFF_FF00_0000_0000


@dataclass(frozen=True)
class Provisioned:
    """A network as its flows stand in the switch; no uplink for a local one."""

    network: NetworkSpec
    vlan: int
    uplink: Uplink | None


class Networks:
    """Provisions networks for ports and takes them down after the last one.

    Thread-safe: who uses a network changes under the same lock as its flows,
    so none is taken down while a port is being wired to it.
    """

    def __init__(
        self, vlan_records: Vlans, bridges: Bridges, ofctl: Callable[[str], Ofctl]
    ) -> None:
        self._vlans = vlan_records
        self._bridges = bridges
        self._ofctl = ofctl
        self._lock = threading.Lock()
        self._users: dict[str, str] = {}
        self._provisioned: dict[str, Provisioned] = {}

    def provision(self, ports: Mapping[str, NetworkSpec]) -> dict[str, int]:
        """Make the networks of ``ports`` work here; answers each port's local VLAN.

        One OVSDB transaction for all networks new to this host, and one bundle
        for each bridge that needs flows. Raises :class:`PortErrors` for the
        ports of networks that cannot be had.
        """
        with self._lock:
            networks = {network.id: network for network in ports.values()}
            uplinks, errors = self._uplinks(networks.values())
            recorded = self._vlans.recorded()
            errors |= self._conflicts(networks, uplinks)
            new = vlans.choose(recorded, [n for n in networks if n not in errors])
            errors |= {
                network: TaskError("NoLocalVlan", "all 4094 local VLANs of this host are in use")
                for network in networks
                if network not in errors and network not in recorded and network not in new
            }
            if errors:
                raise PortErrors(
                    {p: errors[network.id] for p, network in ports.items() if network.id in errors}
                )
            if new:
                self._vlans.record(new)
            known = {**recorded, **new}
            self._users |= {port_id: network.id for port_id, network in ports.items()}
            self._install(
                Provisioned(network, known[network.id], uplinks.get(network.id))
                for network in networks.values()
            )
            return {port_id: known[network.id] for port_id, network in ports.items()}

    def vlans(self) -> dict[str, int]:
        """Network id to local VLAN, of every network on this host."""
        return self._vlans.recorded()

    def release(self, port_ids: Collection[str]) -> None:
        """The ports are gone from here; networks without any others go too."""
        with self._lock:
            for port_id in port_ids:
                self._users.pop(port_id, None)
            used = set(self._users.values())
            self._take_down([each for each in self._provisioned if each not in used])

    def sweep(self) -> None:
        """Drop records and flows that no port wired since our start stands for.

        To be called once every port on the host has been seen.
        """
        with self._lock:
            used = set(self._users.values())
            self._take_down(
                [each for each in {*self._provisioned, *self._vlans.recorded()} if each not in used]
            )
            live = {each.vlan for each in self._provisioned.values()}
            for bridge in self._all_bridges():
                stale = self._installed_vlans(bridge) - live
                self._write(bridge, [network_flows.removal(vlan) for vlan in sorted(stale)])

    def forget(self) -> None:
        """The switch was restarted: no flow of ours is in it any more."""
        with self._lock:
            self._provisioned.clear()
            self._bridges.forget()

    def _uplinks(
        self, networks: Iterable[NetworkSpec]
    ) -> tuple[dict[str, Uplink], dict[str, TaskError]]:
        uplinks: dict[str, Uplink] = {}
        errors: dict[str, TaskError] = {}
        for network in networks:
            if network.network_type.is_tunnel:
                errors[network.id] = TaskError(
                    "Unsupported",
                    f"network {network.id} is a {network.network_type} tunnel; this agent wires "
                    "local, flat and vlan networks",
                )
                continue
            if network.physical_network is None:
                continue
            try:
                uplinks[network.id] = self._bridges.uplink(network.physical_network)
            except TaskFailed as exc:
                if exc.whole_batch:
                    raise
                errors[network.id] = exc.error
        return uplinks, errors

    def _conflicts(
        self, networks: Mapping[str, NetworkSpec], uplinks: Mapping[str, Uplink]
    ) -> dict[str, TaskError]:
        """Networks that claim a segment another one has: their traffic could not be told apart."""
        used = set(self._users.values())
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
                    "SegmentInUse",
                    f"network {holder} already has {_described(network)} on this host",
                )
        return errors

    def _install(self, wanted: Iterable[Provisioned]) -> None:
        changed = [each for each in wanted if self._provisioned.get(each.network.id) != each]
        lines: dict[str, list[str]] = {}
        for each in changed:
            # Until its flows are known to be the new ones, they may be anything.
            self._provisioned.pop(each.network.id, None)
            # The flows of another segment match what the new ones do not, so
            # they would stay beside them.
            inside = lines.setdefault(self._bridges.integration, [])
            inside.append(network_flows.removal(each.vlan))
            inside += network_flows.on_integration_bridge(each.network, each.vlan, each.uplink)
            if each.uplink is not None:
                outside = lines.setdefault(each.uplink.bridge, [])
                outside.append(network_flows.removal(each.vlan))
                outside += network_flows.base_of_physical_bridge(each.uplink)
                outside += network_flows.on_physical_bridge(each.network, each.vlan, each.uplink)
        # The way out of the host first: until the integration bridge sends
        # something there, it is nobody's.
        for bridge in sorted(lines, key=lambda name: name == self._bridges.integration):
            self._write(bridge, lines[bridge])
        self._provisioned |= {each.network.id: each for each in changed}

    def _take_down(self, networks: Collection[str]) -> None:
        if not networks:
            return
        recorded = self._vlans.recorded()
        gone = {network: recorded[network] for network in networks if network in recorded}
        for network in networks:
            self._provisioned.pop(network, None)
        for bridge in self._all_bridges():
            self._write(bridge, [network_flows.removal(vlan) for vlan in gone.values()])
        self._vlans.drop(gone)

    def _all_bridges(self) -> list[str]:
        return [self._bridges.integration, *self._bridges.physical()]

    def _installed_vlans(self, bridge: str) -> set[int]:
        """Local VLANs of the networks that have flows on a bridge."""
        kind = cookie.network(0)
        with _switch_errors():
            seen = readback.cookies(self._ofctl(bridge).dump(kind, _KIND_MASK))
        return {cookie.serial(each) for each in seen} - {cookie.serial(kind)}

    def _write(self, bridge: str, lines: Sequence[str]) -> None:
        """One bundle. Raises :class:`PortErrors` for the ports of a network that was refused,
        else :class:`TaskFailed`."""
        with _switch_errors():
            try:
                self._ofctl(bridge).bundle(lines)
            except SwitchError as exc:
                refused = {cookie.serial(each.cookie): each for each in exc.refusals if each.cookie}
                vlans = self._vlans.recorded()
                errors = {
                    port_id: TaskError(
                        "FlowRefused",
                        f"bridge {bridge} refused a flow of the network: "
                        f"{refused[vlans[network]].error}",
                        refused[vlans[network]].text,
                    )
                    for port_id, network in self._users.items()
                    if vlans.get(network) in refused
                }
                if errors:
                    raise PortErrors(errors) from exc
                raise


@contextlib.contextmanager
def _switch_errors() -> Iterator[None]:
    """Errors of ovs-ofctl as a task's."""
    try:
        yield
    except Timeout as exc:
        raise TaskFailed(TaskError("Timeout", str(exc)), whole_batch=True) from exc
    except SwitchError as exc:
        error = TaskError(type(exc).__name__, exc.message, exc.detail)
        raise TaskFailed(error, whole_batch=isinstance(exc, SwitchUnreachable)) from exc


def _segment(network: NetworkSpec) -> tuple[str | None, int | None]:
    return network.physical_network, network.segmentation_id


def _described(network: NetworkSpec) -> str:
    if network.network_type is NetworkType.FLAT:
        return f"the untagged traffic of physical network {network.physical_network}"
    return f"VLAN {network.segmentation_id} of physical network {network.physical_network}"
