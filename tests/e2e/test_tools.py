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


@pytest.mark.parametrize("command", ["quickstart", "test all", "bench wire", "neutron demo"])
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


@pytest.mark.parametrize("bench", ["wire", "refresh"])
def test_a_bench_of_ports_prints_its_figures_as_one_object(bench: str) -> None:
    figures = _figures_of_bench(bench, "--ports", "5", "--rounds", "1")
    assert figures.keys() >= {"ports", "seconds", "floor_seconds", "ratio"}
    assert figures["ports"] == 5
    assert figures["ratio"] > 0


@pytest.mark.parametrize("bench", ["wire", "refresh"])
def test_a_bench_has_ovn_as_a_peer(bench: str) -> None:
    figures = _figures_of_bench(bench, "--ports", "5", "--rounds", "1", "--ovn")
    assert figures["ovn_seconds"] > 0
    assert figures["ovn_ratio"] > 0


def test_the_member_bench_prints_its_figures_as_one_object() -> None:
    figures = _figures_of_bench("member", "--ports", "6", "--hosts", "2", "--rounds", "1")
    assert figures.keys() >= {"ports", "bytes", "server_cpu_seconds", "reports", "seconds"}
    assert figures["bytes"] > 0


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_the_ingest_bench_prints_its_figures_as_one_object(database: str) -> None:
    figures = _figures_of_bench(
        *("ingest", "--database", database, "--workers", "2", "--reports", "10"),
        *("--messages", "2", "--rounds", "1"),
    )
    assert figures.keys() >= {"reports_per_second", "floor_per_second", "ratio"}
    assert figures["reports_per_second"] > 0


def test_the_storm_bench_prints_its_figures_and_loses_nothing() -> None:
    figures = _figures_of_bench("storm", "--agents", "4", "--ports", "3", "--workers", "2")
    assert figures.keys() >= {"agents", "ports", "seconds", "queue_depth", "largest_worker_mib"}
    assert (figures["lost"], figures["stored_twice"], figures["rejected"]) == (0, 0, 0)
    assert figures["reports"] >= 12
    assert figures["heartbeats"] >= 4


@pytest.mark.parametrize("bus", ["rabbit", "embedded"])
def test_the_idle_bench_prints_its_figures_as_one_object(bus: str) -> None:
    figures = _figures_of_bench("idle", "--ports", "5", "--seconds", "2", "--bus", bus)
    assert figures.keys() >= {"ports", "seconds", "cpu_percent", "children_cpu_percent"}
    assert figures["memory_mib"] > 20


def test_every_tool_explains_itself() -> None:
    for tool in ("quickstart", "test", "bench", "setup", "neutron"):
        shown = subprocess.run(
            [str(ROOT / "tools" / tool), "--help"], capture_output=True, text=True, check=True
        )
        assert f"tools/{tool}" in shown.stdout
