"""The commands of the README and of the first ten minutes do what these pages promise."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.product import BIN
from lab.switch import Switch

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TUTORIAL = ROOT / "doc" / "operator" / "first-ten-minutes.md"
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+) -->\n)?^```sh\n(?P<commands>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_PROGRAMS = re.compile(r"^ *(?:\$ )?(?:tools/|agent-flows|ovs-|curl |apt-get |pip )", re.MULTILINE)
_OUTPUT = re.compile(r"^    \$ .*(?:\n    .*)*", re.MULTILINE)


def blocks(page: Path) -> list[str]:
    """The blocks of commands that a test can run."""
    return [found["commands"] for found in _BLOCK.finditer(page.read_text()) if not found["reason"]]


@pytest.fixture
def switch() -> Iterator[Switch]:
    with Switch("commands") as running:
        yield running


def run(switch: Switch, place: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person would in one shell, on a switch and with directories of our own."""
    settings = {
        "OS_AGENT_FLOWS__OVSDB_CONNECTION": switch.database,
        "OS_AGENT_FLOWS__OVS_RUN_DIR": str(switch.run_dir),
        "OS_AGENT_FLOWS__STATE_DIR": str(place / "state"),
        # The lab's switch has no kernel datapath.
        "OS_AGENT_FLOWS__DATAPATH_TYPE": "netdev",
        "OVS_RUNDIR": str(switch.run_dir),
    }
    exports = "".join(f"export {name}={value}\n" for name, value in settings.items())
    # What began in the background ends with the shell.
    end = "kill $(jobs -p) 2>/dev/null || true; wait"
    begin = f"set -ex\nPATH={BIN}:$PATH\ncd {place}\ntrap '{end}' EXIT\n"
    return subprocess.run(
        switch.namespace.argv(["bash", "-c", begin + exports + script]),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_first_ten_minutes(switch: Switch, tmp_path: Path) -> None:
    done = run(switch, tmp_path, "\n".join(blocks(TUTORIAL)))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    for promised in ("ABSENT", "ACTIVE", "FlowRefused", "OUT_OF_SYNC", "Drift"):
        assert promised in done.stdout, done.stdout


def test_the_readme(switch: Switch, tmp_path: Path) -> None:
    """With the document of the tutorial, whose port is plugged in before."""
    document = re.search(
        r"^cat > cloud.yaml.*?^END$", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE
    )
    assert document is not None
    ready = f"""
{document[0]}
until ovs-vsctl br-exists br-int; do sleep 0.2; done
ovs-vsctl add-port br-int tap1 -- set Interface tap1 type=internal \
    external_ids:iface-id=33333333-0000-4000-8000-000000000001
curl --silent --retry 60 --retry-delay 1 --retry-connrefused http://127.0.0.1:9797/healthz
"""
    (commands,) = blocks(README)
    started, rest = commands.split("\n", 1)
    done = run(switch, tmp_path, f"{started}\n{ready}\n{rest}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "ACTIVE" in done.stdout
    assert "IN_SYNC" in done.stdout


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=lambda page: page.stem)
def test_every_command_is_in_a_block_that_is_run_or_gives_the_reason(page: Path) -> None:
    """What a shell prompt begins is an example of output."""
    without_blocks = _OUTPUT.sub("", _BLOCK.sub("", page.read_text()))
    indented = [line for line in without_blocks.splitlines() if line.startswith("    ")]
    assert [line for line in indented if _PROGRAMS.match(line)] == []
