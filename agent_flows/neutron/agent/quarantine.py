"""Ports that are kept closed until their security groups are verified.

In Neutron's integration bridge a port that nobody has programmed falls through
to NORMAL and passes everything. A port in quarantine sends nothing, and
receives nothing that is addressed to it; broadcasts reach it as they reach
every port there, unless it is sealed, too. That takes a call for each port, so
it is for those that failed, of which there are few.
"""

import functools
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import TypeVar

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.flow import Flow
from agent_flows.openflow.ofctl import Ofctl, SwitchError, Timeout
from agent_flows.openflow.pipeline import Register, Table
from agent_flows.report import TaskError

T = TypeVar("T")

# Beside the firewall's flows and not among them: it sweeps what it does not know.
OWNER = 0xAF11
_OURS = (OWNER << 48, 0xFFFF << 48)
_PORTS = (cookie.OWNER << 48 | Kind.PORT << 40, 0xFFFF_FF << 40)

_ABOVE_ALL = 200
"""Neutron's highest in table 60 is 102 (DNS forwarder); the firewall's 100."""
_BELOW_DOORS = 85
"""Above the deliveries of frames still tagged as on the physical network (80; Neutron's 20), and
below the doors of ports (100): without a tag, these may be on any network."""

_DOOR = re.compile(r"cookie=(0x[0-9a-f]+),.*\btable=60,.*\bin_port=")
_COOKIE = re.compile(r"cookie=(0x[0-9a-f]+)")
_TO_MAC = re.compile(r"\btable=60,.*\bpriority=(\d+),(?:dl_vlan=(\d+),|\S*?)dl_dst=([0-9a-f:]{17})")


HeldMac = tuple[int | None, str]
"""A local VLAN, and a MAC address there."""


def cookie_of(ofport: int) -> int:
    return OWNER << 48 | ofport << 16


@dataclass(frozen=True)
class Closed:
    """A port to be closed: by its ofport, and its MACs on its network's local VLAN.

    ``segment`` is the tag of the network's frames on the physical network (0:
    none), None for a network that is on none.
    """

    port_id: str
    ofport: int
    vlan: int | None = None
    macs: frozenset[str] = frozenset()
    segment: int | None = None

    def holds_none_of(self, held: Set[HeldMac]) -> bool:
        return all((self.vlan, mac) not in held for mac in self.macs)

    def without(self, held: Set[HeldMac]) -> "Closed":
        kept = frozenset(mac for mac in self.macs if (self.vlan, mac) not in held)
        return replace(self, macs=kept)

    def flows(self) -> Iterator[Flow]:
        yield Flow(Table.TRANSIENT, _ABOVE_ALL, (flow.in_port(self.ofport),))
        if self.vlan is None:
            return
        network = flow.register(Register.NETWORK, self.vlan)
        for each in sorted(self.macs):
            mac = flow.dl_dst(each)
            yield Flow(Table.TRANSIENT, _ABOVE_ALL, (flow.vlan(self.vlan), mac))
            for table in (Table.ACCEPT_OR_INGRESS, Table.UPLINK):
                yield Flow(table, _ABOVE_ALL, (network, mac))
            if self.segment is not None:
                tag = flow.vlan(self.segment) if self.segment else flow.UNTAGGED
                yield Flow(Table.TRANSIENT, _BELOW_DOORS, (tag, mac))


