"""From what Neutron's agent says about ports and groups to our specs, one value at a time.

Pure. The shapes are those of ``security_group_info_for_ports`` (Neutron,
neutron/db/securitygroups_rpc_base.py), which every OVS agent builds from its
resource cache and hands to its firewall driver.
"""

import ipaddress
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import pydantic

from agent_flows.neutron import revision
from agent_flows.report import TaskError
from agent_flows.spec import (
    Ethertype,
    Member,
    NetworkSpec,
    NetworkType,
    PortSpec,
    SecurityGroupRule,
)
from agent_flows.validation import Invalid, IPNetwork, parse

_RULE = pydantic.TypeAdapter(SecurityGroupRule)
_PORT = pydantic.TypeAdapter(PortSpec)
_MEMBER = pydantic.TypeAdapter(Member)

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
    """A security group's rules. With ``refused`` one of them makes no sense, and no port
    can be brought to what the group says. ``revision`` stands for the rules as they were told."""

    rules: tuple[SecurityGroupRule, ...] = ()
    stateful: bool = True
    refused: TaskError | None = None
    revision: int = 0

    @property
    def remotes(self) -> frozenset[str]:
        """The security and address groups that the rules refer to."""
        ids = (each.remote_group_id or each.remote_address_group_id for each in self.rules)
        return frozenset(filter(None, ids))


def group(name: object, raw: object) -> Group:
    """The group ``name`` with the rules ``raw``, a list of dicts; never raises."""
    rules: dict[SecurityGroupRule, None] = {}
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        return Group(refused=_refusal(f"the rules of security group {name} are not a list", raw))
    said = revision.of_rules(each for each in raw if isinstance(each, Mapping))
    for each in raw:
        try:
            rules[rule(each)] = None
        except Invalid as exc:
            text = f"rule {describe(each)} of security group {name} cannot be used: {exc}"
            return Group(refused=_refusal(text, each), revision=said)
    stateful = [each.get("stateful", True) for each in raw]
    if any(each is not stateful[0] or not isinstance(each, bool) for each in stateful):
        text = f"the rules of security group {name} disagree on whether it is stateful"
        return Group(refused=_refusal(text, raw), revision=said)
    # They come as a set did, in whatever order.
    return Group(tuple(sorted(rules, key=repr)), False not in stateful, revision=said)


def rule(raw: object) -> SecurityGroupRule:
    """One rule; raises :class:`Invalid`. A field nobody here knows may narrow it, so it is
    refused and not left out."""
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
    return parse(_RULE, fields)


def describe(raw: object) -> str:
    """A rule in one line, for people: over RPC it comes without an id."""
    if not isinstance(raw, Mapping):
        return repr(raw)
    said = [f"{name}={value}" for name, value in raw.items() if value is not None]
    return "(" + ", ".join(said) + ")"


@dataclass(frozen=True)
class Members:
    """The addresses of a group that rules refer to, by family; ``refused`` as for groups."""

    by_family: Mapping[Ethertype, tuple[Member, ...]]
    refused: TaskError | None = None

    @property
    def all(self) -> tuple[Member, ...]:
        return tuple(each for family in Ethertype for each in self.by_family.get(family, ()))


NO_MEMBERS = Members({})


def members(name: object, raw: object, before: Members = NO_MEMBERS) -> Members:
    """The members ``raw`` of group ``name``: ``{"IPv4": [(address, MAC or None), ...], ...}``;
    never raises.

    A family the agent did not look up, because the rules it asked for do not
    use it, stays as it was ``before``. Nothing at all means that nobody is left.
    """
    if not raw:
        return NO_MEMBERS
    try:
        families = {} if before.refused else dict(before.by_family)
        if not isinstance(raw, Mapping):
            raise Invalid("", raw, "members come by family")
        for family, entries in raw.items():
            ethertype = _ethertype(family)
            families[ethertype] = tuple(sorted(_members(ethertype, entries), key=repr))
    except Invalid as exc:
        return Members({}, _refusal(f"the members of group {name} make no sense: {exc}", raw))
    return Members(families)


def _ethertype(value: object) -> Ethertype:
    try:
        return Ethertype(str(value))
    except ValueError:
        raise Invalid("", value, "a family is IPv4 or IPv6") from None


def _members(family: Ethertype, entries: object) -> set[Member]:
    if not isinstance(entries, Iterable) or isinstance(entries, str):
        raise Invalid(family, entries, "must be a list")
    found = set()
    for entry in entries:
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 2:
            raise Invalid(family, entry, "a member is an address and a MAC address")
        address, mac = _network(family, entry[0]), entry[1]
        if address.version != family.version:
            raise Invalid(family, entry[0], f"must be an {family} address")
        # The resource cache turns an address pair's missing MAC into a word.
        known = None if mac in (None, "None") else mac
        found.add(parse(_MEMBER, {"address": address, "mac_address": known}))
    return found


def port(raw: Mapping[str, object], host: str) -> PortSpec:
    """A port as ``prepare_port_filter`` gets it; raises :class:`Invalid`.

    Without its revision, for whether it has changed is told by what it is; and
    without its network, which is told by where it is plugged in.
    """
    fields = {
        "id": raw.get("device"),
        "revision": 0,
        "host": host,
        "network": _NO_NETWORK,
        "mac_address": raw.get("mac_address"),
        "fixed_ips": tuple(_distinct(_list(raw, "fixed_ips"))),
        "allowed_address_pairs": tuple(
            _distinct(map(_address_pair, _list(raw, "allowed_address_pairs")))
        ),
        "security_groups": tuple(_distinct(map(group_id, _list(raw, "security_groups")))),
        "port_security_enabled": raw.get("port_security_enabled", True),
        "admin_state_up": raw.get("admin_state_up", True),
        "device_owner": raw.get("device_owner") or "",
    }
    return parse(_PORT, fields)


def groups_of(raw: Mapping[str, object]) -> tuple[str, ...]:
    """The port's security groups as far as they make sense, whatever else of it does not."""
    try:
        return tuple(map(group_id, _list(raw, "security_groups")))
    except Invalid:
        return ()


def same_wiring(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two dicts of a port ask for the same; one that makes no sense asks for nothing."""
    try:
        return port(one, _SOMEWHERE) == port(other, _SOMEWHERE)
    except Invalid:
        return False


def _address_pair(raw: object) -> dict[str, object]:
    if not isinstance(raw, Mapping):
        raise Invalid("allowed_address_pairs", raw, "an address pair is an object")
    return {
        "ip_address": _network("allowed_address_pairs", raw.get("ip_address")),
        "mac_address": raw.get("mac_address"),
    }


def trusted_port(port_id: str, mac: object, host: str) -> PortSpec:
    """A port that the agent calls trusted, by its id alone; raises :class:`Invalid`."""
    raw = {"device": port_id, "mac_address": mac, "port_security_enabled": False}
    return port(raw, host)


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


def _distinct(values: Iterable[object]) -> list[object]:
    """Each once, in an order that does not depend on theirs."""
    return list({repr(each): each for each in sorted(values, key=repr)}.values())


def _network(field: str, value: object) -> IPNetwork:
    """Host bits beyond the prefix count for nothing, as in a flow of Neutron's."""
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise Invalid(field, value, "must be an IPv4 or IPv6 address or CIDR") from None


def _refusal(message: str, detail: object) -> TaskError:
    return TaskError("InvalidSpec", message, repr(detail))


def refused_port(port_id: str, exc: Invalid) -> TaskError:
    """The error of a port that makes no sense itself."""
    return TaskError("InvalidSpec", f"port {port_id} cannot be used: {exc}")
