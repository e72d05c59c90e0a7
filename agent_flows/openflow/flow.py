"""A flow as a value, and the terms of its match and actions.

Every term is built from a typed value (a number, an address, an enum member),
so no text of a message reaches the switch.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NewType

from agent_flows.openflow import cookie
from agent_flows.openflow.pipeline import CUT_MARK, CtState, Register, Table
from agent_flows.spec import TCP, UDP, Ethertype

Term = NewType("Term", str)
"""One field of a match, in ovs-fields(7)'s syntax."""
Action = NewType("Action", str)
"""One action, in ovs-actions(7)'s syntax."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Flow:
    """Immutable; without actions it drops."""

    table: Table
    priority: int
    match: tuple[Term, ...] = ()
    actions: tuple[Action, ...] = ()

    @property
    def key(self) -> str:
        """Table, priority and match: the switch holds one flow with a key; a later one silently
        replaces it."""
        return ",".join((f"table={self.table:d},priority={self.priority:d}", *self.match))

    def __str__(self) -> str:
        return f"{self.key} actions={','.join(self.actions) or 'drop'}"


def add(text: str, cookie_: int) -> str:
    """The bundle line that adds the flow ``text``."""
    return f"add {with_cookie(text, cookie_)}"


def with_cookie(text: str, cookie_: int) -> str:
    """The flow ``text`` with its cookie."""
    return f"cookie={cookie_:#x},{text}"


def delete(cookie_: int) -> str:
    """The bundle line that deletes every flow with this very cookie."""
    return f"delete {cookie.selector(cookie_)}"


def key_of(text: str) -> str:
    """The key of the flow ``text``."""
    return text.partition(" actions=")[0]


def delete_key(key: str) -> str:
    """The bundle line that deletes the flow of this key."""
    return f"delete_strict {key}"


# Matches.


def in_port(ofport: int) -> Term:
    return Term(f"in_port={ofport:d}")


def register(name: Register, value: int) -> Term:
    return Term(f"reg{name:d}={value:d}")


ANY_PORT = Term(f"reg{Register.PORT:d}=*")
"""Placeholder of the port's register in a text that is the same for many ports."""


def of_port(template: str, ofport: int) -> str:
    """Flows with :data:`ANY_PORT` for one port."""
    return template.replace(ANY_PORT, register(Register.PORT, ofport))


def vlan(number: int) -> Term:
    return Term(f"dl_vlan={number:d}")


def mac(value: str) -> str:
    """``value``, a MAC address; raises ValueError for anything else."""
    if not _MAC.fullmatch(value):
        raise ValueError(f"not a MAC address: {value!r}")
    return value


def dl_src(address: str) -> Term:
    return Term(f"dl_src={mac(address)}")


def dl_dst(address: str) -> Term:
    return Term(f"dl_dst={mac(address)}")


def address(network: IPNetwork) -> str:
    """A network as ovs-ofctl reads it; "" for a prefix of length 0, which matches everything.

    Raises ValueError for an address with a scope.
    """
    if not network.prefixlen:
        return ""
    text = str(network.network_address if network.prefixlen == network.max_prefixlen else network)
    if "%" in text:
        raise ValueError(f"an address with a scope: {text!r}")
    return text


IP_SOURCE = {4: "nw_src", 6: "ipv6_src"}
IP_DESTINATION = {4: "nw_dst", 6: "ipv6_dst"}
"""The field's name by IP version."""


def ct_state(state: CtState) -> Term:
    return Term(f"ct_state={state}")


def ct_mark(value: int) -> Term:
    return Term(f"ct_mark={value:d}")


def conjunction_id(number: int) -> Term:
    return Term(f"conj_id={number:d}")


def ports(source: int, destination: int) -> Term:
    return Term(f"tp_src={source:d},tp_dst={destination:d}")


def source_port(value: int, mask: int = 0xFFFF) -> Term:
    return Term(f"tp_src={_masked(value, mask)}")


def destination_port(value: int, mask: int = 0xFFFF) -> Term:
    return Term(f"tp_dst={_masked(value, mask)}")


def _masked(value: int, mask: int) -> str:
    return f"{value:d}" if mask == 0xFFFF else f"{value:#x}/{mask:#x}"


def ethertype(number: int) -> Term:
    return Term(f"dl_type={number:#06x}")


def icmp(type_: int, code: int | None = None) -> Term:
    return Term(f"icmp_type={type_:d}" + ("" if code is None else f",icmp_code={code:d}"))


UNTAGGED = Term("vlan_tci=0x0000/0x1000")
"""No 802.1Q header at all: what an access port takes. Matches on IP look behind such a header."""
MULTICAST = Term("dl_dst=01:00:00:00:00:00/01:00:00:00:00:00")
ARP = Term("arp")
RARP = Term("rarp")

_PROTOCOL_WORDS = {
    (Ethertype.IPV4, None): "ip",
    (Ethertype.IPV4, 1): "icmp",
    (Ethertype.IPV4, TCP): "tcp",
    (Ethertype.IPV4, UDP): "udp",
    (Ethertype.IPV4, 132): "sctp",
    (Ethertype.IPV6, None): "ipv6",
    (Ethertype.IPV6, 58): "icmp6",
    (Ethertype.IPV6, TCP): "tcp6",
    (Ethertype.IPV6, UDP): "udp6",
    (Ethertype.IPV6, 132): "sctp6",
}


def protocol(ethertype: Ethertype, number: int | None = None) -> Term:
    """IP of a family and, unless None, its protocol by number."""
    word = _PROTOCOL_WORDS.get((ethertype, number))
    if word:
        return Term(word)
    return Term(f"{_PROTOCOL_WORDS[ethertype, None]},nw_proto={number:d}")


# Actions.


def to(table: Table) -> Action:
    return Action(f"resubmit(,{table:d})")


def output(ofport: int) -> Action:
    return Action(f"output:{ofport:d}")


def load(name: Register, value: int) -> Action:
    return Action(f"load:{value:d}->NXM_NX_REG{name:d}[]")


def conjunction(number: int, dimension: int) -> Action:
    """Dimension 1 is the remote group's address, 2 the port and its rule."""
    return Action(f"conjunction({number:d},{dimension:d}/2)")


_ZONE = f"zone=NXM_NX_REG{Register.NETWORK:d}[0..15]"


def track(table: Table) -> Action:
    """Through conntrack, in the network's zone, and on in ``table``."""
    return Action(f"ct(table={table:d},{_ZONE})")


COMMIT = Action(f"ct(commit,{_ZONE})")
CUT = Action(f"ct(commit,{_ZONE},exec(load:{CUT_MARK}->NXM_NX_CT_MARK[]))")
MEND = Action(f"ct(commit,{_ZONE},exec(load:0->NXM_NX_CT_MARK[]))")
CLEAR_TRACKED = Action("ct_clear")
NORMAL = Action("NORMAL")
STRIP_VLAN = Action("strip_vlan")
