"""Messages and requests made from valid ones, with values of any kind at any place."""

import copy
import random
import string
from typing import Any

_TEXTS = (
    "",
    " ",
    "\n",
    "a\nadd table=0,priority=65535,actions=NORMAL",
    "tcp,actions=drop",
    "10.0.0.1,actions=NORMAL",
    "10.0.0.1/32\n",
    "0.0.0.0/0",
    "fa:16:3e:00:00:01,actions=NORMAL",
    "FA:16:3E:00:00:01",
    "01:00:5e:00:00:01",
    "*",
    "#",
    "../../etc/passwd",
    "`reboot`",
    "$(reboot)",
    "'; DROP TABLE ports; --",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "%s%s%n",
    "\x00",
    "\x1b[2J",
    "\u202egnp.exe",
    "\ud800",
    "é" * 300,
    "A" * 70_000,
    "9999-99-99T99:99:99Z",
    "-1",
    "1e400",
)
_NUMBERS = (0, -1, 1, 65_536, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400)
_OTHERS: tuple[Any, ...] = (None, True, False, 0.5, -0.0, float("nan"), float("inf"), 1e308)


class _Nested(list[Any]):
    """No change is made within it, for it is drawn again."""


def _nested(levels: int) -> _Nested:
    made = _Nested()
    for _ in range(levels):
        made = _Nested([made])
    return made


_NESTED = tuple(_nested(levels) for levels in (10, 1_000, 100_000))


def value(draw: random.Random, depth: int = 0) -> Any:
    """Something that no honest agent or server sends there."""
    kind = draw.randrange(6 if depth < 3 else 3)
    if kind == 0:
        return draw.choice(_TEXTS)
    if kind == 1:
        return draw.choice(_NUMBERS)
    if kind == 2:
        return draw.choice(_OTHERS)
    if kind == 3:
        return [value(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 4:
        return {text(draw): value(draw, depth + 1) for _ in range(draw.randrange(4))}
    return draw.choice(_NESTED)


def text(draw: random.Random) -> str:
    return draw.choice(_TEXTS) or "".join(draw.choices(string.printable, k=8))


def changed(draw: random.Random, document: Any) -> Any:
    """A copy with one to three changes."""
    # A list around it, so that the document itself may be replaced.
    made = [copy.deepcopy(document)]
    for _ in range(draw.randint(1, 3)):
        _change(draw, made)
    return made[0]


def _change(draw: random.Random, made: list[Any]) -> None:
    holder: Any = made
    key: Any = 0
    while draw.random() < 0.85:
        inner = holder[key]
        if isinstance(inner, dict) and inner:
            holder, key = inner, draw.choice(list(inner))
        elif type(inner) is list and 0 < len(inner) < 1_000:
            holder, key = inner, draw.randrange(len(inner))
        else:
            break
    what = draw.randrange(8)
    if what == 0 and holder is not made:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[text(draw)] = value(draw)
    elif what == 2 and isinstance(holder[key], list):
        holder[key] = holder[key] * draw.choice((2, 40))
    elif what == 3 and isinstance(holder[key], str):
        holder[key] += draw.choice(_TEXTS)
    else:
        holder[key] = value(draw)
