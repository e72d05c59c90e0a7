"""Timelines of attempts as text, in the columns that a terminal has beside the names of fields.

What is drawn where, :mod:`agent_flows.page.timeline` decides, as for the status page.
"""

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent_flows.page.timeline import WIDTH, Attempt, Bar
from agent_flows.printable import printable

COLUMNS = 71
"""A table of 100 columns leaves so many for a value beside the longest name of a field."""
_CELLS = 22
_NAME = 24
_INDENT = "  "


def lines(attempt: Attempt) -> list[str]:
    """A task a line: its name, when it ran, for how long, its outcome; below it its error, with
    the output of the tool."""
    names = max(min(len(bar.task["name"]), _NAME) for bar in attempt.bars)
    found: list[str] = []
    for bar in attempt.bars:
        name, state = printable(bar.task["name"]), printable(bar.task["task_state"])
        duration = in_words(bar.task["duration"])
        found.append(f"{name:<{names}}  {_drawn(bar)}  {duration:>8}  {state}")
        error = bar.task.get("error")
        if error:
            found += wrapped(error_in_words(error), _INDENT)
            for line in (error.get("detail") or "").splitlines():
                found += wrapped(printable(line), _INDENT * 2)
    return found


def summary(attempt: Attempt, ago: Callable[[str], str]) -> list[str]:
    """An attempt in a line, and its errors."""
    first = attempt.first
    flow = printable(str(first["flow"]))
    what = f"{flow}, attempt {first['attempt']}, revision {first['revision']}"
    when = f", {ago(attempt.started_at)}" if attempt.started_at else ""
    outcome = "drift" if attempt.drift else "failed" if attempt.failed else "succeeded"
    took = "" if attempt.drift else f" after {in_words(attempt.seconds)}"
    found = [f"{what}{when}: {outcome}{took}"]
    for bar in attempt.bars:
        if error := bar.task.get("error"):
            found += wrapped(f"{printable(bar.task['name'])}: {error_in_words(error)}", _INDENT)
    return found


def error_in_words(error: Mapping[str, Any] | None) -> str:
    return printable(f"{error['type']}: {error['message']}") if error else ""


def in_words(duration: float | None) -> str:
    """Seconds, in the unit in which they are read easily."""
    if duration is None:
        return ""
    return f"{duration:.2f} s" if duration >= 1 else f"{duration * 1000:.1f} ms"


def wrapped(text: str, indent: str = "") -> list[str]:
    """``text`` in lines of :data:`COLUMNS`; flows have no spaces, and are broken anywhere."""
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [""]


def _drawn(bar: Bar) -> str:
    if bar.start is None or bar.width is None:
        return " " * _CELLS
    unit = WIDTH / _CELLS
    begin = min(int(bar.start / unit), _CELLS - 1)
    end = max(round((bar.start + bar.width) / unit), begin + 1)
    mark, rest = _marks()
    return "".join(mark if begin <= cell < end else rest for cell in range(_CELLS))


def _marks() -> Sequence[str]:
    """What this terminal can show."""
    try:
        "█·".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "=."
    return "█·"
