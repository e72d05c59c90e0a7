"""How values are shown: as text to people, unchanged to programs (-f json, yaml)."""

import datetime
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from cliff.columns import FormattableColumn

from agent_flows.cli import timeline_text
from agent_flows.page import timeline
from agent_flows.printable import printable

Task = Mapping[str, Any]


class Error(FormattableColumn[Mapping[str, Any] | None]):
    """A task's error."""

    def human_readable(self) -> str:
        return error_in_words(self._value)


class Detailed(FormattableColumn[Mapping[str, Any] | None]):
    """A task's error with the output of the tool."""

    def human_readable(self) -> str:
        detail = (self._value or {}).get("detail") or ""
        return "\n".join([error_in_words(self._value), *_lines(detail)])


class Tasks(FormattableColumn[Sequence[Task]]):
    """The tasks of one attempt as a timeline, with the output of a failed tool."""

    def human_readable(self) -> str:
        attempts = timeline.attempts(self._value)
        return "\n".join(chain.from_iterable(map(timeline_text.lines, attempts)))


class Attempts(FormattableColumn[Sequence[Task]]):
    """The tasks of several attempts: each attempt in a line, with its failure."""

    def human_readable(self) -> str:
        return "\n".join(
            chain.from_iterable(
                timeline_text.summary(attempt, ago) for attempt in timeline.attempts(self._value)
            )
        )


class Named(FormattableColumn[str | Sequence[str] | None]):
    """An id or several, for people each with the name of what it is of."""

    def __init__(self, value: str | Sequence[str] | None, names: Mapping[str, str]) -> None:
        super().__init__(value)
        self._names = names

    def human_readable(self) -> str:
        ids = [self._value] if isinstance(self._value, str) else self._value or ()
        return "\n".join(
            printable(f"{self._names[each]} ({each})" if each in self._names else each)
            for each in ids
        )


class Words(FormattableColumn[Sequence[Any] | None]):
    """A list of plain values."""

    def human_readable(self) -> str:
        return ", ".join(printable(str(value)) for value in self._value or [])


class Facts(FormattableColumn[Mapping[str, Any] | None]):
    """Values by name, without those that are None and those in ``hidden``."""

    def __init__(
        self, value: Mapping[str, Any] | None, hidden: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(value)
        self._hidden = hidden

    def human_readable(self) -> str:
        return ", ".join(
            printable(f"{name} {value}")
            for name, value in (self._value or {}).items()
            if value is not None and name not in self._hidden
        )


class Lines(FormattableColumn[Mapping[str, str]]):
    """Messages by source, one line each."""

    def human_readable(self) -> str:
        return "\n".join(printable(f"{source}: {line}") for source, line in self._value.items())


class Conflict(FormattableColumn[Mapping[str, Any] | None]):
    """Another agent that reports as the same host."""

    def human_readable(self) -> str:
        if not self._value:
            return ""
        boot_id = printable(str(self._value["boot_id"] or "unknown (older release)"))
        return f"another agent, boot id {boot_id}, {ago(self._value['heard_at'])}"


class Desired(FormattableColumn[Mapping[str, Any] | None]):
    """Whether an agent has the server's desired state."""

    def human_readable(self) -> str:
        if not self._value:
            return ""
        since = self._value.get("differs_since")
        return "in step" if since is None else f"differs from the server's, first {ago(since)}"


class Moment(FormattableColumn[str]):
    """A time, shown as its age."""

    def human_readable(self) -> str:
        return ago(self._value)


class Since(FormattableColumn[str | None]):
    """A time that may be missing, shown as its age."""

    def human_readable(self) -> str:
        return ago(self._value) if self._value else ""


class Seconds(FormattableColumn[float | None]):
    def human_readable(self) -> str:
        return seconds(self._value)


class Addresses(FormattableColumn[Sequence[Mapping[str, Any]] | None]):
    """``fixed_ips`` or ``allowed_address_pairs``."""

    def human_readable(self) -> str:
        return ", ".join(
            " ".join(
                printable(str(part))
                for part in (pair["ip_address"], pair.get("mac_address"))
                if part
            )
            for pair in self._value or []
        )


class Rules(FormattableColumn[Sequence[Mapping[str, Any]]]):
    """The rules of a security group, one line each."""

    def human_readable(self) -> str:
        return "\n".join(
            printable(", ".join(f"{name} {value}" for name, value in rule.items() if value))
            for rule in self._value
        )


class Rollup(FormattableColumn[Mapping[str, Any] | None]):
    """``sync`` of a security group or network: ports in each state, and a line for each host that
    lags, the one that lags for longest first. A project does not see hosts."""

    def human_readable(self) -> str:
        if not self._value:
            return ""
        numbers = self._value["ports"].items()
        ports = ", ".join(f"{printable(state)} {number}" for state, number in numbers if number)
        lines = [ports or "no ports"]
        lines += [_lag(host) for host in self._value.get("lagging_hosts", ())]
        if more := self._value.get("more_lagging_hosts"):
            lines.append(f"and {more} more hosts")
        return "\n".join(lines)


def _lag(host: Mapping[str, Any]) -> str:
    revision = "" if host["revision"] is None else f" at revision {host['revision']}"
    since = f", since {ago(host['since'])}" if host["since"] else ""
    return printable(f"host {host['host']} lags{revision}: {host['ports']} ports{since}")


error_in_words = timeline_text.error_in_words


def _lines(detail: str) -> list[str]:
    return [printable(line) for line in detail.splitlines()]


def seconds(duration: float | None) -> str:
    return "" if duration is None else f"{duration:.3f} s"


def attempt(tasks: Sequence[Task]) -> str:
    """The attempt that these tasks belong to, and its age."""
    if not tasks:
        return "none reported yet"
    first = tasks[0]
    text = f"{first['flow']}, attempt {first['attempt']}, revision {first['revision']}"
    begun = next((task["started_at"] for task in tasks if task["started_at"]), None)
    return f"{text}, {ago(begun)}" if begun else text


def ago(moment: str) -> str:
    """The age of a time in ISO 8601; the time itself from two hours on."""
    then = datetime.datetime.fromisoformat(moment)
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    passed = (datetime.datetime.now(datetime.UTC) - then).total_seconds()
    if passed < 120:
        return f"{max(passed, 0):.0f} s ago"
    if passed < 7200:
        return f"{passed / 60:.0f} min ago"
    return f"at {then.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
