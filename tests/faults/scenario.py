"""A fault, what becomes of everything, and how long recovery takes."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults.stage import Seen, Stage

Play = Callable[[Stage, random.Random], None]


@dataclass(frozen=True)
class Scenario:
    """``play`` breaks something and mends it again, and returns as soon as the fault is gone.

    Everything must have converged ``seconds`` later. In ``all`` it runs ``rounds`` times, in the
    long run ``weight`` times as often as it says.
    """

    name: str
    breaks: str
    mends: str
    play: Play
    seconds: float = 60
    rounds: int = 1


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
            f"{seen.failures} failures happened{kinds}, "
            f"{len(seen.lost)} are not in the API; "
            f"{len(seen.unproven)} ports are ACTIVE and not proven"
        )


def run(scenario: Scenario, stage: Stage, seed: int) -> Outcome:
    """One round."""
    before = stage.failures()
    print(f"{scenario.name}: {scenario.breaks} Then: {scenario.mends} (seed {seed})", flush=True)
    reason, recovery = "", None
    stage.broken = True
    with stage.traffic() as (pings, attack):
        try:
            scenario.play(stage, random.Random(seed))
            gone = time.monotonic()
            stage.wait_converged(scenario.seconds)
            recovery = time.monotonic() - gone
            stage.wait_heartbeats()
            stage.check_packets()
        except (TimeoutError, AssertionError) as exc:
            reason = str(exc)
        seen = stage.see(pings, attack, before)
    outcome = Outcome(scenario.name, recovery, seen, reason)
    print(outcome, flush=True)
    if outcome.survived:
        stage.broken = False
    else:
        print(stage.last_words(), flush=True)
    return outcome


def table(scenarios: Sequence[Scenario], outcomes: Sequence[Outcome]) -> str:
    """The figures of the rounds as a table in Markdown."""
    lines = [
        "| fault | survived / tried | unproven ACTIVE | forbidden packets passed / sent "
        "| failures lost / happened | recovery: median, worst |",
        "|---|---|---|---|---|---|",
    ]
    for scenario in scenarios:
        own = [each for each in outcomes if each.scenario == scenario.name]
        if not own:
            continue
        times = [each.recovery for each in own if each.recovery is not None]
        survived = sum(each.survived for each in own)
        passed = sum(sum(each.seen.forbidden.values()) for each in own)
        lost = sum(len(each.seen.lost) + len(each.seen.doubled) for each in own)
        recovery = f"{statistics.median(times):.1f} s, {max(times):.1f} s" if times else "never"
        lines.append(
            f"| {scenario.breaks} {scenario.mends} | {survived} / {len(own)} "
            f"| {sum(len(each.seen.unproven) for each in own)} "
            f"| {passed} / {sum(each.seen.sent for each in own)} "
            f"| {lost} / {sum(each.seen.failures for each in own)} | {recovery} |"
        )
    return "\n".join(lines) + "\n"
