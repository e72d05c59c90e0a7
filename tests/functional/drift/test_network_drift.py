"""Our flows on a physical network's bridge are changed by another program."""

import pytest

from agent_flows.openflow import cookie
from agent_flows.report import FlowName
from lab.process import wait_until
from lab.vm import Vm
from tests.functional.agent.host import Host
from tests.functional.drift.repairs import repaired

BRIDGE = "br-ex"
PATIENCE = 10.0


def flows(host: Host) -> list[str]:
    return sorted(line.partition("table=")[2] for line in host.switch.flows(BRIDGE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["del-flows", "{bridge}", "dl_vlan=1"], "1 missing"),
        (["--strict", "del-flows", "{bridge}", "priority=0"], "1 missing"),
        (["del-flows", "{bridge}"], "missing"),
        (["mod-flows", "{bridge}", "dl_vlan=1,actions=drop"], "1 changed"),
    ],
    ids=["translation deleted", "default deleted", "all deleted", "modified"],
)
def test_changed_flows_of_a_network_are_reported_and_repaired(
    host: Host, outside: tuple[Vm, Vm], change: list[str], message: str
) -> None:
    inside, machine = outside
    host.ready()
    before = flows(host)
    bridge = host.switch.management(BRIDGE)
    host.switch.ofctl(*(word.format(bridge=bridge) for word in change))
    error = repaired(host, inside)
    assert error.message.startswith(f"flows on bridge {BRIDGE} that the port depends on: ")
    assert message in error.message
    wait_until(lambda: flows(host) == before, PATIENCE, "the flows as before")
    assert inside.connect(machine.ip, 80)


def test_flows_of_others_on_a_physical_bridge_are_left_there(
    host: Host, outside: tuple[Vm, Vm]
) -> None:
    inside, _ = outside
    bridge = host.switch.management(BRIDGE)
    host.switch.ofctl("add-flow", bridge, "cookie=0x7,priority=500,dl_vlan=4000,actions=drop")
    host.switch.ofctl("del-flows", bridge, "dl_vlan=1")
    repaired(host, inside)
    assert any("dl_vlan=4000" in line for line in host.switch.flows(BRIDGE))
    assert len(host.server.of(inside.port_id, FlowName.AUDIT)) == 1


def test_flow_with_a_cookie_of_ours_that_was_not_compiled_is_reported_and_removed(
    host: Host, outside: tuple[Vm, Vm]
) -> None:
    inside, machine = outside
    host.ready()
    before = flows(host)
    imitated = f"cookie={cookie.network(77):#x},priority=9,dl_vlan=1,actions=drop"
    host.switch.bundle(BRIDGE, imitated, "delete_strict priority=0")
    error = repaired(host, inside)
    assert "1 missing, 1 not compiled" in error.message
    assert "not compiled: cookie=0xaf104200004d0000" in error.detail
    wait_until(lambda: flows(host) == before, PATIENCE, "the flows as before")
    assert inside.connect(machine.ip, 80)
