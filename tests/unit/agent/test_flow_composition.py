"""What each flow needs, provides and does in which order: as the design's table has it."""

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
    # Composing touches nothing of the switch.
    part = mock.sentinel.untouched
    return flows.Switch("br-int", part, part, part, part)


def tasks(flow):
    return [(task.name_, task.step) for task in flow]


def test_wire_and_resync_do_the_same_in_the_same_order(switch):
    assert tasks(flows.wire(switch)) == WIRE
    assert tasks(flows.resync(switch)) == WIRE


def test_refresh_touches_security_groups_only(switch):
    assert tasks(flows.refresh(switch)) == [
        task for task in WIRE if task[1] is Step.SECURITY_GROUPS
    ]


def test_unwire_closes_before_it_removes_and_releases(switch):
    names = [name for name, _ in tasks(flows.unwire(switch))]
    assert names == ["close-port", "remove-security-groups", "release-vlan"]


@pytest.mark.parametrize("name", FlowName)
def test_the_reports_that_the_servers_tests_send_have_the_tasks_of_the_flows(switch, name):
    composed = getattr(flows, name.value)(switch)
    assert list(model.TASKS[name].items()) == tasks(composed)


def test_inputs_are_the_specs_and_the_ports_and_nothing_else(switch):
    assert flows.wire(switch).requires == {"port_ids", "desired", "present"}
    assert flows.refresh(switch).requires == {"port_ids", "desired", "attachments"}
    assert flows.unwire(switch).requires == {"port_ids"}


def test_what_is_located_and_provisioned_is_handed_on(switch):
    assert {"interfaces", "attachments"} <= flows.wire(switch).provides


def test_only_the_link_may_be_skipped(switch):
    assert {name for name, _ in WIRE} >= SKIPPABLE_TASKS == {"raise-link"}
