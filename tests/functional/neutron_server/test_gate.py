"""Ports become ACTIVE by proof on hosts that have our extension, and as before elsewhere."""

from collections.abc import Callable

import pytest

from agent_flows.engine.drift import COMPARE_SWITCH
from agent_flows.engine.transcript import utcnow
from agent_flows.errors import ErrorType
from agent_flows.report import FlowName, Step, TaskError, TaskOutcome, TaskState
from tests.functional.neutron_server.stage import Body, Host, Neutron

MakePort = Callable[..., Body]
REFUSAL = "apply-security-groups"
FOUND = TaskOutcome(
    COMPARE_SWITCH,
    Step.SECURITY_GROUPS,
    TaskState.FAILED,
    utcnow(),
    0.0,
    TaskError(ErrorType.DRIFT, "1 flow of the port is missing", "table=82,tcp"),
)


def test_a_port_of_a_host_without_the_extension_is_active_without_a_report(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    port = make_port(plain)["id"]
    plain.plug(port)
    assert neutron.state(port) == ("ACTIVE", None)
    plain.unplug(port)
    assert neutron.state(port) == ("DOWN", None)
    plain.plug(port)
    assert neutron.state(port) == ("ACTIVE", None)


def test_a_port_of_our_host_is_down_until_its_report(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)
    assert port["sync_state"] == "SYNCING"
    ours.plug(port["id"])
    assert neutron.state(port["id"]) == ("DOWN", "SYNCING")
    ours.reports(port["id"])
    assert neutron.state(port["id"]) == ("ACTIVE", "IN_SYNC")


def test_an_agent_that_did_not_report_a_bound_port_is_asked_and_only_its_report_makes_it_absent(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]

    def asked() -> bool:
        neutron.do("sweep")
        neutron.do("settle")
        return ["resync", ours.name, [port]] in neutron.do("casts")

    assert not asked()
    neutron.do("later", seconds=11)
    assert asked()
    assert neutron.state(port) == ("DOWN", "SYNCING")
    ours.reports(port, flow=FlowName.UNWIRE)
    assert neutron.state(port) == ("DOWN", "ABSENT")
    assert not asked()


def test_a_bound_port_without_a_report_in_time_is_unknown(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.sends_state("agent_flows")
    neutron.do("later", seconds=61)
    ours.sends_state("agent_flows")
    neutron.do("sweep")
    assert neutron.state(port) == ("DOWN", "UNKNOWN")
    (task,) = neutron.tasks(f"?resource_id={port}&task_state=FAILED")
    assert (task["name"], task["error"]["type"]) == ("await-report", "ReportOverdue")


def test_the_report_alone_does_not_make_it_active_either(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.reports(port)
    assert neutron.state(port) == ("DOWN", "IN_SYNC")
    ours.plug(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize("owner", ["", "compute:nova", "trunk:subport"])
def test_a_port_of_any_vm_owner_waits_for_a_report(
    neutron: Neutron, ours: Host, make_port: MakePort, owner: str
) -> None:
    port = make_port(ours, device_owner=owner)["id"]
    ours.plug(port)
    assert neutron.state(port)[0] == "DOWN"


def test_a_port_of_neutrons_own_services_is_active_and_shows_its_sync_state(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours, device_owner="network:dhcp")["id"]
    ours.plug(port)
    assert neutron.state(port) == ("ACTIVE", "SYNCING")
    ours.reports(port, fails=REFUSAL)
    assert neutron.state(port) == ("ACTIVE", "OUT_OF_SYNC")
    ours.reports(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_failed_wiring_leaves_the_port_down_and_names_the_cause(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    ours.reports(port, fails=REFUSAL)
    assert neutron.state(port) == ("DOWN", "OUT_OF_SYNC")
    (task,) = neutron.tasks(f"?resource_id={port}&task_state=FAILED")
    assert task["name"] == REFUSAL
    assert task["error"]["detail"] == "OFPFMFC_TABLE_FULL"
    ours.reports(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_failed_refresh_takes_an_active_port_down_until_one_succeeds(
    neutron: Neutron, ours: Host, active: str
) -> None:
    ours.reports(active, flow=FlowName.REFRESH, fails=REFUSAL)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")
    ours.reports(active, flow=FlowName.REFRESH)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_found_drift_leaves_an_active_port_active_and_sends_nova_nothing(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.do("nova")
    ours.reports(active, flow=FlowName.AUDIT, tasks=(FOUND,))
    neutron.do("sweep")
    assert neutron.state(active) == ("ACTIVE", "OUT_OF_SYNC")
    (task,) = neutron.tasks(f"?resource_id={active}&flow=audit")
    assert (task["name"], task["task_state"]) == (FOUND.name, "FAILED")
    assert (task["error"]["type"], task["error"]["detail"]) == ("Drift", "table=82,tcp")
    ours.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    assert neutron.do("nova") == []


def test_drift_that_could_not_be_repaired_takes_an_active_port_down(
    neutron: Neutron, ours: Host, active: str
) -> None:
    ours.reports(active, flow=FlowName.AUDIT, tasks=(FOUND,))
    ours.reports(active, fails=REFUSAL)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")


def test_an_operator_can_keep_it_active(neutron: Neutron, ours: Host, active: str) -> None:
    neutron.do("choose", group="agent_flows_server", name="on_refresh_failure", value="keep")
    ours.reports(active, flow=FlowName.REFRESH, fails=REFUSAL)
    assert neutron.state(active) == ("ACTIVE", "OUT_OF_SYNC")


def test_a_replugged_port_is_proven_again(neutron: Neutron, ours: Host, active: str) -> None:
    ours.unplug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.reports(active, flow=FlowName.UNWIRE)
    assert neutron.state(active) == ("DOWN", "ABSENT")
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "ABSENT")
    ours.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_a_refresh_proves_nothing_of_a_port_that_was_unplugged(
    neutron: Neutron, ours: Host, active: str
) -> None:
    ours.unplug(active)
    ours.plug(active)
    ours.reports(active, flow=FlowName.REFRESH)
    assert neutron.state(active)[0] == "DOWN"


def test_an_unwire_reported_before_neutrons_agent_unplugs_takes_the_port_down(
    neutron: Neutron, ours: Host, active: str
) -> None:
    ours.reports(active, flow=FlowName.UNWIRE)
    assert neutron.state(active) == ("DOWN", "ABSENT")
    ours.unplug(active)
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "ABSENT")


def test_a_port_that_is_switched_off_is_down_and_in_sync(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.change(active, admin_state_up=False)
    ours.unplug(active)
    ours.reports(active)
    assert neutron.state(active) == ("DOWN", "IN_SYNC")
    neutron.change(active, admin_state_up=True)
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_another_worker_completes_what_a_dead_worker_decided(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    assert ours.send(ours.report(port), how="die_before_settling")["rejected"] == {}
    neutron.do("sweep")
    assert neutron.state(port) == ("DOWN", "IN_SYNC"), "another worker may be at it"
    neutron.do("later", seconds=31)
    neutron.do("sweep")
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")
    ours.send(ours.report(port, fails=REFUSAL), how="die_before_settling")
    assert neutron.state(port) == ("ACTIVE", "OUT_OF_SYNC")
    neutron.do("later", seconds=62)
    neutron.do("sweep")
    assert neutron.state(port) == ("DOWN", "OUT_OF_SYNC")


def test_two_workers_that_lift_the_last_blocks_at_one_time_do_not_leave_the_port_down(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.reports(port)
    assert neutron.state(port) == ("DOWN", "IN_SYNC")
    neutron.do("lift_at_the_same_time", port=port)
    neutron.do("later", seconds=31)
    neutron.do("sweep")
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_report_that_comes_twice_counts_once(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    report = ours.report(port)
    for _ in range(2):
        assert ours.send(report)["accepted"] == [report.id]
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")
    assert len(neutron.tasks(f"?resource_id={port}&name=bind-vlan")) == 1


def test_a_deleted_port_leaves_its_history_for_a_while(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.rest("DELETE", f"/ports/{active}")
    assert neutron.tasks(f"?resource_id={active}")
    neutron.do("later", seconds=8 * 24 * 3600)
    neutron.do("sweep")
    assert neutron.tasks(f"?resource_id={active}") == []
