"""agent-flows-leave-host removes everything of ours, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_flows.neutron.agent.cleanup_host import leave
from agent_flows.openflow.ofctl import Ofctl
from lab.switch import Switch
from tests.functional.neutron.cloud import Cloud
from tests.functional.secgroups.host import BRIDGE

OURS = "cookie=0xaf10000000000000/0xfffe000000000000"


def test_flows_and_seals_go_and_neutrons_flows_stay(cloud: Cloud) -> None:
    group = cloud.security_group()
    cloud.everything_out(group)
    vm = cloud.boot(1)
    cloud.neutron_port(vm, group)
    cloud.wire_ports(vm)
    ofctl = Ofctl(str(cloud.switch.run_dir), BRIDGE, 30)
    ofctl.seal(cloud.switch.ofport(vm.name))
    held = len(cloud.switch.flows(BRIDGE, OURS))
    others = len(cloud.switch.flows(BRIDGE)) - held
    cloud.stop_agent()
    assert leave(ofctl) == (held, 1)
    assert cloud.switch.flows(BRIDGE, OURS) == []
    assert ofctl.sealed() == frozenset()
    assert len(cloud.switch.flows(BRIDGE)) == others


@pytest.fixture(scope="module")
def small_switch():
    """With two bridges; ours is not the one of the usual name."""
    with Switch("leaving", dummy=True) as switch:
        for bridge in ("br-int", "br-other"):
            switch.add_bridge(bridge)
        yield switch


def run(switch: Switch, tmp_path: Path, sections: str) -> "subprocess.CompletedProcess[str]":
    """The program as an operator runs it, after a flow of ours got onto each bridge."""
    for bridge in ("br-int", "br-other"):
        switch.ofctl(
            "add-flow", switch.management(bridge), "cookie=0xaf10010000000001,actions=drop"
        )
    file = tmp_path / "openvswitch_agent.ini"
    file.write_text(f"[agent_flows]\novs_run_dir = {switch.run_dir}\n{sections}")
    main = "from agent_flows.neutron.agent.cleanup_host import main"
    code = f"import sys; {main}; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-W", "ignore", "-c", code, "--config-file", str(file)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def ours(switch: Switch, bridge: str) -> int:
    return len(switch.flows(bridge, OURS))


def test_the_bridge_is_the_one_neutrons_agent_has(small_switch: Switch, tmp_path: Path) -> None:
    done = run(small_switch, tmp_path, "[ovs]\nintegration_bridge = br-other\n")
    assert done.returncode == 0, done.stderr
    assert "br-other" in done.stdout
    assert (ours(small_switch, "br-int"), ours(small_switch, "br-other")) == (1, 0)


def test_two_names_of_the_bridge_are_refused(small_switch: Switch, tmp_path: Path) -> None:
    done = run(
        small_switch,
        tmp_path,
        "integration_bridge = br-other\n[ovs]\nintegration_bridge = br-int\n",
    )
    assert done.returncode == 1
    assert "br-other" in done.stderr
    assert "[ovs] integration_bridge is br-int" in done.stderr
    assert ours(small_switch, "br-int") == ours(small_switch, "br-other") == 1


def test_a_bridge_that_does_not_exist_is_named_in_one_line(
    small_switch: Switch, tmp_path: Path
) -> None:
    done = run(small_switch, tmp_path, "[ovs]\nintegration_bridge = br-none\n")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "bridge br-none ([ovs] integration_bridge) does not answer" in line
