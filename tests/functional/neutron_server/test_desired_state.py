"""Changes of desired state make a port wait for a new report."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import Body, Host, Neutron

MakePort = Callable[..., Body]


@pytest.mark.parametrize("fields", [{"name": "new"}, {"description": "new"}])
def test_a_change_that_no_wiring_depends_on_needs_no_report(
    neutron: Neutron, ours: Host, active: str, fields: dict[str, Any]
) -> None:
    before = ours.report(active)
    neutron.change(active, **fields)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    assert ours.send(before)["accepted"] == [before.id]
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    ours.reports(active, flow=FlowName.REFRESH)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize(
    "fields",
    [
        {"fixed_ips": [{"ip_address": "10.0.200.7"}]},
        {"allowed_address_pairs": [{"ip_address": "192.0.2.0/24"}]},
        {"security_groups": []},
        {"security_groups": [], "port_security_enabled": False},
        {"device_owner": "compute:other"},
    ],
    ids="-".join,
)
def test_a_change_that_the_wiring_depends_on_needs_a_report(
    neutron: Neutron, ours: Host, active: str, fields: dict[str, Any]
) -> None:
    before = ours.report(active)
    assert neutron.change(active, **fields)["sync_state"] == "SYNCING"
    assert neutron.state(active) == ("ACTIVE", "SYNCING")
    neutron.do("casts")
    assert ours.send(before)["accepted"] == [before.id]
    assert neutron.state(active) == ("ACTIVE", "SYNCING")
    # Its agent may not know that there is something newer.
    assert neutron.do("casts") == [["ports_changed", ours.name, [active]]]
    ours.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_a_refresh_alone_does_not_prove_a_changed_port(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.change(active, fixed_ips=[{"ip_address": "10.0.200.8"}])
    ours.reports(active, flow=FlowName.REFRESH)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")


@pytest.fixture
def group(neutron: Neutron) -> str:
    made: str = neutron.create("security-groups", name="web")["id"]
    return made


def add_rule(neutron: Neutron, group: str) -> str:
    made: str = neutron.create(
        "security-group-rules",
        security_group_id=group,
        direction="ingress",
        protocol="tcp",
        port_range_min=80,
        port_range_max=80,
    )["id"]
    return made


def test_a_rule_that_is_added_or_deleted_makes_every_port_of_the_group_wait(
    neutron: Neutron, ours: Host, make_port: MakePort, group: str, active: str
) -> None:
    ports = [make_port(ours, security_groups=[group])["id"] for _ in range(2)]
    for port in ports:
        ours.plug(port)
        ours.reports(port)
    before = ours.report(ports[0], flow=FlowName.REFRESH)
    rule = add_rule(neutron, group)
    assert [neutron.state(port) for port in ports] == [("ACTIVE", "SYNCING")] * 2
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    ours.send(before)
    assert neutron.state(ports[0]) == ("ACTIVE", "SYNCING")
    ours.reports(ports[0], flow=FlowName.REFRESH)
    assert neutron.state(ports[0]) == ("ACTIVE", "IN_SYNC")
    neutron.rest("DELETE", f"/security-group-rules/{rule}")
    assert neutron.state(ports[0]) == ("ACTIVE", "SYNCING")
    ours.reports(ports[0], flow=FlowName.REFRESH)
    assert neutron.state(ports[0]) == ("ACTIVE", "IN_SYNC")


def test_a_port_that_is_not_plugged_waits_for_nothing(
    neutron: Neutron, ours: Host, make_port: MakePort, group: str
) -> None:
    port = make_port(ours, security_groups=[group])["id"]
    ours.reports(port, flow=FlowName.UNWIRE)
    add_rule(neutron, group)
    neutron.change(port, fixed_ips=[{"ip_address": "10.0.200.9"}])
    assert neutron.state(port) == ("DOWN", "ABSENT")
    neutron.do("later", seconds=100)
    ours.sends_state("agent_flows")
    neutron.do("sweep")
    assert neutron.state(port) == ("DOWN", "ABSENT")


def test_without_a_report_in_time_a_port_is_unknown_and_the_agent_is_asked_again(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.change(active, fixed_ips=[{"ip_address": "10.0.200.10"}])
    neutron.do("later", seconds=61)
    neutron.do("sweep")
    assert neutron.state(active) == ("ACTIVE", "UNKNOWN")
    (task,) = neutron.tasks(f"?resource_id={active}&task_state=FAILED")
    assert (task["name"], task["error"]["type"]) == ("await-report", "ReportOverdue")
    assert ["resync", ours.name, [active]] in neutron.do("casts")
    ours.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_ports_of_a_silent_agent_are_unknown_until_it_is_back(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.do("later", seconds=76)
    neutron.do("sweep")
    assert neutron.state(active) == ("ACTIVE", "UNKNOWN")
    (task,) = neutron.tasks(f"?resource_id={active}&task_state=FAILED")
    assert task["error"]["type"] == "AgentSilent"
    neutron.do("casts")
    ours.sends_state("agent_flows")
    assert neutron.state(active) == ("ACTIVE", "SYNCING")
    assert neutron.do("casts") == [["resync", ours.name, [active]]]


def test_a_revision_that_neutron_never_had_proves_nothing(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    ours.reports(port, revision=1_000)
    assert neutron.state(port) == ("DOWN", "SYNCING")


def test_a_report_that_lacks_a_group_of_the_port_proves_nothing(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    ours.reports(port, security_group_revisions={})
    assert neutron.state(port) == ("DOWN", "SYNCING")


def test_trusted_and_open_ports_have_no_groups_to_name(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours, port_security_enabled=False)["id"]
    ours.plug(port)
    ours.reports(port, security_group_revisions={})
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")
