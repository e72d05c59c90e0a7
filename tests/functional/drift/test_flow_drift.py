"""Flows of the integration bridge are changed by another program: found, reported, repaired."""

import contextlib
import signal
import subprocess
from collections.abc import Callable

import pytest

from agent_flows.openflow import cookie
from agent_flows.report import FlowName
from lab import frames
from lab.process import wait_until
from lab.vm import Vm
from tests.functional.agent.host import Host
from tests.functional.drift.repairs import repaired, right, settled

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
    "flow with a cookie of ours": (
        ["add-flow", "{bridge}", "cookie={copied:#x},table=82,reg5={ofport},actions=drop"],
        "1 not compiled",
        "not compiled: cookie={copied:#x},table=82",
    ),
    "flow of another program that ends by itself": (
        ["add-flow", "{bridge}", "table=82,hard_timeout=600,priority=65000,actions=drop"],
        "1 of another program",
        "table=82,priority=65000",
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
    words = {
        "bridge": host.switch.management(BRIDGE),
        "ofport": ofport,
        "copied": next(
            number
            for line in flows
            if (number := int(line.partition("cookie=")[2].partition(",")[0], 0))
            and cookie.kind(number) == cookie.Kind.PORT
            and cookie.serial(number) == ofport
        ),
    }
    host.switch.ofctl(*(word.format(**words) for word in change))
    error = repaired(host, two)
    assert message in error.message
    assert detail.format(**words) in error.detail
    as_before(host, flows)
    right(one, two)


@pytest.mark.parametrize("match", ["reg5={ofport}", "table=82", "table=60", ""])
def test_nothing_forbidden_passes_while_flows_are_missing(
    host: Host, pair: list[Vm], match: str
) -> None:
    one, two = pair
    ofport = host.switch.ofport(one.tap)
    with contextlib.closing(one.wire()) as receiver, contextlib.closing(two.wire()) as sender:
        macs, ips = (two.mac, one.mac), (two.ip, one.ip)
        segments = [frames.tcp(macs, ips, (20000 + n, 80), frames.SYN, (n, 0)) for n in range(200)]
        ofctl(host, "del-flows", *[match.format(ofport=ofport)] * bool(match))
        for segment in segments:
            sender.send(segment)
        repaired(host, one)
        for segment in segments:
            sender.send(segment)
        # What was sent before an allowed frame that has arrived was dropped.
        asked = frames.arp_request(two.mac, (two.mac, two.ip), one.ip)
        sender.send(asked + b"mark 1.")
        receiver.wait_for(b"mark 1.", 5)
        assert not any(receiver.arrived(segment) for segment in segments)
    right(two=two, one=one)


def test_flow_of_another_program_over_one_port_concerns_no_other(
    host: Host, pair: list[Vm]
) -> None:
    one, two = pair
    flow = f"table=82,priority=65000,reg5={host.switch.ofport(two.tap)},actions=drop"
    ofctl(host, "add-flow", flow)
    repaired(host, two)
    assert [report.flow for report in host.server.of(one.port_id)] == ["wire"]


def test_flow_deleted_and_another_added_in_its_place_are_both_found(
    host: Host, pair: list[Vm]
) -> None:
    one, two = pair
    flows = host.switch.flows(BRIDGE)
    ofport = host.switch.ofport(two.tap)
    imitated = f"cookie={cookie.port(ofport, 77):#x},table=82,priority=500,reg5={ofport}"
    host.switch.bundle(BRIDGE, f"{imitated},actions=drop", "delete_strict table=94,priority=0")
    error = repaired(host, two)
    assert "1 missing, 1 not compiled" in error.message
    as_before(host, flows)
    right(one, two)


def test_changes_are_repaired_on_a_host_without_ports(host: Host) -> None:
    host.start_once()
    host.ready()
    flows = host.switch.flows(BRIDGE)
    ofctl(host, "add-flow", "table=0,priority=65535,actions=NORMAL")
    as_before(host, flows)
    ofctl(host, "del-flows", "table=82")
    as_before(host, flows)
    assert not host.server.reports


def test_flow_of_another_program_that_is_to_be_left_fails_the_ports_it_concerns(
    host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]
) -> None:
    host.start(remove_strange_flows=False)
    host.ready()
    one, two = settled(make_vm("one"), make_vm("two"))
    flow = f"table=82,reg5={host.switch.ofport(two.tap)},dl_type=0x9999"
    ofctl(host, "add-flow", "table=200,actions=NORMAL")
    ofctl(host, "add-flow", f"priority=65000,{flow},actions=drop")
    (found,) = host.server.wait_for(lambda: host.server.of(two.port_id, FlowName.AUDIT))
    assert found.failed is not None
    failed = host.server.wait_failed(two.port_id, "verify-security-groups")
    assert failed.failed.error.type == "StrangersFlow"
    assert len(host.switch.flows(BRIDGE, flow)) == 1
    ofctl(host, "del-flows", flow)
    host.server.wait_wired([two.port_id])
    assert not host.server.of(one.port_id, FlowName.AUDIT)
    assert len(host.switch.flows(BRIDGE, "table=200")) == 1


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
    settled(host, 2)
    before = len(host.server.of(two.port_id))
    ofctl(host, "del-flows", "table=82")
    repaired(host, two, before)
    right(one, two)


def pids(pattern: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return found.stdout.split()
