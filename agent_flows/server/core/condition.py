"""The condition of a host as its agent's heartbeats report it, checked and bounded. Pure.

Nothing in it is trusted: unknown fields are dropped, known ones are cut to a size.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_flows.report import MAX_MESSAGE_CHARS, UNTRUE, Trouble

_TEXTS = ("bridge", "version", "boot_id", "started_at")
_LISTS = ("extensions",)
_MOST = 16
_TEXT_CHARS = 255
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LARGEST = 2**53


@dataclass(frozen=True)
class Condition:
    """``troubles`` is one line for each source; ``facts`` are the texts and numbers beside it."""

    troubles: Mapping[Trouble, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def untrue(self) -> Mapping[Trouble, str]:
        """The troubles that make what was proven of the host's ports untrue."""
        return {source: line for source, line in self.troubles.items() if source in UNTRUE}

    def shown(self) -> dict[str, Any]:
        """As the API shows it: the facts, ``trouble`` (the first or null) and ``troubles``."""
        troubles = {source.value: line for source, line in self.troubles.items()}
        return {**self.facts, "trouble": next(iter(troubles.values()), None), "troubles": troubles}

    def to_text(self) -> str:
        """As it is stored."""
        return json.dumps(self.shown())


def of(state: Mapping[str, Any]) -> Condition:
    """The condition that a heartbeat's ``state`` describes; anything may be in it."""
    facts: dict[str, Any] = {}
    for name, value in list(state.items())[: 4 * _MOST]:
        if len(facts) >= _MOST:
            break
        if name in _TEXTS and isinstance(value, str):
            facts[name] = plain(value, _TEXT_CHARS)
        elif name in _LISTS and isinstance(value, list):
            facts[name] = [plain(each, 64) for each in value[:_MOST] if isinstance(each, str)]
        elif isinstance(name, str) and _NAME.fullmatch(name) and _is_number(value):
            facts[name] = value
    return Condition(_troubles(state), facts)


def of_text(text: str) -> Condition:
    """Reads what :meth:`Condition.to_text` or an earlier release stored."""
    try:
        state = json.loads(text)
    except ValueError:
        return Condition()
    return of(state) if isinstance(state, dict) else Condition()


def plain(text: str, most: int) -> str:
    """``text`` in one line of at most ``most`` characters, each of which can be printed."""
    # Cut before and after: the text may be long, and what is put in its place is as long.
    line = " ".join(text[: 4 * most].split())[:most]
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -_LARGEST <= value <= _LARGEST
    )


def _troubles(state: Mapping[str, Any]) -> dict[Trouble, str]:
    reported = state.get("troubles")
    if not isinstance(reported, Mapping):
        # An agent of the first release has one trouble without a source.
        alone = state.get("trouble")
        return {Trouble.OTHER: plain(alone, MAX_MESSAGE_CHARS)} if isinstance(alone, str) else {}
    troubles: dict[Trouble, str] = {}
    for source, line in list(reported.items())[: 2 * _MOST]:
        if not isinstance(source, str) or not isinstance(line, str):
            continue
        try:
            troubles[Trouble(source)] = plain(line, MAX_MESSAGE_CHARS)
        except ValueError:
            named = plain(f"{source[:_TEXT_CHARS]}: {line}", MAX_MESSAGE_CHARS)
            troubles.setdefault(Trouble.OTHER, named)
    return troubles
