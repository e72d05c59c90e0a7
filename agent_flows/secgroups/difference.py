"""Where a bridge's flows are not those compiled, read from ovs-ofctl's diff-flows. Pure.

The tool compares in the switch's own terms: ``nw_src=10.0.0.7/24`` is
``nw_src=10.0.0.0/24``, and a register is a number however it is written.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from agent_flows.errors import ErrorType
from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.pipeline import Register
from agent_flows.report import TaskError

_DEFAULT_PRIORITY = 32768  # ovs-ofctl(8), Flow Syntax
_LINE = re.compile(
    r"(?P<side>[-+])(?:table=(?P<table>\d+) )?(?P<match>.*?)(?: cookie=(?P<cookie>0x[0-9a-f]+))?"
    r"(?: idle_timeout=\d+)?(?: hard_timeout=\d+)?(?: importance=\d+)? actions=(?P<actions>.*)"
)
_PRIORITY = re.compile(r"\bpriority=(\d+)")
_SENDER = re.compile(r"\bin_port=(\d+)")
_PORT = re.compile(rf"\breg{Register.PORT:d}=(0x[0-9a-f]+|\d+)(?!/)")
_RECEIVER = re.compile(
    r"\boutput:(\d+)|(?:load|set_field):(0x[0-9a-f]+|\d+)->"
    rf"(?:NXM_NX_REG{Register.PORT:d}\[\]|reg{Register.PORT:d}\b)"
)
_SHOWN = 20


@dataclass(frozen=True)
class DiffFlow:
    """A flow that is in the bridge alone, or only expected to be."""

    table: int
    match: str
    cookie: int
    actions: str

    @property
    def key(self) -> str:
        """Table, priority and match, as ovs-ofctl reads them."""
        return ",".join(filter(None, (f"table={self.table}", self.match)))

    def __str__(self) -> str:
        return f"cookie={self.cookie:#x},{self.key} actions={self.actions}"

    @cached_property
    def priority(self) -> int:
        found = _PRIORITY.search(self.match)
        return int(found[1]) if found else _DEFAULT_PRIORITY

    @cached_property
    def senders(self) -> frozenset[int]:
        """The ofport whose packets it matches, if it matches one's."""
        return frozenset(_numbers(_SENDER, self.match))

    @cached_property
    def matched(self) -> frozenset[int]:
        """The ofport it matches, as sender or as the port whose rules are looked at."""
        return self.senders.union(_numbers(_PORT, self.match))

    @cached_property
    def receivers(self) -> frozenset[int]:
        """The ofports it sends to by number, or hands over to for their rules."""
        return frozenset(_numbers(_RECEIVER, self.actions))

    def concerns(self, ofport: int) -> bool:
        """Whether a flow of ours is one that this port depends on."""
        if cookie.kind(self.cookie) in (Kind.PORT, Kind.DELIVERY):
            named = self.matched | self.receivers
            if cookie.kind(self.cookie) == Kind.PORT:
                named |= {cookie.serial(self.cookie)}
            return ofport in named
        return True


@dataclass(frozen=True)
class Difference:
    """``missing`` flows are not there, or not as expected; ``surplus`` ones are there with a
    cookie of ours, and no flow is expected with their table, priority and match; ``strange``
    ones have nobody's cookie."""

    missing: tuple[DiffFlow, ...] = ()
    surplus: tuple[DiffFlow, ...] = ()
    strange: tuple[DiffFlow, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.strange)

    def error_of(self, ofport: int) -> TaskError | None:
        """What is wrong for a port, of what is ours."""
        missing = [each for each in self.missing if each.concerns(ofport)]
        surplus = [each for each in self.surplus if each.concerns(ofport)]
        if not missing and not surplus:
            return None
        return TaskError(
            ErrorType.NOT_AS_COMPILED,
            f"of the flows the port depends on {len(missing)} are missing or changed, "
            f"and {len(surplus)} are there that were not compiled",
            shown([*missing, *surplus]),
        )


def read(lines: Iterable[str]) -> Difference:
    """Every flow with a cookie that is not ours is ``strange``, somebody's or not.

    Raises ValueError for a line that ``ovs-ofctl diff-flows`` does not print.
    """
    sides: dict[str, dict[str, DiffFlow]] = {"+": {}, "-": {}}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"ovs-ofctl diff-flows printed what is no flow: {line}")
        table, value = int(found["table"] or 0), int(found["cookie"] or "0", 0)
        flow = DiffFlow(table, found["match"], value, found["actions"])
        sides[found["side"]][flow.key] = flow
    missing = sides["+"]
    there = [flow for key, flow in sides["-"].items() if key not in missing]
    return Difference(
        tuple(missing.values()),
        tuple(flow for flow in there if cookie.is_ours(flow.cookie)),
        tuple(flow for flow in there if not cookie.is_ours(flow.cookie)),
    )


def shown(flows: Iterable[DiffFlow]) -> str:
    """For people: the flows, one a line; of many the first."""
    lines = list(map(str, flows))
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join(lines[:_SHOWN] + more)


def _numbers(pattern: re.Pattern[str], text: str) -> Iterator[int]:
    for found in pattern.finditer(text):
        yield int(next(filter(None, found.groups())), 0)
