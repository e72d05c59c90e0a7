"""What the other tests use works as documented."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import frames
from lab.leftovers import left_behind, sweep
from lab.probe import passes_anything
from lab.process import CommandFailed, Daemon, Ended, wait_until
from lab.rabbit import Rabbit
from lab.switch import Switch
from lab.vm import Vm, plug

ROOT = Path(__file__).parents[3]
MakeVm = Callable[..., Vm]
TRACKED = (
    "table=0,priority=10,arp actions=NORMAL",
    "table=0,priority=10,icmp6 actions=NORMAL",
    "table=0,priority=5,ip actions=ct(table=1)",
    "table=0,priority=5,ipv6 actions=ct(table=1)",
    "table=1,priority=9,ct_state=+inv+trk actions=drop",
    "table=1,priority=5,ct_state=+new+trk,ip actions=ct(commit),NORMAL",
    "table=1,priority=5,ct_state=+new+trk,ipv6 actions=ct(commit),NORMAL",
    "table=1,priority=5,ct_state=+est+trk actions=NORMAL",
)


@pytest.fixture
def pair(switch: Switch, vm: MakeVm) -> tuple[Vm, Vm]:
    """Two VMs on a bridge that tracks connections and lets everything pass."""
    switch.add_bridge("br-int")
    one = vm("one", "fa:16:3e:00:00:01", ["10.0.0.1/24", "fd00::1/64"])
    two = vm("two", "fa:16:3e:00:00:02", ["10.0.0.2/24", "fd00::2/64"])
    plug(switch, [one, two])
    for each in (one, two):
        each.raise_link()
    switch.bundle("br-int", *TRACKED)
    return one, two


def test_each_word_of_a_connection_is_answered_whatever_pieces_arrive(pair: tuple[Vm, Vm]) -> None:
    one, two = pair
    two.listen(80)
    connection = one.open(two.ip, 80)
    connection.send(b"first.second.thi")
    answers = connection.receive(timeout=5)
    connection.send(b"rd.")
    while not answers.endswith(b"third."):
        answers += connection.receive(timeout=5)
    assert answers == b"two:first.two:second.two:third."


@pytest.mark.parametrize("address", ["10.0.0.2", "fd00::2"])
def test_connections_pass_the_connection_tracker(pair: tuple[Vm, Vm], address: str) -> None:
    one, two = pair
    two.listen(80)
    two.listen(53, "udp")
    assert one.reach(address, 80) == "two"
    assert one.reach(address, 53, "udp") == "two"
    assert one.ping(address)
    assert not one.connect(address, 81)


def test_a_tagged_interface_is_on_the_network_of_its_tag_only(
    switch: Switch, pair: tuple[Vm, Vm]
) -> None:
    one, two = pair
    one.add_tagged("sub", 7, "fa:16:3e:00:00:07", "10.7.0.1/24")
    two.namespace.ip("address", "add", "10.7.0.2/24", "dev", "eth0")
    two.listen(80)
    switch.vsctl("set", "Port", two.tap, "tag=7")
    assert one.reach("10.7.0.2", 80) == "two"
    assert not one.connect(two.ip, 80, timeout=0.3)
    switch.vsctl("set", "Port", two.tap, "tag=8")
    assert not one.connect("10.7.0.2", 80, timeout=0.3)


def test_an_open_connection_notices_that_it_is_cut(switch: Switch, pair: tuple[Vm, Vm]) -> None:
    one, two = pair
    two.listen(80)
    connection = one.open(two.ip, 80)
    assert connection.ask() == "two"
    switch.ofctl("del-flows", switch.management("br-int"))
    assert connection.ask(timeout=0.3) is None
    switch.bundle("br-int", *TRACKED)
    assert connection.ask(timeout=5) == "two"


def test_forged_frames_leave_as_they_are_and_are_seen_where_they_arrive(
    pair: tuple[Vm, Vm],
) -> None:
    one, two = pair
    sent, seen = one.wire(), two.wire()
    forged = frames.udp((one.mac, two.mac), ("192.0.2.1", two.ip), (1, 2), b"forged")
    sent.send(forged)
    assert seen.wait_for(forged)
    sent.send(frames.arp_request(one.mac, (two.mac, two.ip), one.ip))
    assert seen.wait_for(lambda frame: frame[12:14] == b"\x08\x06")
    assert sent.arrived(b"forged") == 0


def test_the_probe_finds_what_an_open_switch_lets_pass(pair: tuple[Vm, Vm]) -> None:
    one, two = pair
    one.listen(80)
    two.listen(5432)
    found = passes_anything(two, [one], service=5432)
    assert any("arrived at one" in words for words in found)
    assert any("arrived at two" in words for words in found)
    assert any("reached tcp 5432 of two" in words for words in found)


def test_the_switch_refuses_flows_beyond_a_limit_until_it_is_lifted(switch: Switch) -> None:
    switch.add_bridge("br-int")

    def install() -> None:
        switch.bundle("br-int", "table=82,ip actions=drop", "table=82,arp actions=drop")

    switch.set_flow_limit("br-int", 82, 1)
    with pytest.raises(CommandFailed, match="OFPFMFC_TABLE_FULL"):
        install()
    assert switch.flows("br-int", "table=82") == []
    switch.lift_flow_limit("br-int", 82)
    install()
    assert len(switch.flows("br-int", "table=82")) == 2


def test_a_restarted_switch_keeps_its_bridges_and_forgets_its_flows(switch: Switch) -> None:
    switch.add_bridge("br-int")
    for restart in (
        switch.restart_vswitchd,
        lambda: (switch.kill_vswitchd(), switch.start_vswitchd()),
    ):
        switch.ofctl("add-flow", switch.management("br-int"), "actions=drop")
        restart()
        assert switch.vsctl("list-br") == "br-int"
        assert switch.flows("br-int") == []
    switch.restart_ovsdb()
    assert switch.vsctl("list-br") == "br-int"


def test_a_dummy_switch_traces_what_it_would_do() -> None:
    with Switch(dummy=True) as switch:
        switch.add_bridge("br-int")
        switch.vsctl("add-port", "br-int", "p1")
        switch.ofctl("add-flow", switch.management("br-int"), "in_port=1 actions=IN_PORT")
        trace = switch.appctl("ofproto/trace", "br-int", "in_port=1,ip")
        assert "IN_PORT" in trace


def test_a_rabbit_survives_its_outage() -> None:
    with Rabbit() as rabbit:
        directory = rabbit.directory
        rabbit.pause()
        rabbit.resume()
    assert not directory.exists()


def test_leaving_takes_along_namespace_directory_and_daemons() -> None:
    # A process of its own: this one's other switches and brokers live on beside it.
    code = (
        "from lab.switch import Switch; from lab.leftovers import left_behind\n"
        "with Switch():\n"
        "    kinds = {trace.partition(' ')[0] for trace in left_behind()}\n"
        "    assert kinds == {'namespace', 'directory', 'process'}, kinds\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as maker:
        assert maker.wait(timeout=30) == 0
    assert left_behind(maker.pid) == []


def test_a_program_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo no such luck; exit 3"]
    with Daemon("sh", argv, tmp_path / "log") as daemon, pytest.raises(Ended, match="no such"):
        daemon.ready(lambda: False, 5)


def test_what_a_killed_process_left_is_swept_by_the_next() -> None:
    code = (
        "from lab.switch import Switch; import os, signal; Switch('dead').__enter__();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as killed:
        killed.wait(timeout=30)
    wait_until(lambda: not processes_of(killed.pid), 20, "the kernel has ended its daemons")
    assert left_behind(killed.pid) != []
    sweep()
    assert left_behind(killed.pid) == []


def processes_of(pid: int) -> list[str]:
    return [trace for trace in left_behind(pid) if trace.startswith("process ")]
