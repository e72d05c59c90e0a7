"""The README's commands, as a person types them."""

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.leftovers import left_behind
from tests.e2e.demo_document import check_document

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "tools" / "quickstart")


def test_the_quickstart_prints_its_document_and_leaves_nothing_behind() -> None:
    with subprocess.Popen(
        [QUICKSTART, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as quickstart:
        out, err = quickstart.communicate(timeout=180)
    assert quickstart.returncode == 0, err
    check_document(json.loads(out))
    assert left_behind(quickstart.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_quickstart_leaves_nothing_behind(number: signal.Signals) -> None:
    with subprocess.Popen(
        [QUICKSTART], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as quickstart:
        assert quickstart.stdout is not None
        for line in quickstart.stdout:
            if " plug " in line:
                assert left_behind(quickstart.pid) != []
                quickstart.send_signal(number)
                break
        quickstart.communicate(timeout=60)
    assert quickstart.returncode == 130
    assert left_behind(quickstart.pid) == []


def test_a_kept_quickstart_runs_until_it_is_stopped() -> None:
    kept = subprocess.run(
        [QUICKSTART, "--keep"], capture_output=True, text=True, timeout=180, check=False
    )
    try:
        assert kept.returncode == 0, kept.stdout + kept.stderr
        process = int(Path("/run/lock/agent-flows-quickstart").read_text())
        look = next(line for line in kept.stdout.splitlines() if line.endswith("port list"))
        ports = subprocess.run(
            [*look.split(), "-f", "json"], capture_output=True, text=True, timeout=30, check=True
        )
        assert len(json.loads(ports.stdout)) == 7
    finally:
        subprocess.run([QUICKSTART, "--stop"], timeout=90, check=True)
    assert left_behind(process) == []


@pytest.fixture
def for_everybody() -> Iterator[Path]:
    """The tools where others than root may look: a checkout may lie in root's own home."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(shutil.copytree(ROOT / "tools", Path(place) / "tools"))


@pytest.mark.parametrize("command", ["quickstart", "test all", "bench port", "neutron demo"])
def test_without_root_a_tool_says_so_in_one_line(command: str, for_everybody: Path) -> None:
    words = [str(for_everybody / command.split(maxsplit=1)[0]), *command.split()[1:]]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    refused = subprocess.run(
        [*nobody, *words], capture_output=True, text=True, timeout=30, check=False
    )
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("needs root: ")
    assert refused.stderr.count("\n") == 1
    assert f"try: sudo tools/{command}" in refused.stderr


def _figures_of_bench(*words: str) -> dict[str, float]:
    bench = subprocess.run(
        [str(ROOT / "tools" / "bench"), *words, "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert bench.returncode == 0, bench.stderr
    figures: dict[str, float] = json.loads(bench.stdout.splitlines()[-1])
    return figures


def test_the_wire_bench_prints_its_figures_as_one_object() -> None:
    figures = _figures_of_bench("wire", "--ports", "20", "--rounds", "1")
    assert set(figures) == {"ports", "seconds", "floor_seconds", "ratio", "agent_rss_mib"}
    assert figures["ports"] == 20


@pytest.mark.parametrize("bus", ["rabbit", "embedded"])
def test_the_idle_bench_prints_its_figures_as_one_object(bus: str) -> None:
    figures = _figures_of_bench("idle", "--ports", "5", "--seconds", "2", "--bus", bus)
    assert set(figures) == {
        "ports",
        "seconds",
        "cpu_percent",
        "children_cpu_percent",
        "memory_mib",
    }
    assert figures["ports"] == 5
    assert figures["memory_mib"] > 20


def test_every_tool_explains_itself() -> None:
    for tool in ("quickstart", "test", "bench", "setup", "neutron"):
        shown = subprocess.run(
            [str(ROOT / "tools" / tool), "--help"], capture_output=True, text=True, check=True
        )
        assert f"tools/{tool}" in shown.stdout
