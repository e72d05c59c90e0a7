"""Ports that are kept closed until their security groups are verified.

On Neutron's integration bridge the packets of a port without flows fall through
to NORMAL and pass. A port in quarantine sends nothing and receives no unicast.
Broadcasts still reach it, unless it is also sealed: that takes one call per
port, so only the few ports that failed are sealed.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from dataclasses import dataclass, replace

from oslo_log import log

from agent_flows.errors import ErrorType
from agent_flows.fairness import fair
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.flow import Flow
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.outcome import switch_errors
from agent_flows.openflow.pipeline import Register, Table
from agent_flows.openflow.priorities import AcceptOrIngress, Transient, Uplink

LOG = log.getLogger(__name__)

# Not the firewall's: it sweeps the flows with its own that it does not know.
OWNER = 0xAF11
_OURS = (OWNER << 48, 0xFFFF << 48)
_PORTS = (cookie.OWNER << 48 | Kind.PORT << 40, 0xFFFF_FF << 40)


_FLOOR = flow.add(str(Flow(Table.TRANSIENT, Transient.FLOOR)), OWNER << 48)
"""Below all of the pipeline and above Neutron's NORMAL: if the flows of the pipeline are deleted,
nothing passes. Its cookie is not theirs, so that it stays."""

HeldMac = tuple[int | None, str]
"""A local VLAN, and a MAC address there."""


def cookie_of(ofport: int) -> int:
    return OWNER << 48 | ofport << 16


@dataclass(frozen=True)
class Endpoint:
    """A port by its ofport and its MACs on its network's local VLAN.

    ``segment`` is the tag of the network's frames on the physical network (0:
    untagged), None for a network that is on none.
    """

    port_id: str
    ofport: int
    vlan: int | None = None
    macs: frozenset[str] = frozenset()
    segment: int | None = None

    @property
    def held(self) -> frozenset[HeldMac]:
        return frozenset((self.vlan, mac) for mac in self.macs)

    def without(self, held: Set[HeldMac]) -> "Endpoint":
        return replace(self, macs=frozenset(mac for vlan, mac in self.held - held))

    def closing_flows(self) -> Iterator[Flow]:
        yield Flow(Table.TRANSIENT, Transient.CLOSED, (flow.in_port(self.ofport),))
        if self.vlan is None:
            return
        network = flow.register(Register.NETWORK, self.vlan)
        for address in sorted(self.macs):
            mac = flow.dl_dst(address)
            yield Flow(Table.TRANSIENT, Transient.CLOSED, (flow.vlan(self.vlan), mac))
            yield Flow(Table.ACCEPT_OR_INGRESS, AcceptOrIngress.CLOSED, (network, mac))
            yield Flow(Table.UPLINK, Uplink.CLOSED, (network, mac))
            if self.segment is not None:
                tag = flow.vlan(self.segment) if self.segment else flow.UNTAGGED
                yield Flow(Table.TRANSIENT, Transient.CLOSED_SEGMENT, (tag, mac))


def lay_floor(ofctl: Ofctl) -> None:
    """From now on nothing passes without the pipeline, whatever Neutron's agent installs. Raises
    :class:`TaskFailed` if the switch refuses or does not answer, or has no such bridge."""
    with switch_errors(ErrorType.QUARANTINE_FAILED):
        ofctl.bundle([_FLOOR])


class Quarantine:
    """The closed ports of one bridge, and the programmed ones. A programmed port is never closed,
    and no MAC that it holds: its packets go through the pipeline, under its rules old or new.

    Safe from any thread. Methods raise :class:`TaskFailed` if the switch refuses or does not
    answer; nothing has changed then.
    """

    def __init__(self, ofctl: Ofctl) -> None:
        self._ofctl = ofctl
        self._lock = threading.Lock()
        # Both by ofport. Of ports found in the switch the id is unknown, and so are the MACs of
        # programmed ones.
        self._closed: dict[int, Endpoint] = {}
        self._programmed: dict[int, Endpoint] = {}
        self._sealed: frozenset[int] = frozenset()

    def start(self) -> None:
        """Read the closed and the programmed ports from the switch. To be called when the pipeline
        is installed: from then on nothing passes without it."""
        with self._lock, switch_errors(ErrorType.QUARANTINE_FAILED):
            self._ofctl.bundle([_FLOOR])
            self._closed = read(self._ofctl.dump(*_OURS))
            self._sealed = self._ofctl.sealed()
            self._find_programmed()

    def _find_programmed(self) -> None:
        ofports = {
            cookie.serial(entry.cookie)
            for entry in self._ofctl.dump(*_PORTS)
            if entry.table == Table.TRANSIENT and "in_port" in entry.fields
        }
        known = self._programmed
        self._programmed = {ofport: known.get(ofport) or Endpoint("", ofport) for ofport in ofports}

    def restore(self) -> None:
        """Write what another program deleted or changed of these flows."""
        with self._lock, switch_errors(ErrorType.QUARANTINE_FAILED):
            # By key: of two ports with one MAC the later has its flow.
            expected = {
                each.key: flow.add(str(each), cookie_of(port.ofport))
                for port in self._closed.values()
                for each in port.closing_flows()
            }
            found = self._ofctl.dump(*_OURS)
            if len(found) == 1 + len(expected) and all(each.actions == "drop" for each in found):
                return
            LOG.warning("Writing the quarantine's %d flows again: they were changed", len(expected))
            everything = f"delete {cookie.selector(*_OURS)}"
            self._ofctl.bundle([everything, _FLOOR, *expected.values()])

    def close(self, ports: Iterable[Endpoint]) -> None:
        """Close those of ``ports`` that are not programmed; one bundle."""
        with self._lock, switch_errors(ErrorType.QUARANTINE_FAILED):
            self._close(ports)

    def close_failed(self, ports: Collection[Endpoint]) -> None:
        """Close and seal those of ``ports`` that the switch has no flows for."""
        if not ports:
            return
        with self._lock, switch_errors(ErrorType.QUARANTINE_FAILED):
            self._find_programmed()
            self._close(ports)
            ofports = {port.ofport for port in ports}
            for ofport in sorted(self._closed.keys() & ofports - self._sealed):
                self._ofctl.seal(ofport)
                self._sealed |= {ofport}

    def open(self, ports: Collection[Endpoint]) -> frozenset[Endpoint]:
        """Let these programmed ports go, and the MACs they hold, for which other ports may be
        closed; one bundle. Returns those that were closed."""
        with self._lock, switch_errors(ErrorType.QUARANTINE_FAILED):
            ofports = {port.ofport for port in ports}
            held = frozenset[HeldMac]().union(*(port.held for port in ports))
            opened = frozenset(self._closed[ofport] for ofport in ofports & self._closed.keys())
            others = [port for port in self._closed.values() if port not in opened]
            self._change(opened, [port.without(held) for port in others])
            self._programmed |= {port.ofport: port for port in ports}
            for ofport in sorted(self._sealed & ofports):
                self._ofctl.unseal(ofport)
                self._sealed -= {ofport}
            return opened

    def close_again(self, ports: Collection[Endpoint]) -> None:
        """Undo :meth:`open` for the ports that it returned."""
        with self._lock, switch_errors(ErrorType.QUARANTINE_FAILED):
            for port in ports:
                self._programmed.pop(port.ofport, None)
            self._change((), ports)

    def forget(self, port_ids: Collection[str], ofports: Collection[int]) -> None:
        """Ports that are gone, known by id or ofport."""
        self._keep(lambda port: port.ofport not in ofports and port.port_id not in port_ids)

    def sweep(self, ofports: Collection[int]) -> None:
        """Forget the ports whose interface is gone: all but ``ofports``."""
        self._keep(lambda port: port.ofport in ofports)

    def _keep(self, stays: Callable[[Endpoint], bool]) -> None:
        with self._lock, switch_errors(ErrorType.QUARANTINE_FAILED):
            self._change([port for port in self._closed.values() if not stays(port)])
            self._programmed = {o: port for o, port in self._programmed.items() if stays(port)}
            self._sealed = frozenset(
                ofport
                for ofport in self._sealed
                if stays(self._closed.get(ofport) or Endpoint("", ofport))
            )

    def _close(self, ports: Iterable[Endpoint]) -> None:
        programmed = self._programmed.values()
        self._change(
            (),
            [
                port.without({
                    mac for other in programmed if other.port_id != port.port_id
                    for mac in other.held
                })
                for port in ports
                if port.ofport not in self._programmed
            ],
        )  # fmt: skip

    def _change(self, opened: Collection[Endpoint], closed: Iterable[Endpoint] = ()) -> None:
        new = [port for port in fair(closed) if self._closed.get(port.ofport) != port]
        gone = {port.ofport for port in opened}
        replaced = {port.ofport for port in new} & self._closed.keys()
        lines = [flow.delete(cookie_of(ofport)) for ofport in sorted(gone | replaced)]
        lines += [flow.add(str(line), cookie_of(port.ofport)) for port in fair(new)
                  for line in port.closing_flows()]  # fmt: skip
        self._ofctl.bundle(lines)
        kept = {ofport: port for ofport, port in self._closed.items() if ofport not in gone}
        self._closed = kept | {port.ofport: port for port in new}


def read(entries: Iterable[FlowEntry]) -> dict[int, Endpoint]:
    """The closed ports by ofport, from their closing flows."""
    closed: dict[int, Endpoint] = {}
    for entry in fair(entries):
        ofport = cookie.serial(entry.cookie)
        if not ofport:
            continue  # The floor: no port has the ofport 0.
        known = closed.setdefault(ofport, Endpoint("", ofport))
        mac = entry.fields.get("dl_dst")
        if entry.table == Table.TRANSIENT and mac is not None:
            tag = entry.number("dl_vlan") or 0
            if entry.priority == Transient.CLOSED:
                known = replace(known, vlan=tag, macs=known.macs | {mac})
            else:
                known = replace(known, segment=tag)
        closed[ofport] = known
    return closed
