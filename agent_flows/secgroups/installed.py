"""What the switch holds, as far as it is ours: values, replaced as a whole, never changed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent_flows.fairness import fair
from agent_flows.openflow import cookie, flow
from agent_flows.secgroups.conjunction import Conjunctions, Members, Remote, Use, address_flow
from agent_flows.secgroups.delivery import Destination, flows_to
from agent_flows.secgroups.port_flows import PortFlows


@dataclass(frozen=True, slots=True)
class InstalledPort:
    """A port's flows as they are in the switch.

    ``generation`` is that of the bundle that wrote all of it; flows that came
    later, by difference, are ``later``'s, each with its own.
    """

    flows: PortFlows
    generation: int
    later: Mapping[str, int] = field(default_factory=dict)

    def cookies(self) -> Counter[int]:
        """How many flows of the port the switch should hold of each cookie."""
        ofport = self.flows.ofport
        counts = Counter(cookie.port(ofport, each) for each in self.later.values())
        counts[cookie.port(ofport, self.generation)] += self.flows.count - len(self.later)
        return +counts

    def lines(self) -> Iterator[str]:
        """The flows of the port, each with its cookie."""
        for line in self.flows.lines:
            generation = self.later.get(line, self.generation)
            yield flow.with_cookie(line, cookie.port(self.flows.ofport, generation))


@dataclass(frozen=True)
class Installed:
    """What the switch holds, as far as it is ours.

    ``shared`` is every shared flow by key with its cookie (a digest of its
    content); ``holders`` the conjunctions that hold an address, by the key of
    its flow; ``strays`` the cookies of port flows that ``ports`` do not account
    for, by ofport: those of an older process, until their port is applied
    again. ``members`` also keeps groups that no port uses now, so that a
    port's flows can be put back; :func:`forget_unused` lets go of them.
    ``generation`` is the newest given to a bundle.
    """

    ports: Mapping[str, InstalledPort] = field(default_factory=dict)
    receivers: Mapping[Destination, Mapping[int, bool]] = field(default_factory=dict)
    members: Mapping[Remote, Members] = field(default_factory=dict)
    users: Mapping[Use, int] = field(default_factory=dict)
    holders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shared: Mapping[str, int] = field(default_factory=dict)
    strays: Mapping[int, frozenset[int]] = field(default_factory=dict)
    generation: int = 0

    def cookies(self) -> Counter[int]:
        """How many flows of ports, and shared by them, the switch should hold of each cookie;
        strays are not among them."""
        counts = Counter(self.shared.values())
        for port in self.ports.values():
            counts.update(port.cookies())
        return counts

    def count(self) -> int:
        """How many flows that is in all."""
        return len(self.shared) + sum(each.flows.count for each in self.ports.values())


def flows(installed: Installed, conjunctions: Conjunctions) -> Iterator[str]:
    """Every flow of ports, and shared by them, that the switch should hold, with its cookie;
    strays are not among them."""
    for port in fair(installed.ports.values()):
        yield from port.lines()
    for text in fair(_shared_texts(installed, conjunctions)):
        # One that an older process worded otherwise is not known yet.
        known = installed.shared.get(flow.key_of(text))
        if known is not None:
            yield flow.with_cookie(text, known)


def _shared_texts(installed: Installed, conjunctions: Conjunctions) -> Iterator[str]:
    for destination, receivers in installed.receivers.items():
        yield from map(str, flows_to(destination, receivers))
    for remote, direction in {(use.remote, use.direction) for use in installed.users}:
        yield str(conjunctions.accept(remote, direction))
    for key, ids in installed.holders.items():
        yield address_flow(key, ids)


def forget_unused(installed: Installed, needed: Iterable[PortFlows]) -> Installed:
    """Without the members of groups that no port uses, now or with the ``needed`` flows."""
    used = {use.remote for use in installed.users}
    used |= {use.remote for flows in needed for use in flows.uses}
    kept = {remote: each for remote, each in installed.members.items() if remote in used}
    return replace(installed, members=kept)


def address_keys(
    use: Use, members: Mapping[Remote, Members], conjunctions: Conjunctions
) -> Iterator[str]:
    """The keys of the flows of a remote group's addresses."""
    known = members.get(use.remote)
    for address in known.of(use.ethertype) if known else ():
        yield conjunctions.address_key(use, address)
