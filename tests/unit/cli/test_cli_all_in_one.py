"""agent-flows all-in-one on a host without Open vSwitch: it waits, and stops on a signal."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.stage import Run

LONGEST = 60  # seconds until a test gives up; it waits only as long as it must


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    file = tmp_path / "agent_flows.conf"
    file.write_text(
        "[agent_flows]\n"
        f"ovsdb_connection = unix:{tmp_path}/missing.sock\n"
        f"ovs_run_dir = {tmp_path}\n"
        "[agent_flows_api]\n"
        "bind_port = 0\n"
    )
    return file


def start(conf: Path, *words: str) -> "subprocess.Popen[str]":
    argv = [Path(sys.executable).parent / "agent-flows", "all-in-one", "--config-file", conf]
    return subprocess.Popen([*argv, *words], stderr=subprocess.PIPE, text=True)


@pytest.fixture
def waiting(conf: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    with start(conf, "--state-dir", str(tmp_path / "state")) as process:
        yield process
        process.kill()


def lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stderr is not None
    yield from process.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_it_shows_progress_and_stops_on_a_signal(
    waiting: "subprocess.Popen[str]", shell: Run, tmp_path: Path, number: signal.Signals
) -> None:
    output = lines(waiting)
    url = next(line for line in output if line.startswith("API: listening on ")).split()[-1]
    trouble = next(line for line in output if line.startswith("bridge: not ready"))
    assert "missing.sock" in trouble
    assert shell("--url", url, "port", "list").code == 0
    waiting.send_signal(number)
    assert waiting.wait(LONGEST) == 0
    assert list(output)[-1] == "stopped; flows stay in place\n"
    assert (tmp_path / "state" / "server.sqlite").exists()


def test_an_api_on_the_network_without_authentication_is_refused_in_one_line(
    conf: Path, tmp_path: Path
) -> None:
    conf.write_text(conf.read_text() + "bind_host = 0.0.0.0\n")
    with start(conf, "--state-dir", str(tmp_path / "state")) as process:
        last = list(lines(process))[-1]
    assert process.returncode == 1
    assert "bind_host" in last
    assert "auth_strategy = keystone" in last


@pytest.mark.parametrize("file", ["outbox.sqlite", "host_key.pem"])
def test_an_agent_whose_files_are_damaged_ends_it_with_one_line(
    conf: Path, tmp_path: Path, file: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / file).write_bytes(b"neither a database nor a key" * 100)
    with start(conf, "--state-dir", str(state)) as process:
        output = list(lines(process))
    assert process.returncode == 1
    assert "the agent cannot start: " in output[-1]
    assert not [line for line in output if "Traceback" in line]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("[agent_flows]\nheartbeat_interval = 40\n", ("heartbeat_interval", "agent_down_time")),
        ("[agent_flows]\nbridge_mappings = a:br-x,b:br-x\n", ("mappings", "a and b", "br-x")),
    ],
    ids=["heartbeats slower than the patience", "one bridge twice"],
)
def test_contradicting_options_are_named_and_stop_the_start(
    conf: Path, tmp_path: Path, wrong: str, named: tuple[str, ...]
) -> None:
    conf.write_text(conf.read_text() + wrong)
    with start(conf, "--state-dir", str(tmp_path / "state")) as process:
        last = list(lines(process))[-1]
        assert process.wait(LONGEST) != 0
    for word in named:
        assert word in last
