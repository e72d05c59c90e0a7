"""Takes over the flows of an older process, from a dump of the switch."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent_flows.fairness import fair
from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.pipeline import Home, Register, Table
from agent_flows.openflow.priorities import CONJUNCTIONS, Transient
from agent_flows.secgroups.delivery import Destination, Everyone, flows_to
from agent_flows.secgroups.installed import Installed

_NETWORK = f"reg{Register.NETWORK:d}"
_MAC = re.compile(r"[0-9a-f:]{17}")
_CONJUNCTION_ID = re.compile(r"conjunction\((\d+)")
_TO_UPLINK = f"resubmit(,{Table.ACCEPTED_EGRESS:d})"


@dataclass(frozen=True)
class TakenOver:
    """What an older process installed. It is taken over so that no open port closes before it is
    applied again. ``shared`` are the cookies of flows that its ports share, networks' among
    them."""

    base: frozenset[int]
    shared: frozenset[int]
    installed: Installed
    conjunction_priority: int
    next_conjunction_id: int


def read(entries: Iterable[FlowEntry], home: Home) -> TakenOver:
    """Take over the flows of an older process from a dump of all of ours."""
    base: set[int] = set()
    strays: defaultdict[int, set[int]] = defaultdict(set)
    seen: set[int] = set()
    shared: set[int] = set()
    receivers: dict[Destination, dict[int, bool]] = {}
    priorities: Counter[int] = Counter()
    newest_id = newest_generation = 0
    for entry in fair(entries):
        value = entry.cookie
        if cookie.kind(value) not in (Kind.BASE, Kind.PORT):
            shared.add(value)
        match cookie.kind(value):
            case Kind.BASE:
                base.add(value)
            case Kind.PORT:
                strays[cookie.serial(value)].add(value)
                newest_id = max(newest_id, _newest_id(entry))
                newest_generation = max(newest_generation, cookie.generation(value))
            case Kind.MEMBER | Kind.CONJUNCTION:
                priorities[entry.priority] += 1
                newest_id = max(newest_id, _newest_id(entry))
            case Kind.DELIVERY:
                seen.add(value)
                _note_receivers(entry, receivers, beside_normal=home is Home.NEUTRON)
    installed = Installed(
        receivers=receivers,
        shared=_delivery_flows(receivers, seen),
        strays={ofport: frozenset(each) for ofport, each in strays.items()},
        generation=newest_generation,
    )
    # A free one; if a series of crashes has used all, the least used.
    priority = min(CONJUNCTIONS, key=lambda each: (priorities[each], -each))
    return TakenOver(frozenset(base), frozenset(shared), installed, priority, newest_id + 1)


def _newest_id(entry: FlowEntry) -> int:
    ids = map(int, _CONJUNCTION_ID.findall(entry.actions))
    return max([*ids, entry.number("conj_id") or 0])


def _note_receivers(
    entry: FlowEntry, receivers: dict[Destination, dict[int, bool]], *, beside_normal: bool
) -> None:
    """A flow that is not the one that its cookie is the digest of was changed, or copied, by
    somebody else: its ports must not become receivers."""
    network = entry.number(_NETWORK) or 0
    mac = entry.fields.get("dl_dst", "")
    mac = mac if _MAC.fullmatch(mac) else ""
    if entry.table == Table.FLOOD:
        destination = Destination(network, Everyone.FLOOD)
    elif entry.table == Table.ACCEPT_OR_INGRESS:
        beside = beside_normal and bool(mac)
        destination = Destination(network, mac or Everyone.UNKNOWN, beside_normal=beside)
    elif mac and entry.priority == Transient.SEGMENT:
        loaded = next(iter(entry.loaded(Register.NETWORK)), 0)
        destination = Destination(loaded, mac, entry.number("dl_vlan") or 0)
    else:
        return  # The uplink's twin of one of these.
    own = not mac or _TO_UPLINK not in entry.actions
    found = dict.fromkeys(entry.loaded(Register.PORT), own)
    texts = map(str, flows_to(destination, found))
    if entry.cookie in {cookie.content(Kind.DELIVERY, text) for text in texts}:
        receivers[destination] = found


def _delivery_flows(
    receivers: Mapping[Destination, Mapping[int, bool]], seen: set[int]
) -> dict[str, int]:
    """By key, if they are as we would write them; others are written when they matter."""
    shared = {}
    for destination, each in receivers.items():
        for flow in flows_to(destination, each):
            value = cookie.content(Kind.DELIVERY, str(flow))
            if value in seen:
                shared[flow.key] = value
    return shared
