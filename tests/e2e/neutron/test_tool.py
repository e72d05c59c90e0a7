"""tools/neutron, as a person types it."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from lab.leftovers import left_behind

TOOL = str(Path(__file__).parents[3] / "tools" / "neutron")
LOCK = Path("/run/lock/agent-flows-neutron")


def test_up_prints_a_working_curl_command_and_down_leaves_nothing() -> None:
    up = subprocess.run(
        [TOOL, "up", "--host", "compute-7", "--agent-option", "agent.report_interval=5"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        process = int(LOCK.read_text())
        talk = next(line for line in up.stdout.splitlines() if " curl " in line)
        agents = subprocess.run(
            talk.split(), capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert [agent["host"] for agent in json.loads(agents)["agents"]] == ["compute-7"]
    finally:
        subprocess.run([TOOL, "down"], timeout=90, check=True)
    assert left_behind(process) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing_behind(number: signal.Signals) -> None:
    with subprocess.Popen(
        [TOOL, "up"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if "MariaDB" in line:
                process = int(LOCK.read_text())
                assert left_behind(process) != []
                up.send_signal(number)
                break
        up.communicate(timeout=90)
    assert up.returncode == 130
    assert left_behind(process) == []
    assert left_behind(up.pid) == []
