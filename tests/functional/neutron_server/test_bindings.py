"""Only the host that a port is bound to may report on it."""

from collections.abc import Callable

from agent_flows.report import FlowName
from agent_flows.rpc.answers import MOVED_AWAY, NO_BINDING, is_no_fault
from tests.functional.neutron_server.stage import Body, Host, Neutron

MakePort = Callable[..., Body]


def test_invariant_10_a_report_of_another_host_is_refused_and_kept_nowhere(
    neutron: Neutron, ours: Host, active: str
) -> None:
    other = Host(neutron, "agent_flows")
    report = other.report(active, fails="bind-vlan")
    answer = other.send(report)
    reason = answer["rejected"][report.id]
    assert f"is bound to {ours.name}, not to {other.name}" in reason
    assert not is_no_fault(reason)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    assert neutron.tasks(f"?resource_id={active}&host={other.name}") == []


def test_invariant_10_a_report_sent_in_another_hosts_name_is_refused(
    neutron: Neutron, ours: Host, active: str
) -> None:
    other = Host(neutron, "agent_flows")
    forged = ours.report(active, fails="bind-vlan")
    assert list(other.send(forged)["rejected"]) == [forged.id]
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_reports_on_ports_that_are_unbound_or_not_there_are_refused(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    unbound, gone = make_port()["id"], make_port(ours)["id"]
    reports = [ours.report(unbound), ours.report(gone)]
    neutron.rest("DELETE", f"/ports/{gone}")
    rejected = ours.send(*reports)["rejected"]
    assert rejected[reports[0].id].startswith(NO_BINDING)
    assert "there is no port" in rejected[reports[1].id]


def test_a_port_that_moves_is_proven_on_its_new_host(
    neutron: Neutron, ours: Host, active: str
) -> None:
    other = Host(neutron, "agent_flows")
    late = ours.report(active)
    neutron.change(active, **{"binding:host_id": other.name})
    assert neutron.state(active) == ("DOWN", "SYNCING")
    assert ours.send(late)["rejected"][late.id].startswith(MOVED_AWAY)
    other.plug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    other.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_a_report_from_before_a_port_moved_away_and_back_proves_nothing(
    neutron: Neutron, ours: Host, active: str
) -> None:
    late = ours.report(active)
    other = Host(neutron, "agent_flows")
    for host in (other, ours):
        neutron.change(active, **{"binding:host_id": host.name})
    ours.plug(active)
    assert ours.send(late)["accepted"] == [late.id]
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_an_agent_that_lists_no_extensions_is_served_as_before(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    plain.sends_state_without_extensions()
    port = make_port(plain)["id"]
    plain.plug(port)
    assert neutron.state(port) == ("ACTIVE", None)


def test_a_port_that_moves_to_a_plain_host_is_active_without_a_report(
    neutron: Neutron, plain: Host, active: str
) -> None:
    neutron.change(active, **{"binding:host_id": plain.name})
    assert neutron.state(active) == ("DOWN", None)
    plain.plug(active)
    assert neutron.state(active) == ("ACTIVE", None)


def test_an_unbound_port_has_no_sync_state(neutron: Neutron, active: str) -> None:
    neutron.change(active, **{"binding:host_id": ""})
    assert neutron.state(active) == ("DOWN", None)


def test_a_port_with_another_binding_profile_is_proven_again(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.change(active, **{"binding:profile": {"tier": "gold"}})
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_a_binding_that_fails_is_not_waited_for(neutron: Neutron, make_port: MakePort) -> None:
    port = make_port(**{"binding:host_id": "host-without-any-agent"})
    assert port["binding:vif_type"] == "binding_failed"
    assert neutron.state(port["id"]) == ("DOWN", None)


def test_ports_that_were_there_before_the_extension_join_with_their_first_report(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    port = make_port(plain)["id"]
    plain.plug(port)
    plain.sends_state("agent_flows")
    assert neutron.state(port) == ("ACTIVE", None)
    plain.reports(port, flow=FlowName.RESYNC)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")
    plain.unplug(port)
    plain.plug(port)
    assert neutron.state(port)[0] == "DOWN"
    plain.reports(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_port_that_joins_with_a_failure_goes_down(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    port, unplugged = make_port(plain)["id"], make_port(plain)["id"]
    plain.plug(port)
    plain.sends_state("agent_flows")
    for failing in (port, unplugged):
        plain.reports(failing, fails="apply-security-groups")
        assert neutron.state(failing) == ("DOWN", "OUT_OF_SYNC")
    plain.plug(unplugged)
    assert neutron.state(unplugged) == ("DOWN", "OUT_OF_SYNC")


def test_a_host_that_loses_the_extension_leaves_no_port_behind_a_block(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    assert neutron.state(port)[0] == "DOWN"
    ours.sends_state("qos")
    assert neutron.state(port) == ("ACTIVE", None)
