"""Flows as Neutron's driver writes them and as ovs-ofctl prints them, in one form. Pure.

``tcp`` and ``dl_type=0x0800,nw_proto=6``, ``tcp_dst=0x50`` and ``tp_dst=80``,
``10.0.0.7/24`` and ``10.0.0.0/24`` are the same match to a switch.
"""

import functools
import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent_flows.openflow.dump import DEFAULT_PRIORITY, FlowEntry
from agent_flows.openflow.pipeline import Register

Match = frozenset[tuple[str, object]]
Effect = frozenset[tuple[object, ...]]
"""What a flow does, as far as it can be compared: what it writes, and the next table or port."""


# ovs-fields(7): names of an ethertype and a protocol.
_PROTOCOLS: dict[str, tuple[int, int | None]] = {
    "ip": (0x0800, None), "arp": (0x0806, None), "rarp": (0x8035, None), "ipv6": (0x86DD, None),
    "icmp": (0x0800, 1), "tcp": (0x0800, 6), "udp": (0x0800, 17), "sctp": (0x0800, 132),
    "tcp6": (0x86DD, 6), "udp6": (0x86DD, 17), "icmp6": (0x86DD, 58), "sctp6": (0x86DD, 132),
}  # fmt: skip
_SYNONYMS = {
    "reg_port": f"reg{Register.PORT:d}",
    "reg_net": f"reg{Register.NETWORK:d}",
    "icmpv6_type": "icmp_type",
    "icmpv6_code": "icmp_code",
} | {f"{proto}_{end}": f"tp_{end}" for proto in ("tcp", "udp", "sctp") for end in ("src", "dst")}
_ADDRESSES = frozenset({"nw_src", "nw_dst", "ipv6_src", "ipv6_dst", "arp_spa", "nd_target"})
_MACS = frozenset({"dl_src", "dl_dst"})
_ALL_ONES = {"tp_src": 0xFFFF, "tp_dst": 0xFFFF}

_WRITES = re.compile(r"(?:set_field|load):(\w+)->(?:nxm_nx_)?(reg\d|ct_mark)\b", re.IGNORECASE)
_GOES_TO = re.compile(r"resubmit\(,(\d+)\)|\bct\([^()]*\btable=(\d+)")
_OUTPUT = re.compile(r"\boutput:(\d+)|\b(normal)\b", re.IGNORECASE)
# Thousands of flows are parsed again at every look; most of their fields and actions repeat.
_CACHED = 1 << 16

_CONJUNCTION = re.compile(r"conjunction\((\d+),(\d)/2\)")


@dataclass(frozen=True)
class Key:
    """A switch holds one flow with a given key."""

    table: int
    priority: int
    match: Match


@dataclass(frozen=True)
class InstalledFlow:
    """A flow in the switch."""

    key: Key
    cookie: int
    effect: Effect


def key_of(flow: Mapping[str, object]) -> Key:
    """The key of a flow as Neutron's firewall driver writes it: a dict of ovs-ofctl's fields."""
    match = {name: flow[name] for name in flow.keys() - {"table", "priority", "actions"}}
    priority = int(str(flow.get("priority", DEFAULT_PRIORITY)))
    return Key(int(str(flow["table"])), priority, frozenset(_match(match)))


def installed(entry: FlowEntry) -> InstalledFlow:
    key = Key(entry.table, entry.priority, frozenset(_match(entry.fields)))
    return InstalledFlow(key, entry.cookie, effect(entry.actions))


def _match(fields: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for field, value in fields.items():
        if field in _PROTOCOLS:
            ethertype, protocol = _PROTOCOLS[field]
            yield "dl_type", (ethertype, None)
            if protocol is not None:
                yield "nw_proto", (protocol, None)
            continue
        name = _SYNONYMS.get(field, field)
        canonical = _value(name, str(value))
        if canonical is not None:
            yield name, canonical


@functools.lru_cache(maxsize=_CACHED)
def _value(name: str, text: str) -> object:
    """A field's value; None if every packet matches it."""
    if name in _ADDRESSES:
        network = ipaddress.ip_network(text, strict=False)
        return str(network) if network.prefixlen else None
    if name in _MACS:
        return text.lower().replace("-", ":")
    if name == "ct_state":
        return frozenset(re.findall(r"[+-]\w+", text))
    value, _, mask = text.partition("/")
    try:
        number, bits = int(value, 0), int(mask, 0) if mask else None
    except ValueError:
        return text
    if bits == 0:
        return None
    return number, None if bits == _ALL_ONES.get(name) else bits


@functools.lru_cache(maxsize=_CACHED)
def effect(actions: str) -> Effect:
    found: set[tuple[object, ...]] = {
        (name.lower(), int(value, 0)) for value, name in _WRITES.findall(actions)
    }
    found |= {("table", int(plain or tracked)) for plain, tracked in _GOES_TO.findall(actions)}
    found |= {("output", int(port) if port else "NORMAL") for port, _ in _OUTPUT.findall(actions)}
    found |= {
        ("conjunction", int(number), int(side)) for number, side in _CONJUNCTION.findall(actions)
    }
    return frozenset(found)


def texts(keys: Iterable[Key]) -> Iterator[str]:
    """For people: table, priority and match, almost as ovs-ofctl prints them."""
    for key in keys:
        match_ = ",".join(f"{name}={_shown(value)}" for name, value in sorted(key.match))
        yield f"table={key.table},priority={key.priority},{match_}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(
            f"{number:#x}" for number in itertools.takewhile(lambda n: n is not None, value)
        )
    if isinstance(value, frozenset):
        return "".join(sorted(value))
    return str(value)
