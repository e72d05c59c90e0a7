"""Where a bridge's flows are not those compiled. Pure.

The entries come from ovs-ofctl's diff-flows, which compares in the switch's own terms:
``nw_src=10.0.0.7/24`` is ``nw_src=10.0.0.0/24``, and a register is a number however it is written.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent_flows.errors import ErrorType
from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import Differences, FlowEntry
from agent_flows.report import TaskError

_SHOWN = 20


def concerns(entry: FlowEntry, ofport: int) -> bool:
    """Whether a port depends on an entry with a cookie of ours."""
    kind = cookie.kind(entry.cookie)
    if kind == Kind.PORT and cookie.serial(entry.cookie) == ofport:
        return True
    if kind in (Kind.PORT, Kind.DELIVERY):
        return ofport in entry.matched_ports or ofport in entry.receivers
    return True


@dataclass(frozen=True)
class Difference:
    """``missing`` flows are not installed, or not as expected. ``surplus`` ones are installed with
    a cookie of ours although no flow with their key is expected; so are ``strange`` ones, with a
    cookie that is not ours."""

    missing: tuple[FlowEntry, ...] = ()
    surplus: tuple[FlowEntry, ...] = ()
    strange: tuple[FlowEntry, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.strange)

    def error_of(self, ofport: int) -> TaskError | None:
        """What is wrong for a port, of what is ours."""
        missing = [entry for entry in self.missing if concerns(entry, ofport)]
        surplus = [entry for entry in self.surplus if concerns(entry, ofport)]
        if not missing and not surplus:
            return None
        return TaskError(
            ErrorType.NOT_AS_COMPILED,
            f"of the flows the port depends on {len(missing)} are missing or changed, "
            f"and {len(surplus)} are there that were not compiled",
            shown([*missing, *surplus]),
        )


def of(found: Differences) -> Difference:
    """Every flow with a cookie that is not ours is ``strange``, whether its owner is known or
    not."""
    expected = {entry.key for entry in found.expected}
    present = [entry for entry in found.present if entry.key not in expected]
    return Difference(
        tuple(found.expected),
        tuple(entry for entry in present if cookie.is_ours(entry.cookie)),
        tuple(entry for entry in present if not cookie.is_ours(entry.cookie)),
    )


def shown(entries: Iterable[FlowEntry]) -> str:
    """For people: the flows, one a line; of many the first."""
    lines = list(map(str, entries))
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join(lines[:_SHOWN] + more)
