"""Ports become ACTIVE by proof on hosts that have our extension, and as ever elsewhere."""

from collections.abc import Callable

import pytest

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import Body, Host, Neutron

MakePort = Callable[..., Body]
REFUSAL = "apply-security-groups"


def test_a_port_of_a_host_without_the_extension_is_active_as_ever(
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
    ours.says(port["id"])
    assert neutron.state(port["id"]) == ("ACTIVE", "IN_SYNC")


def test_an_agent_that_said_nothing_of_a_bound_port_is_asked_and_only_its_word_makes_it_absent(
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
    ours.says(port, flow=FlowName.UNWIRE)
    assert neutron.state(port) == ("DOWN", "ABSENT")
    assert not asked()


def test_a_bound_port_that_no_agent_speaks_of_is_unknown_in_time(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.lives("agent_flows")
    neutron.do("later", seconds=61)
    ours.lives("agent_flows")
    neutron.do("sweep")
    assert neutron.state(port) == ("DOWN", "UNKNOWN")
    (task,) = neutron.tasks(f"?resource_id={port}&task_state=FAILED")
    assert (task["name"], task["error"]["type"]) == ("await-report", "ReportOverdue")


def test_the_report_alone_does_not_make_it_active_either(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.says(port)
    assert neutron.state(port) == ("DOWN", "IN_SYNC")
    ours.plug(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize("owner", ["", "compute:nova", "trunk:subport"])
def test_whoever_owns_the_port_its_vm_waits(
    neutron: Neutron, ours: Host, make_port: MakePort, owner: str
) -> None:
    port = make_port(ours, device_owner=owner)["id"]
    ours.plug(port)
    assert neutron.state(port)[0] == "DOWN"


def test_neutron_never_waits_for_its_own_services_and_still_knows_how_their_ports_are(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours, device_owner="network:dhcp")["id"]
    ours.plug(port)
    assert neutron.state(port) == ("ACTIVE", "SYNCING")
    ours.says(port, fails=REFUSAL)
    assert neutron.state(port) == ("ACTIVE", "OUT_OF_SYNC")
    ours.says(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_failed_wiring_leaves_the_port_down_and_says_why(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    ours.says(port, fails=REFUSAL)
    assert neutron.state(port) == ("DOWN", "OUT_OF_SYNC")
    (task,) = neutron.tasks(f"?resource_id={port}&task_state=FAILED")
    assert task["name"] == REFUSAL
    assert task["error"]["detail"] == "OFPFMFC_TABLE_FULL"
    ours.says(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_failed_refresh_takes_an_active_port_down_until_one_succeeds(
    neutron: Neutron, ours: Host, active: str
) -> None:
    ours.says(active, flow=FlowName.REFRESH, fails=REFUSAL)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")
    ours.says(active, flow=FlowName.REFRESH)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_an_operator_can_keep_it_active(neutron: Neutron, ours: Host, active: str) -> None:
    neutron.do("choose", group="agent_flows_server", name="on_refresh_failure", value="keep")
    ours.says(active, flow=FlowName.REFRESH, fails=REFUSAL)
    assert neutron.state(active) == ("ACTIVE", "OUT_OF_SYNC")


def test_a_replugged_port_is_proven_anew(neutron: Neutron, ours: Host, active: str) -> None:
    ours.unplug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.says(active, flow=FlowName.UNWIRE)
    assert neutron.state(active) == ("DOWN", "ABSENT")
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "ABSENT")
    ours.says(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_a_refresh_proves_nothing_of_a_port_that_was_unplugged(
    neutron: Neutron, ours: Host, active: str
) -> None:
    ours.unplug(active)
    ours.plug(active)
    ours.says(active, flow=FlowName.REFRESH)
    assert neutron.state(active)[0] == "DOWN"


def test_an_unwire_that_comes_before_neutrons_own_news_takes_the_port_down(
    neutron: Neutron, ours: Host, active: str
) -> None:
    ours.says(active, flow=FlowName.UNWIRE)
    assert neutron.state(active) == ("DOWN", "ABSENT")
    ours.unplug(active)
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "ABSENT")


def test_a_port_that_is_switched_off_is_down_and_in_sync(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.change(active, admin_state_up=False)
    ours.unplug(active)
    ours.says(active)
    assert neutron.state(active) == ("DOWN", "IN_SYNC")
    neutron.change(active, admin_state_up=True)
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.says(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_what_was_decided_is_brought_about_though_the_worker_died(
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


def test_two_who_lift_the_last_blocks_at_one_time_do_not_leave_the_port_down(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.says(port)
    assert neutron.state(port) == ("DOWN", "IN_SYNC")
    neutron.do("lift_unheard", port=port)
    neutron.do("later", seconds=31)
    neutron.do("sweep")
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_report_that_comes_twice_counts_once(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    said = ours.report(port)
    for _ in range(2):
        assert ours.send(said)["accepted"] == [said.id]
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
