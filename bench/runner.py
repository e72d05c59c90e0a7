"""What every bench is, and the one runner of them all."""

import argparse
import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

Figures = Mapping[str, float]
"""What one round gave, by name; the first figure is the one that is compared."""

Contender = Callable[[], Figures]
"""Does the work once."""

Log = Callable[[str], None]
ROUNDS = 5


@dataclass(frozen=True)
class Bench:
    """One piece of work, and who does it.

    ``measure`` has agent_flows do it. ``floor`` does the same as the last ``measure`` with the
    least that any program could use, None if there is no such thing; ``peers`` are other programs
    that do it, by name.
    """

    measure: Contender
    floor: Contender | None = None
    peers: Mapping[str, Contender] = field(default_factory=dict)


def progress(line: str) -> None:
    """Show what takes long; figures have standard output for themselves."""
    print(line, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """The type of an argument that is a count."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a command that has none of its own."""


@dataclass(frozen=True)
class Command:
    """``tools/bench NAME``.

    ``prepare`` makes everything that the bench needs, and removes it. It gets the command's
    options; ``options.ports`` is one size, also if several are asked for. ``ports`` is the
    default size, None for a bench that has no size; ``rounds`` the default number of rounds.
    """

    name: str
    help: str
    prepare: Callable[[argparse.Namespace], contextlib.AbstractContextManager[Bench]]
    arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
    ports: int | None = None
    rounds: int = ROUNDS


def run(bench: Bench, rounds: int, log: Log) -> dict[str, float]:
    """The medians of ``rounds`` rounds; in each, all do the work one after the other.

    The figures of agent_flows have their own names, those of the others begin with ``floor_`` and
    with the peer's name. ``ratio`` is what agent_flows has for one of the floor; ``<peer>_ratio``
    for one of the peer; ``ratio_<figure>`` is that of another figure that the floor has as well.
    """
    contenders = {"": bench.measure}
    if bench.floor is not None:
        contenders["floor"] = bench.floor
    contenders |= bench.peers
    taken: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            taken[name].append(contender())
        log(f"round {number} of {rounds}: {_in_words(taken)}")
    medians = {name: _medians(figures) for name, figures in taken.items()}
    return {name: _rounded(value) for name, value in _named(medians)}


def _in_words(taken: Mapping[str, list[Figures]]) -> str:
    parts = []
    for name, rounds in taken.items():
        figures = ", ".join(f"{key} {_rounded(value):g}" for key, value in rounds[-1].items())
        parts.append(f"{name or 'agent_flows'}: {figures}")
    return "; ".join(parts)


def _medians(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def _named(medians: Mapping[str, Figures]) -> Iterator[tuple[str, float]]:
    ours = medians[""]
    compared = next(iter(ours.values()))
    yield from ours.items()
    for name, figures in medians.items():
        if not name:
            continue
        for key, value in figures.items():
            yield f"{name}_{key}", value
        theirs = next(iter(figures.values()))
        if theirs:
            yield "ratio" if name == "floor" else f"{name}_ratio", compared / theirs
    for key, value in list(medians.get("floor", {}).items())[1:]:
        if value and key in ours:
            yield f"ratio_{key}", ours[key] / value


def _rounded(value: float) -> float:
    """To four digits; a count as it is."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
