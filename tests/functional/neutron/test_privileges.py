"""An agent that is not root uses the switch by the helper Neutron's agent has for its own tools."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from neutron import privileged as neutrons
from neutron.conf.agent.common import register_root_helper
from oslo_config import cfg

from agent_flows.neutron import privileged
from agent_flows.openflow import cookie
from agent_flows.openflow.monitor import Changes, FlowMonitor
from agent_flows.supervision import Troubles
from lab.process import wait_until
from lab.switch import Switch
from tests.functional.secgroups.host import BRIDGE

# As Neutron's agent with a privsep helper, which is root; then user nobody.
_NOBODY = 65534
_ROOT = """\
import os, signal, sys, time
from agent_flows import threads
threads.prefer()
from neutron import privileged as neutrons
from oslo_privsep import priv_context
from agent_flows.neutron import privileged
from agent_flows.openflow.ofctl import Ofctl, SwitchError, Timeout
from lab.process import held
neutrons.default.start(priv_context.Method.FORK)
"""
# As in Neutron 26.
_GREEN = """\
import eventlet
eventlet.monkey_patch()
"""
_NOBODY_FROM_HERE = f"""\
os.setgroups([])
os.setgid({_NOBODY})
os.setuid({_NOBODY})
"""
_WRITES = f"""\
ofctl = Ofctl(sys.argv[1], sys.argv[2], 10, privileged.execute)
try:
    ofctl.bundle(["add table=60,priority=7,cookie={cookie.OWNER << 48:#x} actions=drop"])
    print(len(ofctl.dump()), flush=True)
    ofctl.bundle(["add table=60,priority=7 actions=nonsense"])
except SwitchError as refused:
    print(refused, flush=True)
os._exit(0)
"""
_IS_KEPT_WAITING = """\
for _ in range(2):
    try:
        Ofctl(sys.argv[1], sys.argv[2], 1, privileged.execute).probe()
    except Timeout as late:
        print(late, flush=True)
os._exit(0)
"""
_NAMES_ITS_HELPER = """\
print(open(f"/proc/self/task/{os.getpid()}/children").read().split()[0], flush=True)
Ofctl(sys.argv[1], sys.argv[2], 10, privileged.execute).probe()
os._exit(0)
"""
_HELPER_IS_STOPPED = """\
helpers = open(f"/proc/self/task/{os.getpid()}/children").read().split()
print(*helpers, flush=True)
stopped = held(*map(int, helpers))
stopped.__enter__()
"""


@pytest.fixture
def bridge(dummy_switch: Switch) -> Iterator[Switch]:
    dummy_switch.add_bridge(BRIDGE)
    yield dummy_switch
    dummy_switch.vsctl("del-br", BRIDGE)


def run(switch: Switch, *script: str, path: str | None = None) -> list[str]:
    """The lines that an agent of this script prints."""
    argv = [sys.executable, "-W", "ignore", "-c", "".join(script), str(switch.run_dir), BRIDGE]
    env = {**os.environ, "PATH": path or os.environ["PATH"]}
    # A file: the end of a pipe would come with the end of the helper.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        ran = subprocess.run(argv, stdout=out, stderr=log, timeout=60, check=False, env=env)
        for file in (out, log):
            file.seek(0)
        assert ran.returncode == 0, log.read()
        return out.read().splitlines()


def with_ofctl(directory: Path, script: str) -> str:
    """A PATH where ovs-ofctl is this script."""
    tool = directory / "bin" / "ovs-ofctl"
    tool.parent.mkdir()
    tool.write_text(script)
    tool.chmod(0o755)
    return f"{tool.parent}:{os.environ['PATH']}"


def runs(pid: str) -> bool:
    """Whether the process is there, and not only waits to be buried."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_flows_are_written_read_and_refused_as_by_root(bridge: Switch) -> None:
    written, refused = run(bridge, _ROOT, _NOBODY_FROM_HERE, _WRITES)
    assert written == "1"
    assert refused.startswith("the switch refused a flow: unknown action nonsense")


def test_root_starts_no_program_itself_if_that_keeps_all_its_threads(
    bridge: Switch, tmp_path: Path
) -> None:
    grandparent = tmp_path / "grandparent"
    # Its parent is timeout(1).
    tool = f"#!/bin/sh\ncut -d ' ' -f 4 /proc/$PPID/stat > {grandparent}\n"
    [helper] = run(bridge, _GREEN, _ROOT, _NAMES_ITS_HELPER, path=with_ofctl(tmp_path, tool))
    assert grandparent.read_text().strip() == helper


def test_an_ovs_ofctl_that_hangs_is_killed_in_the_helper(bridge: Switch, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    path = with_ofctl(tmp_path, f"#!/bin/sh\necho $$ >> {pids}\nsleep 600\n")
    printed = run(bridge, _ROOT, _NOBODY_FROM_HERE, _IS_KEPT_WAITING, path=path)
    assert printed == ["ovs-ofctl probe did not end within 1 s; killed"] * 2
    started = pids.read_text().split()
    assert len(started) == 2
    assert not any(map(runs, started))


def test_a_helper_that_does_not_answer_delays_no_call(bridge: Switch) -> None:
    helpers, *printed = run(bridge, _ROOT, _HELPER_IS_STOPPED, _NOBODY_FROM_HERE, _IS_KEPT_WAITING)
    for each in helpers.split():
        os.kill(int(each), signal.SIGKILL)
    assert printed == ["ovs-ofctl probe did not end within 1 s; killed"] * 2


def test_flow_monitor_is_started_and_ended_by_the_root_helper(
    bridge: Switch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    helper = tmp_path / "helper"
    # Like sudo, it stays between the agent and the tool.
    helper.write_text(f'#!/bin/sh\necho "$@" >> {log}\n"$@"\n')
    helper.chmod(0o755)
    neutrons.default.set_client_mode(False)
    register_root_helper(cfg.CONF)
    cfg.CONF.set_override("root_helper", str(helper), "AGENT")
    monkeypatch.setattr(os, "geteuid", lambda: _NOBODY)
    seen: list[Changes] = []
    monitor = FlowMonitor(
        str(bridge.run_dir), BRIDGE, seen.append, Troubles(), start=privileged.start
    )
    monitor.start()
    try:
        wait_until(lambda: seen, 20, "the monitor is connected")
        bridge.ofctl("add-flow", bridge.management(BRIDGE), "cookie=0x99,table=7,actions=drop")
        wait_until(lambda: seen[-1].foreign == {0x99}, 20, "the flow is noticed")
        assert log.read_text().startswith("ovs-ofctl --timeout=")
        (pid,) = monitors(bridge)
    finally:
        monitor.stop(10)
        cfg.CONF.clear_override("root_helper", "AGENT")
    assert not runs(pid)


def monitors(switch: Switch) -> list[str]:
    """The ovs-ofctl that monitor the bridge."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = each.read_bytes().split(b"\0")
        except OSError:
            continue
        target = switch.management(BRIDGE).encode()
        if argv[0] == b"ovs-ofctl" and b"monitor" in argv and target in argv:
            found.append(each.parent.name)
    return found
