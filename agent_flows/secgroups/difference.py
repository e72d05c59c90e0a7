"""Where a bridge's flows are not those compiled. Pure.

The entries come from ovs-ofctl's diff-flows, which compares in the switch's own terms:
``nw_src=10.0.0.7/24`` is ``nw_src=10.0.0.0/24``, and a register is a number however it is written.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from agent_flows.errors import ErrorType
from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import Differences, FlowEntry
from agent_flows.report import TaskError

_SHOWN = 20

Line = tuple[str, FlowEntry]
"""What is wrong with an entry, and the entry."""


@dataclass(frozen=True)
class _Concerned:
    """The entries that concern ports with an ofport, those of a local VLAN, and all ports."""

    ofports: Mapping[int, list[Line]]
    vlans: Mapping[int, list[Line]]
    everyone: list[Line]

    def of(self, ofport: int, vlan: int) -> list[Line]:
        return [*self.ofports.get(ofport, ()), *self.vlans.get(vlan, ()), *self.everyone]


@dataclass(frozen=True)
class Difference:
    """``missing`` flows are not installed, or not as expected. ``surplus`` ones are installed with
    a cookie of ours although no flow with their key is expected; so are ``strange`` ones, with a
    cookie that is not ours. ``changed`` is what is installed under the keys of ``missing`` ones."""

    missing: tuple[FlowEntry, ...] = ()
    surplus: tuple[FlowEntry, ...] = ()
    strange: tuple[FlowEntry, ...] = ()
    changed: tuple[FlowEntry, ...] = field(default=(), compare=False)

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.strange)

    @property
    def is_of_networks(self) -> bool:
        """Whether a flow of a network is among what is missing or surplus."""
        entries = itertools.chain(self.missing, self.surplus)
        return any(cookie.kind(entry.cookie) == Kind.NETWORK for entry in entries)

    @cached_property
    def _concerned(self) -> _Concerned:
        found = _Concerned(defaultdict(list), defaultdict(list), [])
        changed = {entry.key: entry for entry in self.changed}
        for entry in self.missing:
            if now := changed.get(entry.key):
                # Whoever wrote it: it concerns the ports of the flow that it replaced.
                _note(found, entry, [("changed, should be", entry), ("changed, is", now)])
            else:
                _note(found, entry, [("missing", entry)])
        for entry in self.surplus:
            _note(found, entry, [("not compiled", entry)])
        return found

    def of_port(self, ofport: int, vlan: int) -> list[Line]:
        """What is wrong for a port, of what is ours."""
        return self._concerned.of(ofport, vlan)

    def of_vlan(self, vlan: int) -> list[Line]:
        """What is wrong with the flows of the network that has this local VLAN."""
        return self._concerned.vlans.get(vlan, [])

    def error_of(self, ofport: int, vlan: int) -> TaskError | None:
        """The error of a port's flow that left this difference."""
        lines = self.of_port(ofport, vlan)
        if not lines:
            return None
        surplus = sum(what == "not compiled" for what, _ in lines)
        missing = sum(what in ("missing", "changed, should be") for what, _ in lines)
        return TaskError(
            ErrorType.NOT_AS_COMPILED,
            f"of the flows the port depends on {missing} are missing or changed, "
            f"and {surplus} are there that were not compiled",
            shown(lines),
        )


def drift(lines: Iterable[Line], where: str = "") -> TaskError:
    """The error of a port whose flows were as compiled, until another program changed them."""
    found = list(lines)
    numbers = {
        "missing": sum(what == "missing" for what, _ in found),
        "changed": sum(what == "changed, should be" for what, _ in found),
        "not compiled": sum(what == "not compiled" for what, _ in found),
        "of another program": sum(what == "of another program" for what, _ in found),
    }
    listed = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return TaskError(
        ErrorType.DRIFT, f"flows {where}that the port depends on: {listed}", shown(found)
    )


def of(found: Differences) -> Difference:
    """Every flow with a cookie that is not ours is ``strange``, whether its owner is known or
    not."""
    expected = {entry.key for entry in found.expected}
    changed = tuple(entry for entry in found.present if entry.key in expected)
    present = [entry for entry in found.present if entry.key not in expected]
    return Difference(
        tuple(found.expected),
        tuple(entry for entry in present if cookie.is_ours(entry.cookie)),
        tuple(entry for entry in present if not cookie.is_ours(entry.cookie)),
        changed,
    )


def shown(lines: Iterable[Line]) -> str:
    """For people: the flows, one a line; of many the first."""
    rest = iter(lines)
    first = [f"{what}: {entry}" for what, entry in itertools.islice(rest, _SHOWN)]
    more = sum(1 for _ in rest)
    return "\n".join([*first, *([f"and {more} more"] if more else [])])


def _note(found: _Concerned, entry: FlowEntry, lines: list[Line]) -> None:
    """``lines`` are about ``entry``, which has a cookie of ours."""
    kind, serial = cookie.kind(entry.cookie), cookie.serial(entry.cookie)
    match kind:
        case Kind.PORT | Kind.DELIVERY:
            own = {serial} if kind == Kind.PORT else set[int]()
            for ofport in own | entry.matched_ports | entry.receivers:
                found.ofports[ofport].extend(lines)
        case Kind.NETWORK:
            found.vlans[serial].extend(lines)
        case _:
            found.everyone.extend(lines)
