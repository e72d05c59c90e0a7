"""Parses Neutron's ports and security groups into our specs, one value at a time.

A single rule, member, address pair, fixed IP or group id that our model cannot
represent is left out, with one line for the log. Each of them only allows
something, so leaving it out never allows more.

Pure. The shapes are those of ``security_group_info_for_ports`` (Neutron,
neutron/db/securitygroups_rpc_base.py), which every OVS agent builds from its
resource cache and hands to its firewall driver.
"""

import functools
import ipaddress
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

import pydantic

from agent_flows.errors import ErrorType
from agent_flows.fairness import fair
from agent_flows.neutron import rules_digest
from agent_flows.report import TaskError
from agent_flows.spec import (
    PROTOCOLS_WITH_PORTS,
    SCTP,
    TCP,
    UDP,
    AddressPair,
    Ethertype,
    Member,
    NetworkSpec,
    NetworkType,
    PortSpec,
    SecurityGroupRule,
)
from agent_flows.validation import Address, Invalid, IPAddress, IPNetwork, parse, shown

T = TypeVar("T")

_RULE = pydantic.TypeAdapter(SecurityGroupRule)
_PORT = pydantic.TypeAdapter(PortSpec)
_MEMBER = pydantic.TypeAdapter(Member)
_PAIR = pydantic.TypeAdapter(AddressPair)
_ADDRESS: pydantic.TypeAdapter[IPAddress] = pydantic.TypeAdapter(Address)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID_CHARS = 36  # neutron_lib/db/constants.py, UUID_FIELD_SIZE
_NAMES = uuid.UUID("3d1c2a52-8f5e-4c0e-9d39-5a6f0d1be7a4")

# neutron/agent/firewall.py, DIRECTION_IP_PREFIX: a rule's remote prefix goes by two names.
_REMOTE_PREFIX = {"ingress": "source_ip_prefix", "egress": "dest_ip_prefix"}
_SAME_NAME = (
    "direction",
    "ethertype",
    "protocol",
    "port_range_min",
    "port_range_max",
    "source_port_range_min",
    "source_port_range_max",
)
_REMOTE_IDS = ("remote_group_id", "remote_address_group_id")
# Fields that do not change what the rule allows.
_NOT_THE_RULE = frozenset({"id", "security_group_id", "stateful"})
_UNMATCHABLE = PROTOCOLS_WITH_PORTS - {TCP, UDP, SCTP}
"""Protocols with ports that Open vSwitch cannot match."""
_SHOWN = 400
"""Characters of an item in a line for people."""

# The network is read from the port's interface later.
_SOMEWHERE = "somewhere"
_NO_NETWORK = NetworkSpec("00000000-0000-0000-0000-000000000000", NetworkType.LOCAL)


def is_port_id(value: object) -> TypeGuard[str]:
    """Whether this can be the id of one of Neutron's ports."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def group_id(value: object) -> str:
    """The id of a security or address group as our specs have it: Neutron's column takes any 36
    characters, so one that is not a UUID is mapped to a UUID. Raises :class:`Invalid`."""
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARS:
        raise Invalid("security_group_id", value, f"an id has 1 to {_ID_CHARS} characters")
    return value if _UUID.fullmatch(value) else str(uuid.uuid5(_NAMES, value))


@dataclass(frozen=True)
class Group:
    """A security group's rules.

    ``left_out``: one line for each unusable rule, with the reason. With ``refused`` the meaning of
    the group is unknown, and no port in it can be programmed. ``revision`` is the digest of the
    rules as Neutron sent them.
    """

    rules: tuple[SecurityGroupRule, ...] = ()
    stateful: bool = True
    refused: TaskError | None = None
    revision: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def remotes(self) -> frozenset[str]:
        """The security and address groups that the rules refer to."""
        ids = (rule.remote_group_id or rule.remote_address_group_id for rule in self.rules)
        return frozenset(filter(None, ids))


def group(name: object, raw: object) -> Group:
    """The group ``name`` with the rules ``raw``, a list of dicts; never raises."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        return Group(refused=_refusal(f"the rules of security group {name} are not a list", raw))
    known = [item for item in raw if isinstance(item, Mapping)]
    digest = rules_digest.of_rules(known)
    stateful = [item.get("stateful", True) for item in known]
    if any(value is not stateful[0] or not isinstance(value, bool) for value in stateful):
        text = f"the rules of security group {name} disagree on whether it is stateful"
        return Group(refused=_refusal(text, raw), revision=digest)
    rules, left_out = _usable(raw, rule, f"Security group {name}: rule")
    # They come in any order, and some of them twice.
    ordered = tuple(sorted(dict.fromkeys(rules), key=repr))
    return Group(ordered, False not in stateful, revision=digest, left_out=left_out)


