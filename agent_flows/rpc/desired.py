"""Desired state as a host lacks it: specs of ports, and what changed of their groups.

A group's rules, the members of a remote group and the addresses of an address group travel apart,
each against the revision that the host has; whole only if it has none that the server can
start from. The server's cast about a change of groups carries the same, against the revisions that
were the newest before: a host that has these need not ask.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from agent_flows.rpc import codec, transport
from agent_flows.rpc.revisions import ByIds
from agent_flows.spec import DesiredState, Member, PortSpec, Refused, SecurityGroupRule
from agent_flows.validation import Invalid, Mac, Network, Revision, Uuid, parse

# A newer server may add fields.
_LENIENT = pydantic.ConfigDict(extra="ignore")

Entry = tuple[Network, Mac | None]
"""An address of a member, and its MAC: see :class:`agent_flows.spec.Member`."""

ALL = ""
"""In the place of a port: every member, from a server of a release that does not name ports."""


@dataclass(frozen=True, config=_LENIENT)
class Known:
    """What a host has, by revision: rules of security groups, members of those that rules refer
    to, and addresses of address groups."""

    security_groups: ByIds = field(default_factory=dict)
    members: ByIds = field(default_factory=dict)
    address_groups: ByIds = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        return {
            "security_groups": dict(self.security_groups),
            "members": dict(self.members),
            "address_groups": dict(self.address_groups),
        }


@dataclass(frozen=True, config=_LENIENT)
class GroupChange:
    """A security group at its newest ``revision``; ``rules`` is None if the host has them.

    ``since``: what changed after this revision is all that comes with it; None in an answer, which
    is made for what the host has.
    """

    id: Uuid
    revision: Revision
    stateful: Annotated[bool, pydantic.Strict()] = True
    rules: tuple[SecurityGroupRule, ...] | None = None
    since: Revision | None = None


@dataclass(frozen=True, config=_LENIENT)
class MembersChange:
    """Members of a remote group, by port: all of them, or those that changed after the revision
    ``since``. A port without an entry is no member any more."""

    id: Uuid
    revision: Revision
    since: Revision | None = None
    ports: dict[Uuid | Literal[""], tuple[Entry, ...]] = field(default_factory=dict)


@dataclass(frozen=True, config=_LENIENT)
class AddressesChange:
    """The addresses of an address group."""

    id: Uuid
    revision: Revision
    addresses: tuple[Network, ...] = ()


@dataclasses.dataclass(frozen=True)
class Update:
    """The answer: the ports that were asked for and are bound to the host, and what the host lacks
    of the groups of these and of those that it knows.

    ``gone`` are groups that it knows and that do not exist. ``refused`` are invalid specs of any
    kind. ``by_host``: the server takes reports of security groups.
    """

    ports: Sequence[PortSpec] = ()
    security_groups: Sequence[GroupChange] = ()
    members: Sequence[MembersChange] = ()
    address_groups: Sequence[AddressesChange] = ()
    gone: Sequence[str] = ()
    refused: Mapping[str, Refused] = field(default_factory=dict)
    by_host: bool = True

    def to_wire(self) -> dict[str, Any]:
        return {
            "ports": [codec.to_wire(port) for port in self.ports],
            "security_groups": [_GROUP.dump_python(each, mode="json", exclude_defaults=True)
                                for each in self.security_groups],
            "members": [_MEMBERS.dump_python(each, mode="json") for each in self.members],
            "address_groups": [
                _ADDRESSES.dump_python(each, mode="json") for each in self.address_groups
            ],
            "gone": list(self.gone),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Change:
    """What a cast about these groups carries: see :func:`change_from_wire`."""

    ids: frozenset[str]
    wire: Mapping[str, Any]


_GROUP = pydantic.TypeAdapter(GroupChange)
_MEMBERS = pydantic.TypeAdapter(MembersChange)
_ADDRESSES = pydantic.TypeAdapter(AddressesChange)
_GONE: pydantic.TypeAdapter[Sequence[str]] = pydantic.TypeAdapter(list[Uuid])
_LIST: pydantic.TypeAdapter[list[Any]] = pydantic.TypeAdapter(list[Any])

T = TypeVar("T")


def from_wire(raw: object) -> Update:
    """Read the answer. An invalid part is refused alone; one without an id raises Invalid."""
    if not isinstance(raw, Mapping):
        raise Invalid("answer", type(raw).__name__, "must be an object")
    state = codec.state_from_wire(_parts(raw, "ports"))
    refused = dict(state.refused)

    def read(name: str, adapter: pydantic.TypeAdapter[T]) -> list[T]:
        valid = []
        for part in _parts(raw, name):
            try:
                valid.append(parse(adapter, part))
            except Invalid as exc:
                refused[codec.id_of(part, exc)] = codec.refusal(part, exc)
        return valid

    return Update(
        ports=list(state.ports.values()),
        security_groups=read("security_groups", _GROUP),
        members=read("members", _MEMBERS),
        address_groups=read("address_groups", _ADDRESSES),
        gone=parse(_GONE, raw.get("gone", [])),
        refused=refused,
    )


def change_of(ids: Iterable[str], update: Update) -> Change | None:
    """What changed of these groups, for a cast; None if it is too large for one."""
    wire = {name: parts for name, parts in update.to_wire().items() if parts}
    if len(json.dumps(wire)) > transport.MAX_CHANGE_BYTES:
        return None
    return Change(frozenset(ids), wire)


def change_from_wire(raw: object) -> Update:
    """Read what a cast carries: changes of groups, each since a revision; raises Invalid."""
    try:
        size = len(json.dumps(raw))
    except (TypeError, ValueError, RecursionError) as exc:
        raise Invalid("change", type(exc).__name__, "must be JSON") from None
    if size > transport.MAX_CHANGE_BYTES:
        most = transport.MAX_CHANGE_BYTES
        raise Invalid("change", size, f"must have at most {most} bytes")
    change = from_wire(raw)
    for id_, refused in change.refused.items():
        raise Invalid("change", id_, refused.reason)
    for name, parts in (
        ("security_groups", change.security_groups),
        ("members", change.members),
    ):
        for part in parts:
            if part.since is None:
                raise Invalid(f"change.{name}.since", None, "must be a revision")
    if change.ports or change.gone:
        raise Invalid("change", [*change.ports, *change.gone], "must be about groups that exist")
    return change


def _parts(raw: Mapping[str, Any], name: str) -> list[Any]:
    return parse(_LIST, raw.get(name, []))


def whole(state: DesiredState) -> Update:
    """Specs of a server that does not compare revisions of groups, as an answer."""
    groups = state.security_groups.values()
    return Update(
        ports=list(state.ports.values()),
        security_groups=[
            GroupChange(each.id, each.revision, each.stateful, each.rules) for each in groups
        ],
        members=[
            # Its revisions count something else than those of a newer server.
            MembersChange(
                each.id,
                0,
                ports={ALL: tuple((m.address, m.mac_address) for m in each.members)},
            )
            for each in groups
        ],
        address_groups=[
            AddressesChange(each.id, 0, each.addresses) for each in state.address_groups.values()
        ],
        refused=state.refused,
        by_host=False,
    )


def members_of(ports: Mapping[str, Sequence[Entry]]) -> tuple[Member, ...]:
    """Every address once, in an order of its own."""
    entries = {entry for theirs in ports.values() for entry in theirs}
    ordered = sorted(entries, key=lambda entry: (str(entry[0]), entry[1] or ""))
    return tuple(Member(address, mac) for address, mac in ordered)
