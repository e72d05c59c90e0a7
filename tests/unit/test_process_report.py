"""SIGUSR2 has a process write what it does, without its secrets, and changes nothing else."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.process import wait_until

SECONDS = 60
CONF = """
[DEFAULT]
transport_url = kombu+memory://somebody:bus-secret@/
[database]
connection = sqlite:///{directory}/server.sqlite
[agent_flows]
host = host-a
ovsdb_connection = unix:{directory}/no.sock
ovs_run_dir = {directory}
state_dir = {directory}/state
heartbeat_interval = 0.2
[agent_flows_api]
bind_port = 0
"""


@contextmanager
def running(module: str, directory: Path, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of ours, with its output in ``directory``/output."""
    conf = directory / "agent_flows.conf"
    conf.write_text(CONF.format(directory=directory))
    with (directory / "output").open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", f"import sys; from {module} import main; "
             "sys.exit(main())", "--config-file", str(conf), *argv],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield program
    finally:
        program.kill()
        program.wait()


@pytest.mark.parametrize(
    ("module", "started", "section"),
    [
        ("agent_flows.agent.service", "The agent of host host-a has started", "bridge = br-int"),
        ("agent_flows.server.service", "REST on", "sweeper = works"),
    ],
    ids=["agent", "server"],
)
def test_a_program_writes_its_threads_options_and_state_and_goes_on(
    tmp_path: Path, module: str, started: str, section: str
) -> None:
    output = tmp_path / "output"
    with running(module, tmp_path) as program:
        wait_until(lambda: started in output.read_text(), SECONDS, "the program has started")

        def reported() -> bool:
            program.send_signal(signal.SIGUSR2)
            return section in output.read_text()

        wait_until(reported, SECONDS, "the report has the state", poll=1.0)
        found = output.read_text()
        for title in ("Package", "Threads", "Processes", "Configuration"):
            assert f"{title} " in found
        assert "agent_flows/supervision.py" in found
        assert "bus-secret" not in found
        assert program.poll() is None
        program.terminate()
        assert program.wait(SECONDS) == 0


def test_a_report_goes_to_a_file_if_there_is_a_directory_for_it(tmp_path: Path) -> None:
    output, directory = tmp_path / "output", tmp_path / "reports"
    directory.mkdir()
    (tmp_path / "more.conf").write_text(f"[oslo_reports]\nlog_dir = {directory}\n")
    argv = ("--config-file", str(tmp_path / "more.conf"))
    with running("agent_flows.server.service", tmp_path, *argv) as program:
        wait_until(lambda: "REST on" in output.read_text(), SECONDS, "the program has started")
        program.send_signal(signal.SIGUSR2)
        wait_until(lambda: list(directory.iterdir()), SECONDS, "the report is there")
    (file,) = directory.iterdir()
    assert file.name.startswith("agent-flows-server_gurumeditation_")
