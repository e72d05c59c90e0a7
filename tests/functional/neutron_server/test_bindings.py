"""A port is looked after on the host it is bound to, and only that host speaks for it."""

from collections.abc import Callable

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import Body, Host, Neutron

MakePort = Callable[..., Body]


def test_invariant_10_a_report_of_another_host_is_refused_and_kept_nowhere(
    neutron: Neutron, ours: Host, active: str
) -> None:
    other = Host(neutron, "agent_flows")
    said = other.report(active, fails="bind-vlan")
    answer = other.send(said)
    assert f"is bound to {ours.name}, not to {other.name}" in answer["rejected"][said.id]
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    assert neutron.tasks(f"?resource_id={active}&host={other.name}") == []


def test_invariant_10_a_host_cannot_send_what_another_is_said_to_have_said(
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
    assert "bound to no host" in rejected[reports[0].id]
    assert "there is no port" in rejected[reports[1].id]


def test_a_port_that_moves_is_proven_on_its_new_host(
    neutron: Neutron, ours: Host, active: str
) -> None:
    other = Host(neutron, "agent_flows")
    late = ours.report(active)
    neutron.change(active, **{"binding:host_id": other.name})
    assert neutron.state(active) == ("DOWN", "SYNCING")
    assert list(ours.send(late)["rejected"]) == [late.id]
    other.plug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    other.says(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_what_was_said_before_a_port_moved_away_and_back_proves_nothing(
    neutron: Neutron, ours: Host, active: str
) -> None:
    late = ours.report(active)
    other = Host(neutron, "agent_flows")
    for host in (other, ours):
        neutron.change(active, **{"binding:host_id": host.name})
    ours.plug(active)
    assert ours.send(late)["accepted"] == [late.id]
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.says(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_an_agent_that_says_nothing_of_extensions_is_served_as_before(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    plain.lives_without_a_word_of_extensions()
    port = make_port(plain)["id"]
    plain.plug(port)
    assert neutron.state(port) == ("ACTIVE", None)


def test_a_port_that_moves_to_a_plain_host_is_neutrons_alone(
    neutron: Neutron, plain: Host, active: str
) -> None:
    neutron.change(active, **{"binding:host_id": plain.name})
    assert neutron.state(active) == ("DOWN", None)
    plain.plug(active)
    assert neutron.state(active) == ("ACTIVE", None)


def test_an_unbound_port_is_nobodys(neutron: Neutron, active: str) -> None:
    neutron.change(active, **{"binding:host_id": ""})
    assert neutron.state(active) == ("DOWN", None)


def test_another_profile_binds_the_port_anew_on_the_same_host(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.change(active, **{"binding:profile": {"tier": "gold"}})
    ours.plug(active)
    assert neutron.state(active) == ("DOWN", "SYNCING")
    ours.says(active)
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
    plain.lives("agent_flows")
    assert neutron.state(port) == ("ACTIVE", None)
    plain.says(port, flow=FlowName.RESYNC)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")
    plain.unplug(port)
    plain.plug(port)
    assert neutron.state(port)[0] == "DOWN"
    plain.says(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_port_that_joins_with_a_failure_goes_down(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    port, unplugged = make_port(plain)["id"], make_port(plain)["id"]
    plain.plug(port)
    plain.lives("agent_flows")
    for each in (port, unplugged):
        plain.says(each, fails="apply-security-groups")
        assert neutron.state(each) == ("DOWN", "OUT_OF_SYNC")
    plain.plug(unplugged)
    assert neutron.state(unplugged) == ("DOWN", "OUT_OF_SYNC")


def test_a_host_that_loses_the_extension_leaves_no_port_behind_a_block(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    assert neutron.state(port)[0] == "DOWN"
    ours.lives("qos")
    assert neutron.state(port) == ("ACTIVE", None)
