"""Flows of the integration bridge are changed by another program: found, reported, repaired."""

import signal
import subprocess

import pytest

from agent_flows.report import FlowName
from lab.process import wait_until
from lab.vm import Vm
from tests.functional.agent.host import Host
from tests.functional.drift.repairs import repaired, right

BRIDGE = "br-int"
PATIENCE = 10.0


def ofctl(host: Host, *args: str) -> None:
    command, *rest = args
    host.switch.ofctl(command, host.switch.management(BRIDGE), *rest)


def as_before(host: Host, flows: list[str]) -> None:
    """The flows are what they were, but for cookies and register names."""
    wait_until(
        lambda: sorted(map(_bare, host.switch.flows(BRIDGE))) == sorted(map(_bare, flows)),
        PATIENCE,
        "the flows as before",
    )


def _bare(line: str) -> str:
    return line.partition(",")[2].strip()


CHANGES = {
    "rule flows of a port deleted": (
        ["del-flows", "{bridge}", "table=82,reg5={ofport}"],
        "missing",
        "missing: cookie=",
    ),
    "a table deleted": (["del-flows", "{bridge}", "table=82"], "missing", "table=82"),
    "the transient table deleted": (["del-flows", "{bridge}", "table=60"], "missing", "table=60"),
    "all flows deleted": (["del-flows", "{bridge}"], "missing", "missing: "),
    "actions of a rule modified": (
        ["mod-flows", "{bridge}", "table=82,reg5={ofport},actions=drop"],
        "changed",
        "actions=drop",
    ),
    "flow of another program over a port": (
        ["add-flow", "{bridge}", "table=82,priority=65000,reg5={ofport},actions=output:{ofport}"],
        "1 of another program",
        "table=82,priority=65000",
    ),
    "NORMAL of another program in front of all": (
        ["add-flow", "{bridge}", "table=0,priority=65535,actions=NORMAL"],
        "1 of another program",
        "actions=NORMAL",
    ),
    "flow of ours overwritten by another program": (
        ["add-flow", "{bridge}", "table=82,priority=0,actions=NORMAL"],
        "1 changed",
        "changed, is: cookie=0x0,table=82,priority=0 actions=NORMAL",
    ),
    "one flow of the pipeline deleted": (
        ["--strict", "del-flows", "{bridge}", "table=94,priority=0"],
        "1 missing",
        "table=94,priority=0",
    ),
    "drop of another program in front of a port": (
        ["add-flow", "{bridge}", "table=0,priority=65535,in_port={ofport},actions=drop"],
        "1 of another program",
        "in_port={ofport}",
    ),
}


@pytest.mark.parametrize(("change", "message", "detail"), CHANGES.values(), ids=list(CHANGES))
def test_changed_flows_are_reported_and_repaired(
    host: Host, pair: list[Vm], change: list[str], message: str, detail: str
) -> None:
    one, two = pair
    ofport = host.switch.ofport(two.tap)
    flows = host.switch.flows(BRIDGE)
    bridge = host.switch.management(BRIDGE)
    host.switch.ofctl(*(word.format(bridge=bridge, ofport=ofport) for word in change))
    error = repaired(host, two)
    assert message in error.message
    assert detail.format(ofport=ofport) in error.detail
    as_before(host, flows)
    right(one, two)


def test_flow_of_another_program_over_one_port_concerns_no_other(
    host: Host, pair: list[Vm]
) -> None:
    one, two = pair
    flow = f"table=82,priority=65000,reg5={host.switch.ofport(two.tap)},actions=drop"
    ofctl(host, "add-flow", flow)
    repaired(host, two)
    assert [report.flow for report in host.server.of(one.port_id)] == ["wire"]


def test_changes_are_found_after_the_monitor_was_killed(host: Host, pair: list[Vm]) -> None:
    one, two = pair
    monitors = f"ovs-ofctl.*monitor.*{host.switch.run_dir}"
    first = pids(monitors)
    assert first
    for pid in first:
        subprocess.run(["kill", f"-{signal.SIGKILL:d}", pid], check=True)
    ofctl(host, "del-flows", "table=82")
    repaired(host, two)
    right(one, two)
    wait_until(lambda: set(pids(monitors)) - set(first), PATIENCE, "another monitor")


def test_changes_are_found_after_a_restart_of_the_switch(host: Host, pair: list[Vm]) -> None:
    one, two = pair
    host.switch.restart_vswitchd()
    for vm in pair:
        host.server.wait_for(lambda vm=vm: host.server.of(vm.port_id, FlowName.RESYNC), 20)
    host.without_trouble()
    # What changes while a flow of the port runs is repaired without a report.
    wait_until(lambda: host.server.states[-1]["wired"] == 2, PATIENCE, "both are proven again")
    before = len(host.server.of(two.port_id))
    ofctl(host, "del-flows", "table=82")
    repaired(host, two, before)
    right(one, two)


def pids(pattern: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return found.stdout.split()