def _usable(
    raws: Iterable[object], read: Callable[[object], T], what: str
) -> tuple[list[T], tuple[str, ...]]:
    """The results of ``read``, and a line for each item for which it raises."""
    usable: list[T] = []
    left_out: list[str] = []
    for item in fair(raws):
        try:
            usable.append(read(item))
        except Invalid as exc:
            left_out.append(f"{what} {describe(item)} is left out and allows nothing: {exc}")
    return usable, tuple(left_out)


def rule(raw: object) -> SecurityGroupRule:
    """One rule; raises :class:`Invalid`, also for an unknown field, which may narrow the rule."""
    if not isinstance(raw, Mapping):
        raise Invalid("", raw, "a rule is an object")
    given = {name: value for name, value in raw.items() if value is not None}
    fields = {name: given.pop(name) for name in _SAME_NAME if name in given}
    for name in _REMOTE_IDS:
        if name in given:
            fields[name] = group_id(given.pop(name))
    prefix = _REMOTE_PREFIX.get(str(fields.get("direction")))
    if prefix is not None and prefix in given:
        fields["remote_ip_prefix"] = _network(prefix, given.pop(prefix))
    for name in sorted(given.keys() - _NOT_THE_RULE, key=str):
        raise Invalid(str(name), given[name], "not a field this driver knows for such a rule")
    made = parse(_RULE, fields)
    ports = (made.port_range_min, made.source_port_range_min)
    if made.protocol_number in _UNMATCHABLE and ports != (None, None):
        # Without its ports the rule would allow more.
        raise Invalid("protocol", raw.get("protocol"), "ports of tcp, udp and sctp only")
    return made


def describe(raw: object) -> str:
    """An item in one line for people; rules have no id in RPC."""
    if not isinstance(raw, Mapping):
        return shown(raw, _SHOWN)
    fields = [f"{name}={value}" for name, value in raw.items() if value is not None]
    return "(" + " ".join(", ".join(fields).split())[:_SHOWN] + ")"


@dataclass(frozen=True)
class Members:
    """The addresses of a group that rules refer to, by family; ``left_out`` as for groups."""

    by_family: Mapping[Ethertype, tuple[Member, ...]]
    left_out: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Member, ...]:
        return tuple(m for family in Ethertype for m in self.by_family.get(family, ()))


NO_MEMBERS = Members({})


def members(name: object, raw: object, before: Members = NO_MEMBERS) -> Members:
    """The members ``raw`` of group ``name``: ``{"IPv4": [(address, MAC or None), ...], ...}``;
    never raises.

    The agent looks up only the families that rules use; others stay as they
    were ``before``. An empty ``raw`` is a group without members.
    """
    if not raw:
        return NO_MEMBERS
    what = f"Group {name}: member"
    if not isinstance(raw, Mapping):
        return Members(
            {}, (f"Group {name}: its members {describe(raw)} are not grouped by family",)
        )
    families = dict(before.by_family)
    left_out: tuple[str, ...] = ()
    for family, entries in raw.items():
        try:
            ethertype = Ethertype(str(family))
        except ValueError:
            left_out += (f"{what}s of {describe(family)} are left out: not IPv4 or IPv6",)
            continue
        found: list[Member] = []
        if isinstance(entries, Iterable) and not isinstance(entries, str):
            found, refused = _usable(entries, functools.partial(_member, ethertype), what)
            left_out += refused
        else:
            left_out += (f"{what}s of {family} {describe(entries)} are left out: not a list",)
        families[ethertype] = tuple(sorted(set(found), key=repr))
    return Members(families, left_out)


