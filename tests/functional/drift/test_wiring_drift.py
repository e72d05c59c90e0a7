"""The wiring of proven ports is changed by another program: found, reported and repaired."""

from collections.abc import Callable, Sequence

import pytest

from agent_flows.engine.drift import COMPARE_SWITCH
from agent_flows.report import FlowName, FlowReport, TaskState
from lab.model import egress_to_anywhere, group, network
from lab.vm import Vm
from tests.functional.agent.host import Host

BRIDGE = "br-int"


@pytest.fixture
def pair(host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]) -> list[Vm]:
    """``one`` lets nothing in, ``two`` everything; both on one network."""
    net = network()
    (one,) = settled(make_vm("one"), net=net, groups=[group(*egress_to_anywhere())])
    (two,) = settled(make_vm("two"), net=net)
    for vm in (one, two):
        vm.listen(80)
    assert one.connect(two.ip, 80)
    return [one, two]


def message(report: FlowReport) -> str:
    """Of a report of drift, which is about nothing else."""
    (task,) = report.tasks
    assert (task.name, task.state) == (COMPARE_SWITCH, TaskState.FAILED)
    assert task.error is not None
    assert task.error.type == "Drift"
    return task.error.message


def repaired(host: Host, vm: Vm, before: int = 0) -> str:
    """Wait until drift of the port was reported, and repaired after that; what was reported."""

    def reports() -> Sequence[FlowReport]:
        return host.server.of(vm.port_id)[before:]

    def found() -> FlowReport | None:
        return next((each for each in reports() if each.flow is FlowName.AUDIT), None)

    report = host.server.wait_for(found, what="a report of drift")
    number = reports().index(report)
    (repair,) = host.server.wait_for(lambda: reports()[number + 1 : number + 2], what="the repair")
    assert repair.flow is FlowName.RESYNC
    assert repair.failed is None
    return message(report)


def right(one: Vm, two: Vm) -> None:
    """What may pass does, and nothing else."""
    assert one.connect(two.ip, 80)
    assert not two.connect(one.ip, 80, timeout=0.4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["set", "Port", "{tap}", "tag=999"], "the tag of {tap} is 999 instead of 1"),
        (["clear", "Port", "{tap}", "tag"], "the tag of {tap} is not set instead of 1"),
        (
            ["remove", "Port", "{tap}", "other_config", "net_uuid"],
            "other_config of {tap} was changed: net_uuid",
        ),
        (
            ["set", "Interface", "{tap}", "ofport_request=77"],
            "the ofport of {tap} is 77 instead of {ofport}",
        ),
    ],
    ids=["tag changed", "tag removed", "other_config", "ofport"],
)
def test_a_changed_row_of_a_port_is_reported_and_repaired(host, pair, words, expected):
    one, two = pair
    values = {"tap": two.tap, "ofport": host.switch.ofport(two.tap)}
    host.switch.vsctl(*(word.format(**values) for word in words))
    assert repaired(host, two) == expected.format(**values)
    assert host.tag(two.tap) == 1
    right(one, two)
    assert not host.server.of(one.port_id, FlowName.AUDIT)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["down"], "link {tap} is down"),
        (["mtu", "1400"], "link {tap} has MTU 1400 instead of 1500"),
    ],
    ids=" ".join,
)
def test_a_changed_link_is_reported_and_repaired(host, pair, words, expected):
    one, two = pair
    host.switch.namespace.ip("link", "set", two.tap, *words)
    assert repaired(host, two) == expected.format(tap=two.tap)
    link = host.switch.namespace.ip("link", "show", two.tap)
    assert "UP" in link
    assert "mtu 1500" in link
    right(one, two)


def test_several_changes_of_a_port_are_one_report(host, pair):
    one, two = pair
    host.switch.vsctl("set", "Port", two.tap, "tag=999", "other_config:tag=7")
    assert repaired(host, two) == (
        f"the tag of {two.tap} is 999 instead of 1; other_config of {two.tap} was changed: tag"
    )
    right(one, two)
