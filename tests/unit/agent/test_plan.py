"""Which flow a port needs."""

import dataclasses
import uuid

import pytest

from agent_flows.agent import plan as planning
from agent_flows.agent.plan import Wired
from agent_flows.engine.port_queue import Request
from agent_flows.l2.interfaces import Interface
from agent_flows.report import FlowName
from agent_flows.spec import DesiredState, NetworkSpec, NetworkType, PortSpec, SecurityGroupSpec

PORT = str(uuid.uuid4())
GROUP = SecurityGroupSpec(str(uuid.uuid4()), 3)
SPEC = PortSpec(
    PORT,
    7,
    "host-1",
    NetworkSpec(str(uuid.uuid4()), NetworkType.LOCAL),
    "fa:16:3e:00:00:01",
    security_groups=(GROUP.id,),
)
TAP = Interface(PORT, "tap1", "", 5)
PROVEN = Wired(SPEC, TAP, {GROUP.id: 3}, proven=True)


def flow_of(request=None, interface=TAP, spec=SPEC, last=None, *, group=GROUP, absent=None):
    """The flow planned for the port; "early" if it is to come back, None if it needs nothing."""
    request = request or Request(PORT)
    present = {PORT: interface} if interface else {}
    wired = {PORT: last} if last else {}
    if planning.early([request], present, wired):
        return "early"
    plan = planning.plan(
        [request],
        present,
        DesiredState({PORT: spec} if spec else {}, {group.id: group} if group else {}),
        wired,
        {} if absent is None else {PORT: absent},
    )
    return next((flow for flow, ports in plan.items() if PORT in ports), None)


def test_a_port_seen_for_the_first_time_is_wired():
    assert flow_of() is FlowName.WIRE


def test_a_proven_port_needs_nothing():
    assert flow_of(last=PROVEN) is None


@pytest.mark.parametrize(
    "spec",
    [
        dataclasses.replace(SPEC, revision=8),
        dataclasses.replace(SPEC, mac_address="fa:16:3e:00:00:02"),
        dataclasses.replace(SPEC, admin_state_up=False),
    ],
    ids=["revision", "mac", "admin state"],
)
def test_a_port_whose_spec_changed_is_wired(spec):
    assert flow_of(spec=spec, last=PROVEN) is FlowName.WIRE


@pytest.mark.parametrize(
    "interface",
    [dataclasses.replace(TAP, ofport=6), dataclasses.replace(TAP, name="tap2")],
    ids=["ofport", "name"],
)
def test_a_replugged_port_is_wired(interface):
    assert flow_of(interface=interface, last=PROVEN) is FlowName.WIRE


def test_new_content_of_a_group_is_a_refresh():
    assert flow_of(last=PROVEN, group=dataclasses.replace(GROUP, revision=4)) is FlowName.REFRESH


def test_a_port_whose_last_flow_failed_is_wired_again():
    assert flow_of(last=dataclasses.replace(PROVEN, proven=False)) is FlowName.WIRE


def test_a_refresh_that_failed_is_a_refresh_again():
    failed = dataclasses.replace(PROVEN, security_group_revisions=None)
    assert flow_of(last=failed) is FlowName.REFRESH


def test_forced_everything_is_proven_anew():
    assert flow_of(Request(PORT, forced=True), last=PROVEN) is FlowName.RESYNC
    assert flow_of(Request(PORT, forced=True)) is FlowName.RESYNC


@pytest.mark.parametrize("gone", [{"interface": None}, {"spec": None}], ids=["plug", "spec"])
def test_a_wired_port_that_lost_its_plug_or_its_spec_is_unwired(gone):
    assert flow_of(last=PROVEN, **gone) is FlowName.UNWIRE


def test_a_plugged_port_nobody_desires_is_left_closed():
    assert flow_of(spec=None) is None


def test_forced_a_plugged_port_nobody_desires_is_closed_whoever_opened_it():
    assert flow_of(Request(PORT, forced=True), spec=None) is FlowName.UNWIRE


def test_forced_the_absence_of_a_bound_port_is_reported():
    assert flow_of(Request(PORT, forced=True), interface=None) is FlowName.UNWIRE


def test_an_interface_the_switch_has_not_opened_yet_is_waited_for_once():
    unsettled = dataclasses.replace(TAP, ofport=None)
    assert flow_of(Request(PORT), interface=unsettled) == "early"
    assert flow_of(Request(PORT, looked=True), interface=unsettled) is FlowName.WIRE
    assert flow_of(Request(PORT, attempt=2), interface=unsettled) is FlowName.WIRE


def test_an_interface_the_switch_could_not_open_is_reported_at_once():
    broken = dataclasses.replace(TAP, ofport=None, error="No such device")
    assert flow_of(Request(PORT), interface=broken) is FlowName.WIRE


def test_a_port_neither_plugged_nor_wired_concerns_nobody_unless_forced():
    plain, forced = Request(PORT), Request(PORT, forced=True)
    assert planning.concerns([plain], {}, {}) == []
    assert planning.concerns([forced], {}, {}) == [forced]
    assert planning.concerns([plain], {PORT: TAP}, {}) == [plain]
    assert planning.concerns([plain], {}, {PORT: PROVEN}) == [plain]


def test_a_missing_group_is_left_out_so_that_its_port_fails_alone():
    assert planning.revisions(SPEC, DesiredState({PORT: SPEC})) == {}
    assert flow_of(group=None) is FlowName.WIRE


def test_the_absence_of_a_port_the_server_names_is_reported_if_it_is_not_plugged_meanwhile():
    assert flow_of(Request(PORT, asked=True), interface=None) == "early"
    again = Request(PORT, asked=True, looked=True)
    assert flow_of(again, interface=None) is FlowName.UNWIRE
    assert flow_of(again) is FlowName.WIRE


def test_an_absence_is_reported_once_for_each_revision():
    asked = Request(PORT, asked=True, looked=True)
    assert flow_of(asked, interface=None, absent=SPEC.revision) is None
    assert flow_of(asked, interface=None, absent=SPEC.revision - 1) is FlowName.UNWIRE


def test_the_absence_of_a_port_that_is_not_bound_here_is_not_reported():
    assert flow_of(Request(PORT, attempt=2, asked=True), interface=None, spec=None) is None


def test_a_port_the_server_names_concerns_us_plugged_or_not():
    asked = Request(PORT, asked=True)
    assert planning.concerns([asked], {}, {}) == [asked]


def test_a_look_that_came_too_early_counts_as_no_attempt():
    asked = Request(PORT, attempt=2, asked=True)
    assert planning.attempt(asked, {}, {}) == 1  # it was looked for once, and is reported absent
    assert planning.attempt(asked, {PORT: TAP}, {}) == 2  # it was tried before
    assert planning.attempt(asked, {}, {PORT: PROVEN}) == 2
    assert planning.attempt(Request(PORT), {PORT: TAP}, {}) == 1
