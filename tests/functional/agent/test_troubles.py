"""A trouble of the host is in its heartbeats within seconds, and leaves them when it is over."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_flows.report import FlowName, Trouble
from lab.model import HOST, network, open_group
from lab.process import wait_until
from lab.stuck_tool import StuckTool
from lab.switch import Switch
from tests.functional.agent.host import Host

SOON = 5.0


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own with room for an outbox and little more."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@pytest.fixture
def host(small_disk) -> Iterator[Host]:
    with Switch() as switch:
        host = Host(switch, small_disk)
        try:
            yield host
        finally:
            host.close()


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return ballast


def test_with_a_full_disk_ports_pass_traffic_and_are_reported_when_there_is_room(
    host, make_vm, settled, small_disk, caplog
):
    one, two, gone = settled(make_vm("one"), make_vm("two"), make_vm("gone"))
    net, rules = host.server.ports[one.port_id].network, list(host.server.groups.values())
    two.listen(80)
    late = [make_vm(f"late{n}") for n in range(3)]
    for vm in late:
        host.bind(vm, net, rules)
    before = len(host.server.reports)
    ballast = fill(small_disk)
    # Nothing is to be reported yet.
    host.until(lambda: "disk full" in host.troubles().get(Trouble.OUTBOX, ""), "the trouble", SOON)
    caplog.clear()
    host.plug_quietly(*late)
    gone.unplug()
    host.until(lambda: "disk full" in host.troubles().get(Trouble.OUTBOX, ""), "the trouble", SOON)
    assert host.server.states[-1]["trouble"].startswith("disk full")
    host.until(lambda: late[0].connect(two.ip, 80), "traffic passes")
    assert len(host.server.reports) == before
    runs = [each for each in caplog.messages if each.startswith("wire: ")]
    time.sleep(2)
    assert [each for each in caplog.messages if each.startswith("wire: ")] == runs
    assert not [each for each in caplog.records if each.exc_info]
    assert host.server.states[-1]["wired"] == 2
    # A change is applied all the same: what is revoked must go, room or not.
    for vm in (late[0], two):
        host.change(vm, security_groups=())
    host.casts.ports_changed(HOST, [late[0].port_id, two.port_id])
    host.until(lambda: not late[0].connect(two.ip, 80, timeout=0.5), "traffic is cut")
    ballast.unlink()
    host.server.wait_wired([vm.port_id for vm in late])
    host.server.wait_for(lambda: host.server.of(gone.port_id, FlowName.UNWIRE))
    host.without_trouble()


def test_a_stored_report_that_cannot_be_read_is_a_trouble_until_its_port_is_reported_again(
    host, make_vm, settled, small_disk
):
    one, two = settled(make_vm("one"), make_vm("two"))
    host.server.silent = True
    host.change(one)
    host.change(two)
    host.casts.resync(HOST, [one.port_id, two.port_id])
    host.stop()
    with contextlib.closing(sqlite3.connect(small_disk / "outbox.sqlite")) as file, file:
        file.execute(
            "INSERT INTO unsent VALUES (1, ?, 'port', ?, 0, '{\"version\": \"9.0\"}')",
            (str(uuid.uuid4()), one.port_id),
        )
    host.server.silent = False
    # Its port is not to be reported again before the trouble was seen.
    host.server.gives_specs = False
    host.start()
    host.until(
        lambda: "set aside" in host.troubles().get(Trouble.REPORTER, ""), "the trouble", SOON
    )
    host.server.gives_specs = True
    host.server.wait_wired([one.port_id, two.port_id])
    host.without_trouble()


@pytest.fixture
def tool(tmp_path, monkeypatch) -> StuckTool:
    directory = tmp_path / "bin"
    directory.mkdir()
    made = StuckTool(directory)
    monkeypatch.setenv("PATH", made.path)
    return made


def test_an_ovs_ofctl_that_does_not_end_is_a_trouble_and_then_killed(host, make_vm, tool):
    host.start(openflow_timeout=6, slow_flow=3.0)
    host.ready()
    vm = make_vm()
    host.bind(vm, network(), [open_group()])
    tool.flag.touch()
    host.plug_quietly(vm)
    host.until(lambda: "wire of 1 ports" in host.troubles().get(Trouble.FLOW, ""), "slow flow", 5)
    assert host.server.states[-1]["oldest_flow"] >= 3
    host.until(lambda: Trouble.OPENFLOW in host.troubles(), "the trouble", 4)
    assert "ovs-ofctl" in host.troubles()[Trouble.OPENFLOW]
    assert "has been running for" in host.troubles()[Trouble.OPENFLOW]
    error = host.server.wait_failed(vm.port_id, "provision-network", 25).failed.error
    assert error.type == "Timeout"
    # The first of them: the next try hangs as well.
    child = Path(f"/proc/{tool.child.read_text().split()[0]}")
    wait_until(lambda: not child.exists(), 5, "what the tool started is killed")
    tool.flag.unlink()
    host.server.wait_wired([vm.port_id], 20)
    host.without_trouble()


def test_a_missing_ovs_ofctl_fails_ports_by_that_name(host, make_vm, settled, monkeypatch):
    settled(make_vm("first"))
    vm = make_vm()
    host.bind(vm, network(), [open_group()])
    original = subprocess.Popen

    def without_tool(argv, *args, **kwargs):
        if argv[0] == "ovs-ofctl":
            raise FileNotFoundError(2, "No such file or directory", "ovs-ofctl")
        return original(argv, *args, **kwargs)

    monkeypatch.setattr("agent_flows.openflow.ofctl.subprocess.Popen", without_tool)
    host.plug_quietly(vm)
    error = host.server.wait_failed(vm.port_id, "provision-network").failed.error
    assert error.type == "ToolMissing"
    monkeypatch.setattr("agent_flows.openflow.ofctl.subprocess.Popen", original)
    host.server.wait_wired([vm.port_id])


def test_heartbeats_contain_the_agents_identity_and_its_queue(host, make_vm, settled):
    settled(make_vm())
    host.until(lambda: host.server.states[-1]["waiting"] == 0, "nothing waits")
    first = host.server.states[-1]
    assert first["bridge"] == "br-int"
    assert first["version"]
    assert first["started_at"].startswith("2")
    assert uuid.UUID(first["boot_id"])
    assert (first["waiting"], first["oldest"], first["oldest_flow"]) == (0, None, None)
    host.stop()
    host.start()
    host.until(lambda: host.server.states[-1]["boot_id"] != first["boot_id"], "a new boot id")


def test_a_second_agent_cannot_use_the_state_directory_of_the_first(host, small_disk):
    host.start()
    config = small_disk / "second.conf"
    config.write_text(f"[agent_flows]\nstate_dir = {small_disk}\nhost = other\n")
    second = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c"),
            "from agent_flows.agent.service import main; raise SystemExit(main())",
            *("--config-file", str(config)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    [line] = second.stderr.strip().splitlines()
    assert str(small_disk) in line
    assert f"process {os.getpid()}" in line
