"""How values are shown: in words to people, as they are to programs (-f json, yaml)."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from cliff.columns import FormattableColumn

from agent_flows.printable import printable

Task = Mapping[str, Any]


class Error(FormattableColumn[Mapping[str, Any] | None]):
    """A task's error."""

    def human_readable(self) -> str:
        return error_in_words(self._value)


class Detailed(FormattableColumn[Mapping[str, Any] | None]):
    """A task's error with what the tool itself said."""

    def human_readable(self) -> str:
        detail = (self._value or {}).get("detail") or ""
        return "\n".join([error_in_words(self._value), *_lines(detail)])


class Tasks(FormattableColumn[Sequence[Task]]):
    """The tasks of one attempt, in order, a line each and the words of the tool below it."""

    def human_readable(self) -> str:
        names = max((len(task["name"]) for task in self._value), default=0)
        lines = []
        for task in self._value:
            lines.append(_line(task, names))
            detail = (task.get("error") or {}).get("detail") or ""
            lines += [f"    {line}" for line in _lines(detail)]
        return "\n".join(lines)


class Words(FormattableColumn[Sequence[Any] | None]):
    """A list of plain values."""

    def human_readable(self) -> str:
        return ", ".join(printable(str(each)) for each in self._value or [])


class Facts(FormattableColumn[Mapping[str, Any] | None]):
    """What is known of something, by name; what is not known, and ``hidden``, is left out."""

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
    """What is said by source, a line each."""

    def human_readable(self) -> str:
        return "\n".join(printable(f"{source}: {line}") for source, line in self._value.items())


class Conflict(FormattableColumn[Mapping[str, Any] | None]):
    """Another agent that reports as the same host."""

    def human_readable(self) -> str:
        if not self._value:
            return ""
        boot_id = printable(str(self._value["boot_id"] or "of an older release"))
        return f"another agent, boot id {boot_id}, {ago(self._value['heard_at'])}"


class Moment(FormattableColumn[str]):
    """A time, as how long ago it was."""

    def human_readable(self) -> str:
        return ago(self._value)


class Seconds(FormattableColumn[float | None]):
    def human_readable(self) -> str:
        return seconds(self._value)


class Addresses(FormattableColumn[Sequence[Mapping[str, Any]] | None]):
    """``fixed_ips`` or ``allowed_address_pairs``."""

    def human_readable(self) -> str:
        return ", ".join(
            " ".join(
                printable(str(part))
                for part in (each["ip_address"], each.get("mac_address"))
                if part
            )
            for each in self._value or []
        )


def error_in_words(error: Mapping[str, Any] | None) -> str:
    return printable(f"{error['type']}: {error['message']}") if error else ""


def _lines(detail: str) -> list[str]:
    return [printable(line) for line in detail.splitlines()]


def seconds(duration: float | None) -> str:
    return "" if duration is None else f"{duration:.3f} s"


def attempt(tasks: Sequence[Task]) -> str:
    """Which attempt these tasks are of, and how long ago it began."""
    if not tasks:
        return "none reported yet"
    first = tasks[0]
    said = f"{first['flow']}, attempt {first['attempt']}, revision {first['revision']}"
    begun = next((task["started_at"] for task in tasks if task["started_at"]), None)
    return f"{said}, {ago(begun)}" if begun else said


def _line(task: Task, width: int) -> str:
    name, state = printable(task["name"]), printable(task["task_state"])
    parts = [f"{name:<{width}}", f"{state:<9}", seconds(task["duration"])]
    if task.get("error"):
        parts.append(error_in_words(task["error"]))
    return "  ".join(part for part in parts if part).rstrip()


def ago(moment: str) -> str:
    """How long ago a time in ISO 8601 was, or when it was if that is hours."""
    then = datetime.datetime.fromisoformat(moment)
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    passed = (datetime.datetime.now(datetime.UTC) - then).total_seconds()
    if passed < 120:
        return f"{max(passed, 0):.0f} s ago"
    if passed < 7200:
        return f"{passed / 60:.0f} min ago"
    return f"at {then.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
