"""The desired state that the agent has: ports bound to this host, and their groups.

Groups are kept once for all ports, and only what changed of them is read again.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent_flows.rpc.desired import (
    Entry,
    GroupChange,
    Known,
    MembersChange,
    Update,
    members_of,
)
from agent_flows.rpc.revisions import Revisions, digest
from agent_flows.spec import (
    AddressGroupSpec,
    DesiredState,
    Member,
    PortSpec,
    Refused,
    SecurityGroupRule,
    SecurityGroupSpec,
)
from agent_flows.validation import Invalid

# The revision of a group that the server does not have.
_MISSING = -1


@dataclass(frozen=True)
class _Group:
    revision: int
    stateful: bool
    rules: tuple[SecurityGroupRule, ...]


@dataclass(frozen=True)
class _Members:
    """Of a remote group, by port; and every address once."""

    revision: int
    ports: Mapping[str, Sequence[Entry]]
    all: tuple[Member, ...]


@dataclass(frozen=True)
class _Invalid:
    """A port with an invalid spec: its groups are not known. Those of the server that no other
    port is in count as its own, at ``groups``. It is asked for again and again until it is valid.
    """

    refused: Refused
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        return self.refused.revision


class Knowledge:
    """What the server's answers brought. Safe from any thread.

    The reconciler applies it, and tries again until that succeeds: what was
    learnt needs no further message.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One answer after the other: each starts from what the one before brought.
        self._asking = threading.Lock()
        self._ports: dict[str, PortSpec | _Invalid] = {}
        self._groups: dict[str, _Group | Refused] = {}
        self._members: dict[str, _Members] = {}
        self._address_groups: dict[str, tuple[int, AddressGroupSpec]] = {}
        # All groups, as the last answer left them; made when it is first needed.
        self._content: DesiredState | None = None
        # Whether the next answer is to bring all of the groups.
        self._afresh = False
        self.by_host = False
        """Whether the server takes reports of security groups."""

    def ask(
        self, server: Callable[[Collection[str], Known], Update], port_ids: Collection[str]
    ) -> frozenset[str]:
        """Learn from the server's answer about these ports and all known groups.

        Returns the security groups that changed. Raises what ``server`` raises, and Invalid if
        the answer does not fit what is known: then nothing is learnt, and the next one brings
        everything.
        """
        with self._asking:
            update = server(port_ids, self._known())
            with self._lock:
                self._afresh = False
                try:
                    with self._all_or_nothing():
                        return self._learn(port_ids, update)
                except Invalid:
                    self._afresh = True
                    raise

    def follow(self, change: Update) -> frozenset[str]:
        """Learn from a cast of the server what changed of groups since the revisions before.

        Returns the security groups that changed. Waits while an answer is awaited, which may be
        older than the cast. Raises Invalid if the host has other revisions, or lacks a part of
        what the cast is about: then nothing is learnt, and the server must be asked.
        """
        with self._asking, self._lock, self._all_or_nothing():
            return self._follow(change)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """The caller holds the lock."""
        before = self._ports, self._groups, self._members, self._address_groups
        self._ports, self._groups = dict(self._ports), dict(self._groups)
        self._members, self._address_groups = dict(self._members), dict(self._address_groups)
        try:
            yield
        except Invalid:
            self._ports, self._groups, self._members, self._address_groups = before
            raise

    def _known(self) -> Known:
        with self._lock:
            # One that is missing or invalid is asked for again.
            groups = dict.fromkeys(self._own(), 0)
            if self._afresh:
                return Known(groups)
            groups |= {
                id_: group.revision
                for id_, group in self._groups.items()
                if isinstance(group, _Group)
            }
            return Known(
                groups,
                {id_: members.revision for id_, members in self._members.items()},
                {id_: revision for id_, (revision, _) in self._address_groups.items()},
            )

    # What an answer brings; the caller holds the lock.

    def _learn(self, port_ids: Collection[str], update: Update) -> frozenset[str]:
        before = {id_: group.revision for id_, group in self._groups.items()}
        self._learn_ports(port_ids, update)
        for members in update.members:
            self._members[members.id] = self._with_members(members)
        for addresses in update.address_groups:
            spec = AddressGroupSpec(id=addresses.id, addresses=addresses.addresses)
            self._address_groups[addresses.id] = addresses.revision, spec
        for change in update.security_groups:
            self._groups[change.id] = self._with_rules(change)
        for id_ in update.gone:
            self._groups.pop(id_, None)
        ports = {*port_ids, *self._ports}
        for id_, refused in update.refused.items():
            if id_ not in ports:
                self._refuse_group(id_, refused)
        self._forget_unused()
        self._content = None
        self.by_host = update.by_host
        return frozenset(
            id_ for id_, group in self._groups.items() if before.get(id_) != group.revision
        )

    def _follow(self, change: Update) -> frozenset[str]:
        own = self._own()
        groups = {
            each.id: self._with_rules(each)
            for each in change.security_groups
            if each.id in own and not _is_at(self._groups.get(each.id), each.revision)
        }
        if not groups:
            return frozenset()
        if not self.by_host:
            raise Invalid("change", None, "what this host has is of an older server")
        self._groups |= groups
        remotes, addressed = self._referred()
        for members in change.members:
            known = self._members.get(members.id)
            if members.id in remotes and not _is_at(known, members.revision):
                self._members[members.id] = self._with_members(members)
        for addresses in change.address_groups:
            if addresses.id in addressed:
                spec = AddressGroupSpec(id=addresses.id, addresses=addresses.addresses)
                self._address_groups[addresses.id] = addresses.revision, spec
        lacking = (remotes - self._members.keys()) | (addressed - self._address_groups.keys())
        if lacking:
            raise Invalid("change", sorted(lacking), "this host does not have these groups")
        self._forget_unused()
        self._content = None
        return frozenset(groups)

    def _learn_ports(self, port_ids: Collection[str], update: Update) -> None:
        specs = {spec.id: spec for spec in update.ports}
        for port_id in port_ids:
            if refused := update.refused.get(port_id):
                known = self._ports.get(port_id)
                groups = known.groups if isinstance(known, _Invalid) else {}
                self._ports[port_id] = _Invalid(refused, groups)
            elif spec := specs.get(port_id):
                self._ports[port_id] = spec
            else:
                self._ports.pop(port_id, None)

    def _with_members(self, change: MembersChange) -> _Members:
        ports: dict[str, Sequence[Entry]] = {}
        if change.since is not None:
            known = self._members.get(change.id)
            if known is None or known.revision != change.since:
                have = None if known is None else known.revision
                raise Invalid("members.since", change.since, f"this host has revision {have}")
            ports.update(known.ports)
        ports.update(change.ports)
        ports = {port_id: entries for port_id, entries in ports.items() if entries}
        return _Members(change.revision, ports, members_of(ports))

    def _with_rules(self, change: GroupChange) -> _Group:
        rules, known = change.rules, self._groups.get(change.id)
        if change.since is not None and not _is_at(known, change.since):
            have = known.revision if isinstance(known, _Group) else None
            raise Invalid("security_groups.since", change.since, f"this host has revision {have}")
        if rules is None:
            if not isinstance(known, _Group):
                raise Invalid("security_groups.rules", None, "this host does not have the rules")
            rules = known.rules
        return _Group(change.revision, change.stateful, rules)

    def _refuse_group(self, id_: str, refused: Refused) -> None:
        """A part of what is desired of this group is invalid, and with it the group."""
        self._groups[id_] = refused
        self._members.pop(id_, None)
        self._address_groups.pop(id_, None)

    def _forget_unused(self) -> None:
        own = self._own()
        remotes, addressed = self._referred()
        self._groups = {
            id_: group
            for id_, group in self._groups.items()
            if id_ in own or (isinstance(group, Refused) and id_ in remotes | addressed)
        }
        self._members = {id_: each for id_, each in self._members.items() if id_ in remotes}
        self._address_groups = {
            id_: each for id_, each in self._address_groups.items() if id_ in addressed
        }

    def _referred(self) -> tuple[set[str], set[str]]:
        """The security groups and the address groups that rules of this host's groups refer to."""
        own = self._own()
        rules = [
            rule
            for id_, group in self._groups.items()
            if isinstance(group, _Group) and id_ in own
            for rule in group.rules
        ]
        return (
            {rule.remote_group_id for rule in rules if rule.remote_group_id},
            {rule.remote_address_group_id for rule in rules if rule.remote_address_group_id},
        )

    def _own(self) -> set[str]:
        return {id_ for port in self._ports.values() for id_ in _groups_of(port)}

    # What the flows apply.

    def has(self, port_id: str) -> bool:
        """Whether the port's spec is known and valid."""
        with self._lock:
            return isinstance(self._ports.get(port_id), PortSpec)

    def inside(self, groups: Collection[str]) -> set[str]:
        """The ports in one of these security groups."""
        ids = frozenset(groups)
        with self._lock:
            return {
                id_ for id_, port in self._ports.items() if not ids.isdisjoint(_groups_of(port))
            }

    def may_have(self, groups: Collection[str]) -> bool:
        """Whether one of these security or address groups matters on this host; also while an
        answer is awaited, for that may bring an older state of a group not known before."""
        if self._asking.locked():
            return True
        with self._lock:
            known = (self._groups, self._members, self._address_groups)
            return any(id_ in each for each in known for id_ in groups)

    def state(self, port_ids: Collection[str]) -> DesiredState:
        """The desired state of these ports, as far as it is known, and all groups."""
        with self._lock:
            if self._content is None:
                self._content = self._all_groups()
            content = self._content
            ports = {id_: self._ports[id_] for id_ in port_ids if id_ in self._ports}
        invalid = {id_: port.refused for id_, port in ports.items() if isinstance(port, _Invalid)}
        return dataclasses.replace(
            content,
            ports={id_: port for id_, port in ports.items() if isinstance(port, PortSpec)},
            refused={**content.refused, **invalid},
        )

    def _all_groups(self) -> DesiredState:
        groups: dict[str, SecurityGroupSpec] = {}
        refused: dict[str, Refused] = {}
        for id_, group in self._groups.items():
            if isinstance(group, Refused):
                refused[id_] = group
            else:
                groups[id_] = SecurityGroupSpec(
                    id=id_,
                    revision=group.revision,
                    stateful=group.stateful,
                    rules=group.rules,
                    members=self._members_of(id_),
                )
        for id_ in self._members.keys() - groups.keys() - refused.keys():
            groups[id_] = SecurityGroupSpec(id=id_, revision=0, members=self._members_of(id_))
        addresses = {id_: spec for id_, (_, spec) in self._address_groups.items()}
        return DesiredState({}, groups, addresses, refused)

    def _members_of(self, group: str) -> tuple[Member, ...]:
        members = self._members.get(group)
        return members.all if members is not None else ()

    # What it is compared with.

    def digest(self) -> str:
        """To compare with that of :class:`agent_flows.rpc.revisions.Revisions`."""
        with self._lock:
            return digest(self._lines())

    def _lines(self) -> Iterator[tuple[str, str, int]]:
        for port_id, port in self._ports.items():
            yield "port", port_id, port.revision
            for group, revision in self._revisions_of(port).items():
                yield "security_group", group, revision

    def _revisions_of(self, port: PortSpec | _Invalid) -> Mapping[str, int]:
        if isinstance(port, _Invalid):
            return port.groups
        known = ((id_, self._groups.get(id_)) for id_ in _groups_of(port))
        return {id_: group.revision if group else _MISSING for id_, group in known}

    def differing(self, theirs: Revisions) -> tuple[set[str], bool]:
        """The ports whose specs the agent must read from the server again, and whether what it
        has of the groups differs.

        Groups of no port with a valid spec count as those of the ports with an invalid one.
        """
        with self._lock:
            ports = dict(self._ports)
            asked = {
                id_
                for id_ in ports.keys() | theirs.ports.keys()
                if id_ not in ports or ports[id_].revision != theirs.ports.get(id_)
            }
            known: dict[str, int] = {}
            for port in ports.values():
                if not isinstance(port, _Invalid):
                    known |= self._revisions_of(port)
            others = {id_: rev for id_, rev in theirs.security_groups.items() if id_ not in known}
            for id_, port in ports.items():
                if isinstance(port, _Invalid) and id_ not in asked:
                    self._ports[id_] = dataclasses.replace(port, groups=others)
            return asked, any(
                theirs.security_groups.get(id_, _MISSING) != revision
                for id_, revision in known.items()
            )


def _is_at(known: _Group | _Members | Refused | None, revision: int) -> bool:
    """Whether a valid group is known, at this revision."""
    return known is not None and not isinstance(known, Refused) and known.revision == revision


def _groups_of(port: PortSpec | _Invalid) -> tuple[str, ...]:
    return () if isinstance(port, _Invalid) else port.security_groups_in_force
