"""While gating is off, ports of Neutron become ACTIVE as without agent_flows, and stay what they
are when it is on again."""

from collections.abc import Callable

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import Body, Gating, Host, Neutron

MakePort = Callable[..., Body]

BUG = "reports are lost"
REFUSAL = "apply-security-groups"


def test_a_port_whose_reports_never_come_is_active_while_gating_is_off_and_down_while_it_is_on(
    neutron: Neutron, ours: Host, make_port: MakePort, gating: Gating
) -> None:
    gating("off", "--reason", BUG)
    port = make_port(ours)["id"]
    assert neutron.state(port) == ("DOWN", "SYNCING")
    ours.plug(port)
    assert neutron.state(port) == ("ACTIVE", "SYNCING")
    gating("on")
    assert neutron.state(port) == ("ACTIVE", "SYNCING")
    other = make_port(ours)["id"]
    ours.plug(other)
    assert neutron.state(other) == ("DOWN", "SYNCING")


def test_ports_that_wait_for_their_proof_become_active_when_gating_is_turned_off(
    neutron: Neutron, ours: Host, make_port: MakePort, gating: Gating
) -> None:
    plugged, unplugged, failed = (make_port(ours)["id"] for _ in range(3))
    ours.plug(plugged)
    ours.plug(failed)
    ours.reports(failed, fails=REFUSAL)
    gating("off", "--reason", BUG, "--host", ours.name)
    assert neutron.state(plugged) == ("ACTIVE", "SYNCING")
    assert neutron.state(failed) == ("ACTIVE", "OUT_OF_SYNC")
    assert neutron.state(unplugged) == ("DOWN", "SYNCING")
    gating("on")
    ours.plug(unplugged)
    assert neutron.state(unplugged) == ("DOWN", "SYNCING")
    ours.reports(unplugged)
    assert neutron.state(unplugged) == ("ACTIVE", "IN_SYNC")


def test_a_port_that_its_agent_took_down_waits_for_its_agent(
    neutron: Neutron, ours: Host, active: str, gating: Gating
) -> None:
    ours.unplug(active)
    assert neutron.state(active)[0] == "DOWN"
    gating("off", "--reason", BUG)
    assert neutron.state(active)[0] == "DOWN"
    ours.plug(active)
    assert neutron.state(active)[0] == "ACTIVE"
    ours.unplug(active)
    assert neutron.state(active)[0] == "DOWN"


def test_a_failed_report_takes_no_port_down_until_gating_is_on_again(
    neutron: Neutron, ours: Host, active: str, gating: Gating
) -> None:
    gating("off", "--reason", BUG)
    ours.reports(active, flow=FlowName.REFRESH, fails=REFUSAL)
    assert neutron.state(active) == ("ACTIVE", "OUT_OF_SYNC")
    gating("on")
    assert neutron.state(active) == ("ACTIVE", "OUT_OF_SYNC")
    ours.reports(active, flow=FlowName.REFRESH, fails=REFUSAL)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")


def test_other_hosts_are_gated_as_before(
    neutron: Neutron, ours: Host, make_port: MakePort, gating: Gating
) -> None:
    gating("off", "--reason", BUG, "--host", "another-host")
    port = make_port(ours)["id"]
    ours.plug(port)
    assert neutron.state(port) == ("DOWN", "SYNCING")


def test_the_api_shows_why_gating_is_off(neutron: Neutron, ours: Host, gating: Gating) -> None:
    gating("off", "--reason", BUG, "--host", ours.name)
    found = neutron.rest("GET", f"/agent-flows-agents/{ours.name}")["agent_flows_agent"]
    assert found["gating_off"]["reason"] == BUG
    gating("on")
    found = neutron.rest("GET", f"/agent-flows-agents/{ours.name}")["agent_flows_agent"]
    assert found["gating_off"] is None
