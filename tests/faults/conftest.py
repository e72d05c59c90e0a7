"""One stage for all scenarios of a folder, and the table of what they found.

The module with the test has the scenarios, as ``SCENARIOS``. A folder with another stage has its
own fixture ``stage_class``.
"""

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.any_stage import AnyStage
from tests.faults.scenario import Outcome, table
from tests.faults.stage import Stage

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "doc" / "contributor" / "faults.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds", type=int, help="how often every scenario runs, each time with another seed"
    )
    parser.addoption(
        "--lasting",
        type=float,
        default=0,
        help="seconds that each outage, and the overload, goes on after it was noticed",
    )
    parser.addoption("--seed", type=int, help="of the first round, to repeat it")
    parser.addoption(
        "--write-table",
        action="store_true",
        help="write the figures into doc/contributor/faults.md; faults not tried keep theirs",
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line says both numbers: pytest leaves out what is 0."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    numbers = {kind: len(reports) for kind, reports in reporter.stats.items()} if reporter else {}
    if numbers.get("passed") or numbers.get("failed") or numbers.get("error"):
        failed = numbers.get("failed", 0) + numbers.get("error", 0)
        reporter.write_line(f"{numbers.get('passed', 0)} passed, {failed} failed")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scenario" not in metafunc.fixturenames:
        return
    rounds = metafunc.config.getoption("--rounds", default=None)
    seed = metafunc.config.getoption("--seed", default=None)
    first = random.SystemRandom().randrange(2**32) if seed is None else seed
    scenarios = metafunc.module.SCENARIOS
    # Rounds of one scenario are apart: drift that comes again and again is a trouble of the host.
    most = rounds or max(scenario.rounds for scenario in scenarios)
    metafunc.parametrize(
        ("scenario", "seed"),
        [
            pytest.param(scenario, first + number, id=f"{scenario.name}-{number + 1}")
            for number in range(most)
            for scenario in scenarios
            if number < (rounds or scenario.rounds)
        ],
    )


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """The suite creates network namespaces."""
    if os.geteuid() != 0:
        pytest.exit("needs root: it creates network namespaces; try: sudo tools/test faults", 1)


class Stages:
    """One stage for all tests of a folder, and a new one after a test that left it broken."""

    def __init__(self, lasting: float) -> None:
        self._lasting = lasting
        self._stack = contextlib.ExitStack()
        self._stage: AnyStage | None = None

    def current(self, kind: type[AnyStage]) -> AnyStage:
        if not isinstance(self._stage, kind):
            self.discard()
            self._stage = self._stack.enter_context(kind(self._lasting))
        return self._stage

    def discard(self) -> None:
        self._stage = None
        self._stack.close()


@pytest.fixture(scope="session")
def stages(request: pytest.FixtureRequest) -> Iterator[Stages]:
    made = Stages(request.config.getoption("--lasting"))
    yield made
    made.discard()


@pytest.fixture
def stage_class() -> type[AnyStage]:
    return Stage


@pytest.fixture
def stage(stages: Stages, stage_class: type[AnyStage]) -> Iterator[AnyStage]:
    running = stages.current(stage_class)
    try:
        yield running
    finally:
        if running.broken:
            stages.discard()


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[list[Outcome]]:
    found: list[Outcome] = []
    yield found
    scenarios = request.module.SCENARIOS
    print(f"\n{table(scenarios, found)}")
    if request.config.getoption("--write-table"):
        folder = request.path.parent.relative_to(ROOT)
        begin, end = (f"<!-- Written by {folder}: {what} -->\n" for what in ("begin", "end"))
        head, _, rest = PAGE.read_text().partition(begin)
        before, _, tail = rest.partition(end)
        PAGE.write_text(f"{head}{begin}\n{table(scenarios, found, before)}\n{end}{tail}")
