"""What the switch holds, read from ovs-ofctl's dump."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.pipeline import CONJUNCTION_PRIORITIES, Priority, Register, Table
from agent_flows.secgroups.delivery import Destination, Everyone, flows_to
from agent_flows.secgroups.installed import Installed

_COOKIE = re.compile(r"cookie=(0x[0-9a-f]+)")
_TABLE = re.compile(r"table=(\d+)")
_PRIORITY = re.compile(r"priority=(\d+)")
_NETWORK = re.compile(rf"\breg{Register.NETWORK:d}=(0x[0-9a-f]+|\d+)")
_DL_DST = re.compile(r"\bdl_dst=([0-9a-f:]{17})(?!/)")


def _loaded(name: Register) -> re.Pattern[str]:
    """What an action writes into a register."""
    return re.compile(
        rf"(?:load|set_field):(0x[0-9a-f]+|\d+)->(?:NXM_NX_REG{name:d}\[\]|reg{name:d}\b)"
    )


_RECEIVER = _loaded(Register.PORT)
_TO_NETWORK = _loaded(Register.NETWORK)
_DL_VLAN = re.compile(r"\bdl_vlan=(\d+)")
_CONJUNCTION = re.compile(r"conj(?:unction\(|_id=)(\d+)")
_TO_UPLINK = f"resubmit(,{Table.ACCEPTED_EGRESS:d})"


@dataclass(frozen=True)
class Found:
    """What an older process left: taken over, so that nothing it opened closes before its
    port is applied again. ``shared`` are the cookies of what its ports share, networks' flows
    among them."""

    base: frozenset[int]
    shared: frozenset[int]
    installed: Installed
    conjunction_priority: int
    next_conjunction_id: int


def read(lines: Iterable[str]) -> Found:
    """Take over the flows of an older process from a dump of all of ours."""
    base: set[int] = set()
    strays: defaultdict[int, set[int]] = defaultdict(set)
    seen: set[int] = set()
    shared: set[int] = set()
    receivers: dict[Destination, dict[int, bool]] = {}
    priorities: Counter[int] = Counter()
    newest_id = newest_generation = 0
    for line in lines:
        found = _COOKIE.search(line)
        if not found:
            continue
        value = int(found[1], 16)
        if cookie.kind(value) not in (Kind.BASE, Kind.PORT):
            shared.add(value)
        match cookie.kind(value):
            case Kind.BASE:
                base.add(value)
            case Kind.PORT:
                strays[cookie.serial(value)].add(value)
                newest_id = max(newest_id, _newest_id(line))
                newest_generation = max(newest_generation, cookie.generation(value))
            case Kind.MEMBER | Kind.CONJUNCTION:
                priorities[_number(_PRIORITY, line)] += 1
                newest_id = max(newest_id, _newest_id(line))
            case Kind.DELIVERY:
                seen.add(value)
                _note_receivers(line, value, receivers)
    installed = Installed(
        receivers=receivers,
        shared=_delivery_flows(receivers, seen),
        strays={ofport: frozenset(each) for ofport, each in strays.items()},
        generation=newest_generation,
    )
    # The free one; should a run of crashes have used up all, the least used.
    priority = min(CONJUNCTION_PRIORITIES, key=lambda each: (priorities[each], -each))
    return Found(frozenset(base), frozenset(shared), installed, priority, newest_id + 1)


def _number(pattern: re.Pattern[str], line: str) -> int:
    found = pattern.search(line)
    return int(found[1], 0) if found else 0


def _newest_id(line: str) -> int:
    return max(map(int, _CONJUNCTION.findall(line)), default=0)


def _note_receivers(line: str, value: int, receivers: dict[Destination, dict[int, bool]]) -> None:
    """A flow that does not say what its cookie is the digest of is not one of an older process:
    whoever changed it, or copied the cookie, is not to become a receiver."""
    table, network = _number(_TABLE, line), _number(_NETWORK, line)
    mac = _DL_DST.search(line)
    if table == Table.FLOOD:
        destination = Destination(network, Everyone.FLOOD)
    elif table == Table.ACCEPT_OR_INGRESS:
        destination = Destination(network, mac[1] if mac else Everyone.UNKNOWN)
    elif mac and _number(_PRIORITY, line) == Priority.SEGMENT:
        destination = Destination(_number(_TO_NETWORK, line), mac[1], _number(_DL_VLAN, line))
    else:
        return  # The uplink's twin of one of these.
    own = not mac or _TO_UPLINK not in line
    found = {int(each[1], 0): own for each in _RECEIVER.finditer(line)}
    texts = map(str, flows_to(destination, found))
    if value in {cookie.content(Kind.DELIVERY, text) for text in texts}:
        receivers[destination] = found


def _delivery_flows(
    receivers: Mapping[Destination, Mapping[int, bool]], seen: set[int]
) -> dict[str, int]:
    """By key, as far as they say what we would say; others are written when they matter."""
    shared = {}
    for destination, each in receivers.items():
        for flow in flows_to(destination, each):
            value = cookie.content(Kind.DELIVERY, str(flow))
            if value in seen:
                shared[flow.key] = value
    return shared
