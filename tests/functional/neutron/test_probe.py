"""A switch that does not answer is the host's trouble within seconds, until it answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_flows.neutron import privileged
from agent_flows.neutron.agent.probe import Probe
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.report import Trouble
from agent_flows.supervision import Troubles
from lab.process import wait_until
from lab.switch import Switch
from tests.functional.secgroups.host import BRIDGE

SECONDS = 20


@pytest.fixture
def troubles(dummy_switch: Switch, ofctl_calls: Path) -> Iterator[Troubles]:
    dummy_switch.add_bridge(BRIDGE)
    troubles = Troubles()
    ofctl = Ofctl(str(dummy_switch.run_dir), BRIDGE, 1, privileged.execute)
    probe = Probe(ofctl, BRIDGE, lambda: _exists(dummy_switch), troubles, 0.1)
    probe.start()
    yield troubles
    probe.stop(10)
    if _exists(dummy_switch):
        dummy_switch.vsctl("del-br", BRIDGE)


def _exists(switch: Switch) -> bool:
    return BRIDGE in switch.vsctl("list-br").split()


def has(troubles: Troubles, source: Trouble, words: str) -> None:
    """Wait for this trouble, and see that it is the only one."""
    wait_until(lambda: source in troubles.current(), SECONDS, f"the trouble {source}")
    assert list(troubles.current()) == [source]
    assert words in troubles.current()[source]


def none(troubles: Troubles) -> None:
    wait_until(lambda: not troubles.current(), SECONDS, "no trouble")


def test_a_stopped_switch_is_a_trouble(dummy_switch: Switch, troubles: Troubles) -> None:
    dummy_switch.stop_vswitchd()
    try:
        has(troubles, Trouble.SWITCH, f"cannot be reached on {BRIDGE}")
    finally:
        dummy_switch.start_vswitchd()
    none(troubles)


def test_a_switch_that_hangs_is_a_trouble(dummy_switch: Switch, troubles: Troubles) -> None:
    with dummy_switch.held_vswitchd():
        has(troubles, Trouble.SWITCH, "does not answer")
    none(troubles)


def test_a_deleted_bridge_is_a_trouble(dummy_switch: Switch, troubles: Troubles) -> None:
    dummy_switch.vsctl("del-br", BRIDGE)
    has(troubles, Trouble.BRIDGE, f"bridge {BRIDGE} is gone")
    dummy_switch.add_bridge(BRIDGE)
    none(troubles)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exec sleep 600", "killed"),
        ("sleep 600; exit 0", "killed"),
        ("exit 3", "without a message"),
    ],
    ids=["hangs", "hangs in a child", "fails"],
)
def test_an_ovs_ofctl_that_does_not_work_is_no_trouble_of_the_switch(
    troubles: Troubles, ofctl_calls: Path, script: str, words: str
) -> None:
    tool = ofctl_calls.parent / "bin" / "ovs-ofctl"
    works = tool.read_text()
    _replace(tool, f"#!/bin/sh\n{script}\n")
    has(troubles, Trouble.OPENFLOW, words)
    _replace(tool, works)
    none(troubles)


def _replace(tool: Path, script: str) -> None:
    """In one step: it is run all the time."""
    new = tool.with_suffix(".new")
    new.write_text(script)
    new.chmod(0o755)
    new.replace(tool)