def _member(family: Ethertype, entry: object) -> Member:
    if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 2:
        raise Invalid(family, entry, "a member is an address and a MAC address")
    address, mac = _network(family, entry[0]), entry[1]
    if address.version != family.version:
        raise Invalid(family, entry[0], f"must be an {family} address")
    # The resource cache turns an address pair's missing MAC into the string None.
    known = None if mac in (None, "None") else mac
    return parse(_MEMBER, {"address": address, "mac_address": known})


@dataclass(frozen=True)
class Read:
    """A port as our specs have it; ``left_out`` as for groups."""

    spec: PortSpec
    left_out: tuple[str, ...] = ()


def port(raw: Mapping[str, object], host: str) -> Read:
    """A port as ``prepare_port_filter`` gets it; raises :class:`Invalid` if the port itself is
    invalid, not only one of its addresses.

    The revision is left 0, so that equal specs mean an unchanged port; the
    network is filled in from the port's interface.
    """
    name = raw.get("device")
    addresses, no_addresses = _usable(
        _distinct(_list(raw, "fixed_ips")), _fixed_ip, f"Port {name}: fixed IP"
    )
    pairs, no_pairs = _usable(
        _distinct(_list(raw, "allowed_address_pairs")),
        _address_pair,
        f"Port {name}: allowed address pair",
    )
    groups, no_groups = _usable(
        _distinct(_list(raw, "security_groups")), group_id, f"Port {name}: security group"
    )
    fields = {
        "id": name,
        "revision": 0,
        "host": host,
        "network": _NO_NETWORK,
        "mac_address": raw.get("mac_address"),
        "fixed_ips": tuple(addresses),
        "allowed_address_pairs": tuple(_distinct(pairs)),
        "security_groups": tuple(_distinct(groups)),
        "port_security_enabled": raw.get("port_security_enabled", True),
        "admin_state_up": raw.get("admin_state_up", True),
        "device_owner": raw.get("device_owner") or "",
    }
    return Read(parse(_PORT, fields), (*no_addresses, *no_pairs, *no_groups))


def groups_of(raw: Mapping[str, object]) -> tuple[str, ...]:
    """The port's security groups with a usable id, even if the port is invalid otherwise."""
    try:
        groups, _ = _usable(_list(raw, "security_groups"), group_id, "")
    except Invalid:
        return ()
    return tuple(groups)


def same_wiring(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two dicts of a port give the same spec; False if one is invalid."""
    try:
        return port(one, _SOMEWHERE).spec == port(other, _SOMEWHERE).spec
    except Invalid:
        return False


def _fixed_ip(raw: object) -> IPAddress:
    return parse(_ADDRESS, raw)


def _address_pair(raw: object) -> AddressPair:
    if not isinstance(raw, Mapping):
        raise Invalid("allowed_address_pairs", raw, "an address pair is an object")
    address = _network("ip_address", raw.get("ip_address"))
    return parse(_PAIR, {"ip_address": address, "mac_address": raw.get("mac_address")})


def trusted_port(port_id: str, mac: object, host: str) -> PortSpec:
    """A port that the agent passed in as trusted, by its id; raises :class:`Invalid`."""
    raw = {"device": port_id, "mac_address": mac, "port_security_enabled": False}
    return port(raw, host).spec


def macs_of(port_spec: PortSpec) -> frozenset[str]:
    """The MAC addresses that a port may send from."""
    pairs = (pair.mac_address for pair in port_spec.allowed_address_pairs)
    return frozenset({port_spec.mac_address, *filter(None, pairs)})


def _list(raw: Mapping[str, object], name: str) -> list[object]:
    value = raw.get(name)
    if value is None:
        return []
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        raise Invalid(name, value, "must be a list")
    return list(value)


def _distinct(values: Iterable[T]) -> list[T]:
    """Each value once, in an order that does not depend on theirs."""
    return list({repr(value): value for value in sorted(values, key=repr)}.values())


def _network(field: str, value: object) -> IPNetwork:
    """Host bits are ignored, as in Neutron's flows."""
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise Invalid(field, value, "must be an IPv4 or IPv6 address or CIDR") from None


def _refusal(message: str, detail: object) -> TaskError:
    return TaskError(ErrorType.INVALID_SPEC, message, repr(detail))


def refused_port(port_id: str, exc: Invalid) -> TaskError:
    """The error of an invalid port."""
    return TaskError(ErrorType.INVALID_SPEC, f"port {port_id} cannot be used: {exc}")
