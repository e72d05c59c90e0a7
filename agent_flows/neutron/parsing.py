"""From what Neutron's agent says about ports and groups to our specs, one value at a time.

A rule, member, address pair, fixed IP or group id that our model cannot carry is left out by
itself, with one line for the operator's log: each of them can only allow something, so without it
less passes and never more.

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
from agent_flows.validation import Address, Invalid, IPAddress, IPNetwork, parse

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
# Say whose rule it is, not what it allows.
_NOT_THE_RULE = frozenset({"id", "security_group_id", "stateful"})
_UNMATCHABLE = PROTOCOLS_WITH_PORTS - {TCP, UDP, SCTP}
"""Protocols with ports that Open vSwitch cannot match."""
_SHOWN = 400
"""Characters of an item in a line for people."""

# The network is known once it is known where the port is plugged in.
_SOMEWHERE = "somewhere"
_NO_NETWORK = NetworkSpec("00000000-0000-0000-0000-000000000000", NetworkType.LOCAL)


def is_port_id(value: object) -> TypeGuard[str]:
    """Whether this can be the id of one of Neutron's ports."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def group_id(value: object) -> str:
    """The id of a security or address group as our specs have it.

    Neutron's column takes 36 characters of anything. What is not a UUID is
    known here by one made of it, always the same. Raises :class:`Invalid`.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARS:
        raise Invalid("security_group_id", value, f"an id has 1 to {_ID_CHARS} characters")
    return value if _UUID.fullmatch(value) else str(uuid.uuid5(_NAMES, value))


@dataclass(frozen=True)
class Group:
    """A security group's rules.

    ``left_out`` says which of them could not be used, and why, one line each. With ``refused`` it
    is not known what the group means, and no port that has it can be programmed. ``revision``
    stands for the rules as Neutron sent them.
    """

    rules: tuple[SecurityGroupRule, ...] = ()
    stateful: bool = True
    refused: TaskError | None = None
    revision: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def remotes(self) -> frozenset[str]:
        """The security and address groups that the rules refer to."""
        ids = (each.remote_group_id or each.remote_address_group_id for each in self.rules)
        return frozenset(filter(None, ids))


def group(name: object, raw: object) -> Group:
    """The group ``name`` with the rules ``raw``, a list of dicts; never raises."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        return Group(refused=_refusal(f"the rules of security group {name} are not a list", raw))
    known = [each for each in raw if isinstance(each, Mapping)]
    said = rules_digest.of_rules(known)
    stateful = [each.get("stateful", True) for each in known]
    if any(each is not stateful[0] or not isinstance(each, bool) for each in stateful):
        text = f"the rules of security group {name} disagree on whether it is stateful"
        return Group(refused=_refusal(text, raw), revision=said)
    rules, left_out = _usable(raw, rule, f"Security group {name}: rule")
    # They come as a set did, in whatever order, and some of them twice.
    ordered = tuple(sorted(dict.fromkeys(rules), key=repr))
    return Group(ordered, False not in stateful, revision=said, left_out=left_out)


def _usable(
    raws: Iterable[object], read: Callable[[object], T], what: str
) -> tuple[list[T], tuple[str, ...]]:
    """Those of ``raws`` that ``read`` takes, and a line for each that it refuses."""
    usable: list[T] = []
    left_out: list[str] = []
    for each in raws:
        try:
            usable.append(read(each))
        except Invalid as exc:
            left_out.append(f"{what} {describe(each)} is left out and allows nothing: {exc}")
    return usable, tuple(left_out)


def rule(raw: object) -> SecurityGroupRule:
    """One rule; raises :class:`Invalid`. A field unknown here may narrow the rule, so the rule is
    refused rather than read without it."""
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
        # Without its ports the rule would allow more than it says.
        raise Invalid("protocol", raw.get("protocol"), "ports of tcp, udp and sctp only")
    return made


def describe(raw: object) -> str:
    """An item in one line, for people: over RPC a rule comes without an id."""
    if not isinstance(raw, Mapping):
        return repr(raw)[:_SHOWN]
    said = [f"{name}={value}" for name, value in raw.items() if value is not None]
    return "(" + " ".join(", ".join(said).split())[:_SHOWN] + ")"


@dataclass(frozen=True)
class Members:
    """The addresses of a group that rules refer to, by family; ``left_out`` as for groups."""

    by_family: Mapping[Ethertype, tuple[Member, ...]]
    left_out: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Member, ...]:
        return tuple(each for family in Ethertype for each in self.by_family.get(family, ()))


NO_MEMBERS = Members({})


def members(name: object, raw: object, before: Members = NO_MEMBERS) -> Members:
    """The members ``raw`` of group ``name``: ``{"IPv4": [(address, MAC or None), ...], ...}``;
    never raises.

    A family the agent did not look up, because the rules it asked for do not
    use it, stays as it was ``before``. Nothing at all means that the group has no member.
    """
    if not raw:
        return NO_MEMBERS
    what = f"Group {name}: member"
    if not isinstance(raw, Mapping):
        return Members({}, (f"Group {name}: its members {describe(raw)} are not told by family",))
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
    # The resource cache turns an address pair's missing MAC into a word.
    known = None if mac in (None, "None") else mac
    return parse(_MEMBER, {"address": address, "mac_address": known})


@dataclass(frozen=True)
class Read:
    """A port as our specs have it; ``left_out`` as for groups."""

    spec: PortSpec
    left_out: tuple[str, ...] = ()


def port(raw: Mapping[str, object], host: str) -> Read:
    """A port as ``prepare_port_filter`` gets it; raises :class:`Invalid` if the port itself cannot
    be used, and not only one of its addresses.

    Without its revision, for whether it has changed is told by what it is; and
    without its network, which is told by where it is plugged in.
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
    """The port's security groups as far as they can be used, whatever else of it cannot."""
    try:
        groups, _ = _usable(_list(raw, "security_groups"), group_id, "")
    except Invalid:
        return ()
    return tuple(groups)


def same_wiring(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two dicts of a port ask for the same; one that cannot be used asks for nothing."""
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
    """A port that the agent calls trusted, by its id alone; raises :class:`Invalid`."""
    raw = {"device": port_id, "mac_address": mac, "port_security_enabled": False}
    return port(raw, host).spec


def macs_of(port_spec: PortSpec) -> frozenset[str]:
    """Under which MAC addresses a port may speak."""
    pairs = (each.mac_address for each in port_spec.allowed_address_pairs)
    return frozenset({port_spec.mac_address, *filter(None, pairs)})


def _list(raw: Mapping[str, object], name: str) -> list[object]:
    value = raw.get(name)
    if value is None:
        return []
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        raise Invalid(name, value, "must be a list")
    return list(value)


def _distinct(values: Iterable[T]) -> list[T]:
    """Each once, in an order that does not depend on theirs."""
    return list({repr(each): each for each in sorted(values, key=repr)}.values())


def _network(field: str, value: object) -> IPNetwork:
    """Host bits beyond the prefix count for nothing, as in a flow of Neutron's."""
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise Invalid(field, value, "must be an IPv4 or IPv6 address or CIDR") from None


def _refusal(message: str, detail: object) -> TaskError:
    return TaskError(ErrorType.INVALID_SPEC, message, repr(detail))


def refused_port(port_id: str, exc: Invalid) -> TaskError:
    """The error of a port that cannot be used itself."""
    return TaskError(ErrorType.INVALID_SPEC, f"port {port_id} cannot be used: {exc}")
