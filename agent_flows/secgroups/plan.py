"""From what is installed to what is desired: the lines of one bundle, and what is installed then.

Pure: values in, values out. Nothing here talks to the switch, so a refused
bundle leaves the values before it as they were.

Everything is changed by difference: of a port's flows, and of those that ports
share, only new, removed and changed ones are sent. A port with few unchanged
flows is written as a whole.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace

from agent_flows.fairness import fair
from agent_flows.openflow import cookie, flow
from agent_flows.secgroups.conjunction import Conjunctions, Members, Remote, Use, address_flow
from agent_flows.secgroups.delivery import Destination, flows_to
from agent_flows.secgroups.installed import Installed, InstalledPort, address_keys
from agent_flows.secgroups.port_flows import PortFlows
from agent_flows.spec import Direction


@dataclass(frozen=True)
class Plan:
    """``lines`` of one bundle; ``owners`` are the ports that each line is for."""

    lines: list[str]
    owners: list[Set[str]]
    after: Installed


def plan(
    before: Installed,
    changes: Mapping[str, PortFlows | None],
    members: Mapping[Remote, Members],
    conjunctions: Conjunctions,
    abandoned: Iterable[int] = (),
) -> Plan:
    """Bring the ports of ``changes`` to these flows (None: none), with ``members``
    as the newest known members of remote groups, and take away what an older
    process left for the ofports ``abandoned``."""
    draft = _Draft(before, conjunctions)
    for ofport in abandoned:
        draft.clear_strays(ofport)
    for port_id, flows in fair(changes.items()):
        draft.change_port(port_id, flows)
    draft.change_members(members)
    return draft.finish()


@dataclass(frozen=True, slots=True)
class _Shared:
    """A shared flow that may have to change; without ``text`` it goes."""

    key: str
    text: str | None
    kind: cookie.Kind
    ports: Set[str]


class _Draft:
    """A copy of what is installed, being changed."""

    def __init__(self, before: Installed, conjunctions: Conjunctions) -> None:
        self._before = before
        self._conjunctions = conjunctions
        self._ports = dict(before.ports)
        self._by_ofport = {each.flows.ofport: port for port, each in before.ports.items()}
        self._receivers = dict(before.receivers)
        self._members = dict(before.members)
        self._users = dict(before.users)
        self._strays = dict(before.strays)
        self._touched: dict[Destination, None] = {}
        self._changed_uses: set[Use] = set()
        self._generation = before.generation % cookie.MAX_GENERATION + 1
        self._deletes: list[tuple[str, Set[str]]] = []
        self._adds: list[tuple[str, Set[str]]] = []
        self._wanted_by: defaultdict[Destination | Use, set[str]] = defaultdict(set)

    def change_port(self, port_id: str, flows: PortFlows | None) -> None:
        old = self._ports.get(port_id)
        if flows is None:
            if old is not None:
                self._take_away(port_id, old)
            return
        wants: list[Destination | Use] = [*flows.destinations, *flows.uses]
        for want in wants:
            self._wanted_by[want].add(port_id)
        if old is not None:
            if old.flows == flows:
                if old.flows.own is not flows.own:
                    self._ports[port_id] = replace(old, flows=flows)
                return
            if old.flows.ofport == flows.ofport:
                self._change_by_difference(old, flows)
                return
        other = self._by_ofport.get(flows.ofport, port_id)
        if other != port_id:
            # The interface belongs to another port now.
            self.change_port(other, None)
        if old is not None:
            self._take_away(port_id, old)
        self.clear_strays(flows.ofport, {port_id})
        self._write(flows)
        self._by_ofport[flows.ofport] = port_id
        self._connect(flows)

    def _change_by_difference(self, old: InstalledPort, flows: PortFlows) -> None:
        owner = frozenset({flows.port_id})
        gone, new = old.flows.gone_and_new(flows)
        if len(gone) + len(new) > flows.count:
            self._delete_flows(old, owner)
            self._write(flows)
        else:
            self._deletes += [(flow.delete_key(flow.key_of(line)), owner) for line in gone]
            cookie_ = cookie.port(flows.ofport, self._generation)
            self._adds += [(flow.add(line, cookie_), owner) for line in new]
            later = {**old.later, **dict.fromkeys(new, self._generation)}
            for line in gone:
                later.pop(line, None)
            self._ports[flows.port_id] = InstalledPort(flows, old.generation, later)
        if (old.flows.destinations, old.flows.uses) != (flows.destinations, flows.uses):
            self._disconnect(old.flows)
            self._connect(flows)

    def _write(self, flows: PortFlows) -> None:
        owner = frozenset({flows.port_id})
        cookie_ = cookie.port(flows.ofport, self._generation)
        self._adds += [(flow.add(line, cookie_), owner) for line in flows.lines]
        self._ports[flows.port_id] = InstalledPort(flows, self._generation)

    def _take_away(self, port_id: str, old: InstalledPort) -> None:
        del self._ports[port_id]
        del self._by_ofport[old.flows.ofport]
        self._delete_flows(old, frozenset({port_id}))
        self.clear_strays(old.flows.ofport, {port_id})
        self._disconnect(old.flows)

    def _delete_flows(self, old: InstalledPort, owner: Set[str]) -> None:
        self._deletes += [(flow.delete(each), owner) for each in old.cookies()]

    def _connect(self, flows: PortFlows) -> None:
        for destination, own in flows.destinations.items():
            receivers = {**self._receivers.get(destination, {}), flows.ofport: own}
            self._receive(destination, receivers)
        for use in flows.uses:
            self._users[use] = self._users.get(use, 0) + 1
            self._changed_uses.add(use)

    def _disconnect(self, flows: PortFlows) -> None:
        for destination in flows.destinations:
            self._take_from(destination, flows.ofport)
        for use in flows.uses:
            self._users[use] -= 1
            if not self._users[use]:
                del self._users[use]
            self._changed_uses.add(use)

    def clear_strays(self, ofport: int, ports: Set[str] = frozenset()) -> None:
        """What an older process left for this ofport; its MACs are known from the switch only."""
        if ofport not in self._strays:
            return
        self._deletes += [(flow.delete(each), ports) for each in sorted(self._strays.pop(ofport))]
        for destination in [each for each, have in self._receivers.items() if ofport in have]:
            self._take_from(destination, ofport)

    def _take_from(self, destination: Destination, ofport: int) -> None:
        receivers = dict(self._receivers.get(destination, {}))
        receivers.pop(ofport, None)
        self._receive(destination, receivers)

    def _receive(self, destination: Destination, receivers: Mapping[int, bool]) -> None:
        self._touched[destination] = None
        if receivers:
            self._receivers[destination] = receivers
        else:
            self._receivers.pop(destination, None)

    def change_members(self, members: Mapping[Remote, Members]) -> None:
        changed = {
            remote for remote, each in members.items() if self._before.members.get(remote) != each
        }
        self._members.update(members)
        self._changed_uses |= {use for use in self._users if use.remote in changed}

    def finish(self) -> Plan:
        everyone = frozenset().union(*self._wanted_by.values())
        changes = [*self._deletes, *self._adds]
        lines = [line for line, _ in changes]
        owners = [ports for _, ports in changes]
        shared = dict(self._before.shared)
        holders = dict(self._before.holders)
        for item in fair(self._shared_flows(holders)):
            line = _difference(item, shared)
            if line:
                lines.append(line)
                owners.append(item.ports or everyone)
        after = Installed(
            self._ports, self._receivers, self._members, self._users, holders, shared,
            self._strays, self._generation if self._adds else self._before.generation,
        )  # fmt: skip
        return Plan(lines, owners, after)

    def _shared_flows(self, holders: dict[str, tuple[int, ...]]) -> Iterator[_Shared]:
        for destination in self._touched:
            receivers = self._receivers.get(destination, {})
            for each in flows_to(destination, receivers):
                text = str(each) if receivers else None
                ports = self._wanted_by[destination]
                yield _Shared(each.key, text, cookie.Kind.DELIVERY, ports)
        yield from self._accepting_flows()
        yield from self._address_flows(holders)

    def _accepting_flows(self) -> Iterator[_Shared]:
        live = {(use.remote, use.direction) for use in self._users}
        ports: defaultdict[tuple[Remote, Direction], set[str]] = defaultdict(set)
        for use in self._changed_uses:
            ports[use.remote, use.direction] |= self._wanted_by[use]
        for pair, wanting in sorted(ports.items()):
            accept = self._conjunctions.accept(*pair)
            text = str(accept) if pair in live else None
            yield _Shared(accept.key, text, cookie.Kind.CONJUNCTION, wanting)

    def _address_flows(self, holders: dict[str, tuple[int, ...]]) -> Iterator[_Shared]:
        """Each use takes its id from the addresses it had and gives it to those it has."""
        ports: defaultdict[str, set[str]] = defaultdict(set)
        for use in sorted(self._changed_uses):
            same = self._before.members.get(use.remote) == self._members.get(use.remote)
            if same and use in self._before.users and use in self._users:
                continue
            number = self._conjunctions.id_of(use.remote)
            had = self._keys(use, self._before.users, self._before.members)
            has = self._keys(use, self._users, self._members)
            for key in had - has:
                holders[key] = tuple(each for each in holders[key] if each != number)
            for key in has - had:
                holders[key] = (*holders.get(key, ()), number)
            for key in had ^ has:
                ports[key] |= self._wanted_by[use]
        for key, wanting in ports.items():
            text = address_flow(key, holders[key]) if holders[key] else None
            if text is None:
                del holders[key]
            yield _Shared(key, text, cookie.Kind.MEMBER, wanting)

    def _keys(
        self, use: Use, users: Mapping[Use, int], members: Mapping[Remote, Members]
    ) -> set[str]:
        return set(address_keys(use, members, self._conjunctions)) if use in users else set()


def _difference(item: _Shared, shared: dict[str, int]) -> str:
    """The line that brings the flow to what it should be, noted in ``shared``; "" for none."""
    if item.text is None:
        return flow.delete_key(item.key) if shared.pop(item.key, None) is not None else ""
    digest = cookie.content(item.kind, item.text)
    if shared.get(item.key) == digest:
        return ""
    shared[item.key] = digest
    return flow.add(item.text, digest)