class Quarantine:
    """The closed ports of one bridge, and which are programmed and so need no closing: what these
    send goes through the pipeline, which lets pass what rules allow and nothing else.

    Safe from any thread. Methods raise :class:`TaskFailed` if the switch does
    not do as told; then nothing has changed.
    """

    def __init__(self, ofctl: Ofctl) -> None:
        self._ofctl = ofctl
        self._lock = threading.Lock()
        self._closed: dict[int, Closed] = {}
        self._programmed: set[int] = set()
        self._sealed: frozenset[int] = frozenset()

    def start(self) -> None:
        """See what stands; whose the ports of an older process were is not known."""
        with self._lock:
            self._closed = read(_told(lambda: self._ofctl.dump(*_OURS)))
            self._sealed = _told(self._ofctl.sealed)
            self._look()

    def look(self) -> None:
        """Ask the switch again which ports are programmed."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        doors = map(_DOOR.search, _told(lambda: self._ofctl.dump(*_PORTS)))
        self._programmed = {cookie.serial(int(found[1], 16)) for found in doors if found}

    def holds(self, ofport: int) -> bool:
        return ofport in self._closed

    def close(self, ports: Iterable[Closed]) -> None:
        """Close those of ``ports`` that are not programmed; one bundle."""
        with self._lock:
            self._change((), [each for each in ports if each.ofport not in self._programmed])

    def seal(self, ofports: Collection[int]) -> None:
        """Let not even broadcasts reach those of these ports that are closed."""
        with self._lock:
            for ofport in sorted(self._closed.keys() & set(ofports) - self._sealed):
                _told(functools.partial(self._ofctl.seal, ofport))
                self._sealed |= {ofport}

    def open(self, ofports: Collection[int], held: Set[HeldMac] = frozenset()) -> frozenset[Closed]:
        """These ports are programmed and hold ``held``: let them go, and the MACs of theirs that
        others were closed for, too; one bundle. Those that were closed."""
        with self._lock:
            lifted = frozenset(self._closed[each] for each in ofports if each in self._closed)
            rest = (each for each in self._closed.values() if each not in lifted)
            narrowed = [each.without(held) for each in rest if not each.holds_none_of(held)]
            self._change(lifted, narrowed)
            self._programmed.update(ofports)
            for ofport in sorted(self._sealed.intersection(ofports)):
                _told(functools.partial(self._ofctl.unseal, ofport))
                self._sealed -= {ofport}
            return lifted

    def close_again(self, ports: Collection[Closed]) -> None:
        """Undo :meth:`open` for the ports that it let go."""
        with self._lock:
            self._programmed.difference_update(each.ofport for each in ports)
            self._change((), ports)

    def forget(self, port_ids: Collection[str], ofports: Collection[int]) -> None:
        """These ports, known by either, are no more."""
        with self._lock:
            self._programmed.difference_update(ofports)
            self._sealed -= frozenset(ofports)
            self._change([
                each
                for each in self._closed.values()
                if each.ofport in ofports or each.port_id in port_ids
            ])  # fmt: skip

    def sweep(self, ofports: Collection[int]) -> None:
        """Forget the ports whose interface is gone: all but ``ofports``."""
        with self._lock:
            self._programmed.intersection_update(ofports)
            self._sealed &= frozenset(ofports)
            self._change([each for each in self._closed.values() if each.ofport not in ofports])

    def _change(self, lifted: Collection[Closed], closed: Iterable[Closed] = ()) -> None:
        wanted = [each for each in closed if self._closed.get(each.ofport) != each]
        gone = {each.ofport for each in lifted}
        replaced = {each.ofport for each in wanted} & self._closed.keys()
        lines = [flow.delete(cookie_of(ofport)) for ofport in sorted(gone | replaced)]
        lines += [flow.add(str(line), cookie_of(each.ofport)) for each in wanted
                  for line in each.flows()]  # fmt: skip
        _told(lambda: self._ofctl.bundle(lines))
        kept = {ofport: each for ofport, each in self._closed.items() if ofport not in gone}
        self._closed = kept | {each.ofport: each for each in wanted}


def read(lines: Iterable[str]) -> dict[int, Closed]:
    """What stands, by ofport, from ovs-ofctl's dump."""
    closed: dict[int, Closed] = {}
    for line in lines:
        found = _COOKIE.search(line)
        if not found:
            continue
        ofport = int(found[1], 16) >> 16 & 0xFFFFFF
        known = closed.setdefault(ofport, Closed("", ofport))
        if to_mac := _TO_MAC.search(line):
            tag = int(to_mac[2] or 0)
            if int(to_mac[1]) == _ABOVE_ALL:
                known = replace(known, vlan=tag, macs=known.macs | {to_mac[3]})
            else:
                known = replace(known, segment=tag)
        closed[ofport] = known
    return closed


def _told(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Timeout as exc:
        raise TaskFailed(TaskError(ErrorType.TIMEOUT, str(exc)), whole_batch=True) from exc
    except SwitchError as exc:
        error = TaskError(ErrorType.QUARANTINE_FAILED, exc.message, exc.detail)
        raise TaskFailed(error, whole_batch=True) from exc
    except OSError as exc:
        error = TaskError(ErrorType.QUARANTINE_FAILED, "ovs-ofctl could not be run", str(exc))
        raise TaskFailed(error, whole_batch=True) from exc
