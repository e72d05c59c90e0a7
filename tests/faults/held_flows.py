"""What a bridge holds of a port, without what differs between ports of one group."""

import ipaddress
import re
from collections.abc import Iterator, Sequence

from agent_flows.openflow.priorities import CONJUNCTIONS
from lab.frames import mac_bytes
from lab.model import ip
from lab.vm import Plugged

_PRIORITY = re.compile(r"\bpriority=(\d+)")
_CONJUNCTION = re.compile(r"\bconjunction\((\d+),")
_COOKIE = re.compile(r"cookie=0x[0-9a-f]+, ?")
# Broadcast goes to every port of the network, in one flow, which knows whether they are several.
_OTHER_RECEIVERS = re.compile(
    r"load:0x1->NXM_NX_REG8\[\],|load:0x[0-9a-f]+->NXM_NX_REG5\[\],resubmit\(,81\),"
)


def pattern(port: Plugged, ofport: int, tag: int, flows: Sequence[str]) -> frozenset[str]:
    """The port's own flows, and those of the conjunctions that they take part in."""
    names = {
        "PORT": rf"in_port={ofport}\b|reg5={ofport:#x}\b|output:{ofport}\b"
        rf"|load:{ofport:#x}->NXM_NX_REG5\b|set_field:{ofport:#x}->reg5\b",
        "MAC": re.escape(port.mac),
        "IP": rf"\b{re.escape(ip(port))}\b",
        "LINK_LOCAL": re.escape(_link_local(port.mac)),
        "NET": rf"\breg6={tag:#x}\b|\bdl_vlan={tag}\b|load:{tag:#x}->NXM_NX_REG6\b"
        rf"|set_field:{tag:#x}->reg6\b|\bct_zone={tag}\b",
    }
    own = re.compile(f"{names['PORT']}|{names['MAC']}")
    found = set[str]()
    for flow in filter(own.search, flows):
        text = _OTHER_RECEIVERS.sub("", _COOKIE.sub("", flow))
        for name, value in names.items():
            text = re.sub(value, name, text)
        for number in map(int, _CONJUNCTION.findall(flow)):
            text = _named(text, number, _priority(flow))
            found.update(_others(flows, number, _priority(flow)))
        found.add(text)
    return frozenset(found)


def _others(flows: Sequence[str], number: int, priority: int) -> Iterator[str]:
    """Its addresses, and what happens if everything matches."""
    address = f"conjunction({number},1/"
    accepted = re.compile(rf"\bconj_id={number}\b")
    for flow in flows:
        if address in flow:
            # Several conjunctions may have the address, in one flow.
            match = _COOKIE.sub("", flow).partition(" actions=")[0]
            yield _named(f"{match} actions={address}2)", number, priority)
        elif accepted.search(flow):
            yield _named(_COOKIE.sub("", flow), number, priority)


def _named(text: str, number: int, priority: int) -> str:
    """Each process of the agent has other ids than its predecessor, and another one of the
    priorities of conjunctions. It is the same for all flows of a conjunction (ovs-fields(7)); one
    that has another keeps it here."""
    text = re.sub(
        rf"\bconj_id={number}\b|\bconjunction\({number},|load:{number:#x}->NXM_NX_REG7\b",
        "CONJUNCTION",
        text,
    )
    if priority in CONJUNCTIONS:
        text = re.sub(rf"\bpriority={priority}\b", "PRIORITY", text)
    return text


def _priority(flow: str) -> int:
    match = _PRIORITY.search(flow)
    return int(match[1]) if match else 0


def _link_local(mac: str) -> str:
    """RFC 4291, appendix A."""
    eight = bytearray(mac_bytes(mac))
    eight[3:3] = b"\xff\xfe"
    eight[0] ^= 2
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(eight)))
