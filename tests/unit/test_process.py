"""A process names invalid options at start, and stops on a signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from agent_flows import process


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of a program in the foreground, for one test.

    A shell that starts pytest in the background has it ignore SIGINT.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("workers = many", "workers"),
        ("workers = 0", "workers"),
        ("datapath_type = magic", "datapath_type"),
        ("bridge_mappings = physnet1", "bridge_mappings"),
        ("bridge_mappings = physnet1:br-a,physnet1:br-b", "physnet1"),
        ("bridge_mappings = physnet1:br-a,physnet2:br-b,physnet3:br-a", "physnet1 and physnet3"),
        ("bridge_mappings = physnet1:br-a, physnet2:br-a", "br-a"),
        ("bridge_mappings = physnet1:", "bridge_mappings"),
        ("bridge_mappings = :br-a", "bridge_mappings"),
        ("bridge_mappings = physnet1:br-int", "integration bridge br-int"),
        ("integration_bridge = br-x\nbridge_mappings = p:br-a,q:br-x", "integration bridge br-x"),
        ("integration_bridge =", "integration_bridge"),
        ("retry_initial = 5\nretry_max = 2", "retry_max (2 s)"),
        ("permitted_ethertypes = 88cc", "permitted_ethertypes"),
        ("permitted_ethertypes = 0x88cc,0x05dc", "permitted_ethertypes"),
        ("permitted_ethertypes = 0x0800", "IPv4"),
    ],
)
def test_an_invalid_option_is_named_and_stops_the_start(
    tmp_path: Path, line: str, named: str
) -> None:
    file = tmp_path / "agent_flows.conf"
    file.write_text(f"[agent_flows]\n{line}\n")
    with pytest.raises(SystemExit) as ended:
        process.prepare(["--config-file", str(file)], "agent-flows-test", cfg.ConfigOpts())
    message = str(ended.value.code)
    assert message.startswith("agent-flows-test: ")
    assert named in message
    assert "\n" not in message
    assert "LocationInfo" not in message


def test_a_missing_configuration_file_is_named() -> None:
    with pytest.raises(SystemExit) as ended:
        process.prepare(
            ["--config-file", "/nonexistent.conf"], "agent-flows-test", cfg.ConfigOpts()
        )
    assert "/nonexistent.conf" in str(ended.value.code)


def test_started_excludes_loaded_objects_from_garbage_collection() -> None:
    code = "import gc, agent_flows.process as p; p.started(); print(len(gc.get_objects()) < 1000)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.usefixtures("handlers")
def test_a_signal_ends_the_wait(number: signal.Signals) -> None:
    ending = process.Ending()
    assert not ending.is_asked()
    os.kill(os.getpid(), number)
    assert ending.wait(20)


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_has_its_usual_effect() -> None:
    ending = process.Ending()
    os.kill(os.getpid(), signal.SIGINT)
    assert ending.wait(20)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("handlers")
def test_a_signal_in_another_thread_ends_the_wait() -> None:
    ending = process.Ending()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        # It inherits the mask, and unblocks the signal for itself.
        threading.Thread(target=_take, args=(signal.SIGTERM,)).start()
        assert ending.wait(20)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _take(number: signal.Signals) -> None:
    time.sleep(0.2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)


EVIL = "name\x1b[2J \x9b31m\u202e\n2026-01-01 00:00:00 INFO all is well\rX"


def test_text_from_outside_is_escaped_in_the_log(tmp_path: Path) -> None:
    code = f"""
from oslo_config import cfg
from oslo_log import log
from agent_flows import process
process.prepare(["--log-file", "{tmp_path}/log"], "agent-flows-test", cfg.ConfigOpts())
log.getLogger("agent_flows.x").warning("Refused %s, 100%%", {EVIL!r})
try:
    raise ValueError({EVIL!r})
except ValueError:
    log.getLogger("agent_flows.x").exception("Failed")
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
    text = (tmp_path / "log").read_text()
    assert all(char == "\n" or char.isprintable() for char in text)
    assert (
        r"Refused name\x1b[2J \x9b31m\u202e\n2026-01-01 00:00:00 INFO all is well\rX, 100%" in text
    )
    assert "Traceback" in text


def test_a_thread_that_waits_for_ever_does_not_keep_a_process_from_its_end() -> None:
    code = """
import sys, threading
import futurist
from agent_flows import process
process._END_SECONDS = 0.1
threads = futurist.ThreadPoolExecutor(1)
threads.submit(threading.Event().wait)
sys.exit(process.bounded_end(3))
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=60)
    assert ran.returncode == 3
