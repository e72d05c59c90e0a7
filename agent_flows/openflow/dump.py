"""Flow entries as ovs-ofctl prints them, in dump-flows and in diff-flows."""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from agent_flows.fairness import fair
from agent_flows.openflow.pipeline import Register

DEFAULT_PRIORITY = 32768  # ovs-ofctl(8), Flow Syntax
_OPTIONS = (
    r"(?:(?:(?:idle_timeout|hard_timeout|importance)=\d+"
    r"|send_flow_rem|check_overlap|reset_counts|no_packet_counts|no_byte_counts),? )*"
)
_MATCH = r"(?:priority=(\d+),?)?(\S*) *"
# Both leave out a cookie and a table of 0 and the default priority.
_DUMPED = re.compile(rf" *(?:cookie=(\w+), *)?(?:table=(\d+), *)?{_OPTIONS}{_MATCH}actions=(.*)")
_DIFFERING = re.compile(rf"[-+](?:table=(\d+) )?{_MATCH}(?:cookie=(\w+) )?{_OPTIONS}actions=(.*)")
_NUMBER = r"0x[0-9a-f]+|\d+"
_PORT = re.compile(rf"(?<![^,])(?:in_port|reg{Register.PORT:d})=({_NUMBER})(?![^,])")
_LOADED = re.compile(rf"(?:load|set_field):({_NUMBER})->(?:NXM_NX_REG(\d+)\[\]|reg(\d+)\b)")
_OUTPUT = re.compile(r"\boutput:(\d+)")


class _Columns(NamedTuple):
    cookie: int
    table: int
    priority: int
    match: str
    actions: str


class FlowEntry(_Columns):
    """``match`` is without the priority; table, priority and match identify an entry.

    A tuple, because a bridge has thousands: 13,000 are read in 30 ms, with the ovs package's
    OFPFlow in 840 ms.
    """

    @property
    def key(self) -> str:
        """Table, priority and match, as ovs-ofctl reads them."""
        key = f"table={self.table},priority={self.priority}"
        return f"{key},{self.match}" if self.match else key

    def __str__(self) -> str:
        return f"cookie={self.cookie:#x},{self.key} actions={self.actions}"

    @cached_property
    def fields(self) -> dict[str, str]:
        """The match: field to value; "" for a word such as ``tcp``."""
        terms = (term.partition("=") for term in self.match.split(",") if term)
        return {name: value for name, _, value in terms}

    def number(self, field: str) -> int | None:
        """The number a field must be; None without one, with a mask or for a name."""
        value = self.fields.get(field, "")
        return int(value, 0) if re.fullmatch(_NUMBER, value) else None

    def loaded(self, register: Register) -> frozenset[int]:
        """The numbers that the actions write into a register."""
        return frozenset(
            int(value, 0)
            for value, *names in _LOADED.findall(self.actions)
            if f"{register:d}" in names
        )

    @cached_property
    def matched_ports(self) -> frozenset[int]:
        """The ofport that it matches: the sender's, or the port's whose rules decide."""
        return frozenset(int(number, 0) for number in _PORT.findall(self.match))

    @cached_property
    def receivers(self) -> frozenset[int]:
        """The ofports it sends to by number, or hands over to for their rules."""
        return self.loaded(Register.PORT).union(map(int, _OUTPUT.findall(self.actions)))


class Differences(NamedTuple):
    """Entries that the bridge alone has, and entries that are only expected. One with another
    cookie, other timeouts or other actions is in both."""

    present: list[FlowEntry]
    expected: list[FlowEntry]


def read(line: str) -> FlowEntry:
    """A line of ``dump-flows --no-stats``. Raises ValueError for anything else."""
    cookie, table, priority, match, actions = _groups(_DUMPED, line)
    return FlowEntry(*_numbers(cookie, table, priority), match, actions)


def read_differences(lines: Iterable[str]) -> Differences:
    """The lines of ``diff-flows``. Raises ValueError for anything else."""
    found = Differences([], [])
    for line in fair(lines):
        table, priority, match, cookie, actions = _groups(_DIFFERING, line)
        side = found.present if line[0] == "-" else found.expected
        side.append(FlowEntry(*_numbers(cookie, table, priority), match, actions))
    return found


def _groups(pattern: re.Pattern[str], line: str) -> tuple[str, ...]:
    found = pattern.fullmatch(line)
    if found is None:
        raise ValueError(f"ovs-ofctl printed what is no flow: {line}")
    return found.groups("")


def _numbers(cookie: str, table: str, priority: str) -> tuple[int, int, int]:
    return int(cookie or "0", 0), int(table or 0), int(priority or DEFAULT_PRIORITY)
