"""A fault, what becomes of everything, and how long recovery takes."""

import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tests.faults.any_stage import AnyStage, Seen

S = TypeVar("S", bound=AnyStage)
WIRING_SECONDS = 1.5
"""About what the wiring of 45 ports takes here: kills fall before, into and after it."""


class Chance(random.Random):
    """The random numbers of a round; ``seed_number`` rises by 1 from round to round."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seed_number = seed


def pause(random_: random.Random, longest: float = WIRING_SECONDS) -> None:
    """A random instant is what a kill needs; nothing is proven by this."""
    threading.Event().wait(random_.uniform(0, longest))


@dataclass(frozen=True)
class Scenario(Generic[S]):
    """``play`` breaks something and mends it again, and returns as soon as the fault is gone.

    Everything must have converged ``seconds`` later. It runs ``rounds`` times, which may be 0,
    unless ``--rounds`` says otherwise. With ``refuses`` the server may refuse reports; otherwise
    it has all of them.
    """

    name: str
    breaks: str
    mends: str
    play: Callable[[S, Chance], None]
    seconds: float = 60
    rounds: int = 1
    refuses: bool = False


@dataclass(frozen=True)
class Outcome:
    """Of one round; ``recovery`` is in seconds, None if it did not recover in time."""

    scenario: str
    recovery: float | None
    seen: Seen
    reason: str = ""

    @property
    def wrong(self) -> list[str]:
        """What must not be, one line each."""
        seen = self.seen
        found = [self.reason] if self.reason else []
        found += [f"unproven ACTIVE: {each}" for each in seen.unproven]
        found += seen.damage
        found += [f"{count} forbidden packets at {name}" for name, count in seen.forbidden.items()]
        found += [f"a failure is not in the API: report {each}" for each in seen.lost]
        found += [f"a failure is in the API twice: {each}" for each in seen.doubled]
        if not seen.answered:
            found.append("no allowed packet passed")
        return found

    @property
    def survived(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        seen = self.seen
        kinds = "".join(f", {number} {kind}" for kind, number in seen.kinds.items())
        recovery = "did not recover" if self.recovery is None else f"{self.recovery:.1f} s"
        return (
            f"{self.scenario}: recovery {recovery}; {seen.answered} of {seen.asked} pings "
            f"answered; {sum(seen.forbidden.values())} of {seen.sent} forbidden packets passed; "
            f"{len(seen.uncounted)} of {seen.reports} reports are not in the database; "
            f"{seen.failures} failures happened{kinds}, "
            f"{len(seen.lost)} are not in the API; "
            f"{len(seen.unproven)} ports are ACTIVE and not proven"
        )


def run(scenario: Scenario[S], stage: S, seed: int) -> Outcome:
    """One round."""
    before = stage.records.made()
    print(f"{scenario.name}: {scenario.breaks} Then: {scenario.mends} (seed {seed})", flush=True)
    reason, recovery = "", None
    stage.broken = True
    with stage.traffic() as (pings, attack):
        try:
            scenario.play(stage, Chance(seed))
            gone = time.monotonic()
            stage.wait_converged(scenario.seconds)
            recovery = time.monotonic() - gone
            stage.wait_heartbeats()
            stage.check_packets()
        except (TimeoutError, subprocess.TimeoutExpired, AssertionError) as exc:
            reason = str(exc)
        seen = stage.see(pings, attack, before)
    if seen.uncounted and not scenario.refuses:
        reason = f"{reason} {len(seen.uncounted)} reports are not in the database".strip()
    outcome = Outcome(scenario.name, recovery, seen, reason)
    print(outcome, flush=True)
    if outcome.survived:
        stage.broken = False
    else:
        print(stage.last_words(), flush=True)
    return outcome


def table(scenarios: Sequence[Scenario[Any]], outcomes: Sequence[Outcome], before: str = "") -> str:
    """The figures of the rounds as a table in Markdown; of faults without a round those that the
    table ``before`` has."""
    kept = {line.split("|")[1]: line for line in before.splitlines() if line.startswith("| ")}
    lines = [
        "| fault | survived / tried | unproven ACTIVE | forbidden packets passed / sent "
        "| failures lost / happened | recovery: median, worst |",
        "|---|---|---|---|---|---|",
    ]
    for scenario in scenarios:
        own = [each for each in outcomes if each.scenario == scenario.name]
        fault = f" {scenario.breaks} {scenario.mends} "
        if own:
            lines.append(f"|{fault}|{_figures(own)}|")
        elif fault in kept:
            lines.append(kept[fault])
    return "\n".join(lines) + "\n"


def _figures(outcomes: Sequence[Outcome]) -> str:
    times = [each.recovery for each in outcomes if each.recovery is not None]
    survived = sum(each.survived for each in outcomes)
    unproven = sum(len(each.seen.unproven) for each in outcomes)
    passed = sum(sum(each.seen.forbidden.values()) for each in outcomes)
    sent = sum(each.seen.sent for each in outcomes)
    lost = sum(len(each.seen.lost) + len(each.seen.doubled) for each in outcomes)
    failures = sum(each.seen.failures for each in outcomes)
    recovery = f"{statistics.median(times):.1f} s, {max(times):.1f} s" if times else "never"
    return (
        f" {survived} / {len(outcomes)} | {unproven} | {passed} / {sent} | {lost} / {failures} "
        f"| {recovery} "
    )
