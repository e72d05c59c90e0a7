"""On the bridge object that Neutron's agent really has, speaking OpenFlow through os-ken."""

import json
import select
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_flows.openflow.pipeline import Home, Pipeline
from lab.process import wait_until
from lab.switch import Switch
from tests.functional.secgroups.host import BRIDGE, Host, Vm

GROUP = str(uuid.uuid4())
RULES = [
    {"direction": "egress", "ethertype": "IPv4"},
    {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
     "port_range_min": 80, "port_range_max": 80},
]  # fmt: skip
OVS_RESTARTED, OVS_NORMAL = 0, 1
STALE = 0xABCDEF


class RealAgent(Host):
    """A host whose bridge and ports are looked after by a process of Neutron's code."""

    def __init__(self, switch: Switch) -> None:
        super().__init__(switch, pipeline=Pipeline(Home.NEUTRON))
        argv = [sys.executable, "-W", "ignore", "-m", "tests.functional.neutron.agent_process"]
        self._log = switch.run_dir / "agent.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                switch.namespace.argv([*argv, BRIDGE, switch.database, str(switch.run_dir)]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[3],
            )
        assert self._answer() == "ready"

    def ask(self, method: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 200)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            raise AssertionError(self._log.read_text()[-3000:])
        return json.loads(line)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def bound(self, number: int) -> Vm:
        vm = self.boot(number)
        self.switch.vsctl(
            "set", "Interface", vm.name, f"external_ids:iface-id={vm.id}",
            f'external_ids:attached-mac="{vm.mac}"', "--",
            "set", "Port", vm.name, f"other_config:tag={vm.vlan}",
        )  # fmt: skip
        return vm

    def wire_them(self, *vms: Vm) -> None:
        ports = [
            {"device": vm.id, "mac_address": vm.mac, "fixed_ips": [vm.ip],
             "security_groups": [GROUP]}
            for vm in vms
        ]  # fmt: skip
        # Its copy of OVSDB may not know the ports' numbers yet; what failed is tried again.
        wait_until(
            lambda: self.ask("wire", {GROUP: RULES}, ports) == [True] * len(vms), 20, "wired"
        )


@pytest.fixture
def agent() -> Iterator[RealAgent]:
    with Switch(dummy=True) as switch:
        switch.add_bridge(BRIDGE)
        switch.appctl("dpctl/ct-disable-tcp-seq-chk")
        running = RealAgent(switch)
        try:
            yield running
        finally:
            running.stop()


def test_the_agent_cleans_up_stale_flows_and_leaves_ours(agent: RealAgent) -> None:
    a, b, new = agent.bound(1), agent.bound(2), agent.bound(3)
    agent.wire_them(a, b)
    agent.ofctl.bundle([f"add cookie={STALE:#x},table=60,priority=7,in_port=99 actions=drop"])
    before = agent.switch.flows(BRIDGE, "cookie=0xaf00000000000000/0xff00000000000000")
    agent.ask("cleanup_flows")
    assert agent.switch.flows(BRIDGE, "cookie=0xaf00000000000000/0xff00000000000000") == before
    assert agent.switch.flows(BRIDGE, f"cookie={STALE:#x}/-1") == []
    assert agent.connect(a, b, 80)
    assert not agent.tcp(a, b, 81)
    assert not agent.tcp(new, a, 80), "it is not programmed"


def test_a_port_without_its_bridge_has_an_error_that_names_it(agent: RealAgent) -> None:
    a = agent.bound(1)
    # Its copy of OVSDB may be older for a moment, here and below.
    wait_until(lambda: agent.ask("error_of", a.id) == [], 20, "the port is found")
    agent.switch.vsctl("del-br", BRIDGE)
    missing = ["BridgeNotFound", f"bridge {BRIDGE} does not exist"]
    wait_until(lambda: agent.ask("error_of", a.id) == missing, 20, "the bridge is missed")


def test_after_a_restart_of_the_switch_ports_are_filtered_before_the_bridge_opens(
    agent: RealAgent,
) -> None:
    a, b = agent.bound(1), agent.bound(2)
    agent.wire_them(a, b)
    agent.switch.stop_vswitchd()
    agent.switch.start_vswitchd()
    agent.switch.appctl("dpctl/ct-disable-tcp-seq-chk")
    # Until the controller is connected again the agent takes the switch for dead and waits.
    wait_until(lambda: agent.ask("check_canary_table") == OVS_RESTARTED, 30, "OVS is restarted")
    assert agent.ask("recover") > 0
    assert agent.ask("check_canary_table") == OVS_NORMAL
    # The agent's copy of OVSDB may say for a moment that the ports have no ofport yet.
    wait_until(lambda: agent.connect(a, b, 80), 20, "the ports are wired again")
    assert not agent.tcp(a, b, 81)
