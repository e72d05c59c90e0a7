"""The tasks, inputs and results of each flow, as in the table of the design."""

from unittest import mock

import pytest

from agent_flows.agent import flows
from agent_flows.report import SKIPPABLE_TASKS, FlowName, Step
from lab import model

WIRE = [
    ("locate-interface", Step.L2),
    ("raise-link", Step.L2),
    ("provision-network", Step.L2),
    ("apply-security-groups", Step.SECURITY_GROUPS),
    ("verify-security-groups", Step.SECURITY_GROUPS),
    ("bind-vlan", Step.L2),
    ("verify-wiring", Step.L2),
    ("commit-security-groups", Step.SECURITY_GROUPS),
]


@pytest.fixture
def switch():
    # A flow is composed without any call to the switch.
    part = mock.sentinel.untouched
    return flows.Switch("br-int", part, part, part, part, part)


def tasks(flow):
    return [(task.name_, task.step) for task in flow]


def test_wire_and_resync_have_the_same_tasks_in_order(switch):
    assert tasks(flows.wire(switch)) == WIRE
    assert tasks(flows.resync(switch)) == WIRE


def test_refresh_has_only_the_tasks_of_security_groups(switch):
    assert tasks(flows.refresh(switch)) == [
        task for task in WIRE if task[1] is Step.SECURITY_GROUPS
    ]


def test_unwire_closes_before_it_removes_and_releases(switch):
    names = [name for name, _ in tasks(flows.unwire(switch))]
    assert names == ["close-port", "remove-security-groups", "release-vlan"]


@pytest.mark.parametrize("name", [name for name in FlowName if name is not FlowName.AUDIT])
def test_reports_of_the_lab_have_the_tasks_of_the_flow(switch, name):
    composed = getattr(flows, name.value)(switch)
    assert list(model.TASKS[name].items()) == tasks(composed)


def test_each_flow_requires_only_its_inputs(switch):
    assert flows.wire(switch).requires == {"port_ids", "desired", "present"}
    assert flows.refresh(switch).requires == {"port_ids", "desired", "attachments"}
    assert flows.unwire(switch).requires == {"port_ids"}


def test_wire_provides_interfaces_and_attachments(switch):
    assert {"interfaces", "attachments"} <= flows.wire(switch).provides


def test_only_the_link_may_be_skipped(switch):
    assert {name for name, _ in WIRE} >= SKIPPABLE_TASKS == {"raise-link"}
