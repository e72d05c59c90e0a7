"""Runs all tests in parts, several at a time; each part is a pytest of its own.

    python -m lab.suite [--oldest-neutron PYTHON] [pytest's arguments...]

PYTHON has the oldest release of Neutron installed: the tests of the Neutron side run there, too.
Most tests wait for a switch, a broker or a database, so more parts than processors run at a time.
A part is a folder: its tests share servers that are started once, and nothing with other parts.
The output of a part is printed when it ends.
"""

import collections
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.leftovers import MEMORY
from lab.namespace import mark
from lab.process import Terminated, orderly_signals

TESTS = Path("tests")
WHOLE = ("unit", "conformance", "simulation")
"""Suites whose tests are quick to start: one part each."""
LONGEST = (
    "tests/simulation",
    "tests/e2e/neutron/with_agent_flows",
    "tests/functional/neutron_server",
    "tests/functional/server",
    "tests/e2e/neutron/with_services",
    "tests/faults",
    "tests/e2e",
    "tests/functional/agent",
    "tests/conformance",
    "tests/functional/drift",
    "tests/functional/packets",
    "tests/e2e/neutron",
    "tests/faults/neutron",
)
"""They start first, so that no long part runs alone at the end."""
ON_DEMAND = ("tests/e2e/neutron/packaged",)
"""Run by tests/releases/run in each release of Neutron, where agent_flows is installed as a
wheel."""
OF_NEUTRON = {
    "server": ("tests/functional/neutron_server",),
    "agent": ("tests/functional/neutron",),
    "live": (
        "tests/e2e/neutron/test_plain_neutron.py",
        "tests/e2e/neutron/with_agent_flows/test_ports.py",
    ),
    "unit": ("tests/unit/neutron", "tests/unit/neutron_server", "tests/unit/neutron_verify"),
}
"""What runs in another release of Neutron, as tests/releases/run does; the longest part first."""
PARTS_FOR_EACH_PROCESSOR = 2
_POLL_SECONDS = 0.1
_STOP_SECONDS = 60
_LEAST_MEMORY = 6 * 2**30
_NO_TEST = 5  # pytest's exit code for a selection without a test
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")
# With -q it has no frame.
_CLOSING_LINE = re.compile(r"^(?:=+ )?(\d+ \w+.*) in [\d.]+s\b", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """What one pytest runs, and with which Python: ``paths`` are files or folders."""

    name: str
    paths: tuple[str, ...]
    python: str = sys.executable


@dataclass(frozen=True)
class Result:
    """How a part ended; ``counts`` has ``passed``, ``failed`` and ``skipped``."""

    part: Part
    code: int
    seconds: float
    counts: Mapping[str, int]

    @property
    def line(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        return f"{self.part.name}: {counts or f'exit code {self.code}'} in {self.seconds:.0f} s"


def parts(tests: Path = TESTS) -> list[Part]:
    """All tests but those of :data:`ON_DEMAND`, each in one part; the longest parts first."""
    found = [Part(str(tests / suite), (str(tests / suite),)) for suite in WHOLE]
    files = collections.defaultdict[Path, list[str]](list)
    for file in sorted(tests.rglob("test_*.py")):
        folder = str(file.parent.relative_to(tests.parent))
        if file.relative_to(tests).parts[0] not in WHOLE and folder not in ON_DEMAND:
            files[file.parent].append(str(file))
    found += [Part(str(folder), tuple(names)) for folder, names in files.items()]
    rank = {str(tests.parent / name): at for at, name in enumerate(LONGEST)}
    return sorted(found, key=lambda part: rank.get(part.name, len(rank)))


def parts_of_oldest_neutron(python: str) -> list[Part]:
    """The tests of the Neutron side, with the ``python`` of an older release."""
    return [Part(f"oldest Neutron, {name}", paths, python) for name, paths in OF_NEUTRON.items()]


def roomy_memory() -> Path | None:
    """Where files are quick to make and to remove, if there is room for those of all tests.

    A PostgreSQL with a hundred databases is a minute's work to remove from a disk.
    """
    if not MEMORY.is_dir():
        return None
    found = os.statvfs(MEMORY)
    is_roomy = found.f_bavail * found.f_frsize >= _LEAST_MEMORY and not found.f_flag & os.ST_NOEXEC
    return MEMORY if is_roomy else None


def counts(output: str) -> dict[str, int]:
    """The numbers of pytest's last line; none if it did not come to write one."""
    *_, closing = [""], *_CLOSING_LINE.findall(output)
    found = collections.Counter[str]()
    for number, what in _COUNT.findall(str(closing)):
        found["failed" if what.startswith("error") else what] += int(number)
    return dict(found)


def exit_code(codes: Sequence[int]) -> int:
    """0 if no part failed and a test ran."""
    failures = [code for code in codes if code not in (0, _NO_TEST)]
    if failures:
        return failures[0]
    return 0 if 0 in codes else _NO_TEST


class _Running:
    """A part's pytest, in a session of its own."""

    def __init__(self, part: Part, arguments: Sequence[str], output: Path) -> None:
        self.part = part
        self._output = output
        self._began = time.monotonic()
        with output.open("wb") as file:
            # The kernel ends it should we be killed.
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", part.python, "-m", "pytest"),
                    *(*part.paths, *arguments),
                ],
                env={**os.environ, "TMPDIR": str(output.parent)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def result(self) -> Result | None:
        """None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return Result(self.part, code, time.monotonic() - self._began, counts(self.text()))

    def text(self) -> str:
        return self._output.read_text(errors="replace")

    def interrupt(self) -> None:
        """Its fixtures are torn down."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Wait until it has ended; kill it if that takes too long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def run(
    waiting: Sequence[Part],
    arguments: Sequence[str],
    at_once: int,
    ended: Callable[[Result, str], None],
) -> list[Result]:
    """Run ``at_once`` parts at a time; ``ended`` is called with each result and the output."""
    left, running, results = list(waiting), list[_Running](), list[Result]()
    with tempfile.TemporaryDirectory(prefix=mark(), dir=roomy_memory()) as directory:
        # Databases run as users of their own.
        Path(directory).chmod(0o755)
        try:
            while left or running:
                while left and len(running) < at_once:
                    output = Path(directory) / f"{len(left)}.out"
                    running.append(_Running(left.pop(0), arguments, output))
                for part in list(running):
                    if result := part.result():
                        running.remove(part)
                        results.append(result)
                        ended(result, part.text())
                time.sleep(_POLL_SECONDS)
        finally:
            for part in running:
                part.interrupt()
            for part in running:
                part.stop()
    return results


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, that of a part that failed, or 5 if the selection has no test."""
    began = time.monotonic()

    def ended(result: Result, output: str) -> None:
        _say(output)
        _say(f"-- {result.line}, {time.monotonic() - began:.0f} s after the start\n")

    waiting = parts()
    if arguments[:1] == ["--oldest-neutron"]:
        waiting = [*parts_of_oldest_neutron(arguments[1]), *waiting]
        arguments = arguments[2:]
    at_once = PARTS_FOR_EACH_PROCESSOR * (os.cpu_count() or 1)
    results = run(waiting, arguments, at_once, ended)
    total = collections.Counter[str]()
    for result in results:
        total.update(result.counts)
        _say(result.line)
    _say(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return exit_code([result.code for result in results])


if __name__ == "__main__":
    try:
        with orderly_signals():
            sys.exit(main(sys.argv[1:]))
    except Terminated as interrupted:
        _say(f"{interrupted}: stopped")
        sys.exit(130)
