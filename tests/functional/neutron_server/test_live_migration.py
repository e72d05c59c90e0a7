"""Live migration: which events Nova receives for the port, and when.

Nova makes a second binding, on the destination, writes ``migrating_to`` into
the profile of the first, has the port plugged in on the destination, waits for
``network-vif-plugged``, moves the machine, and activates the second binding.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import Body, Gating, Host, Neutron

MakePort = Callable[..., Body]
PLUGGED, UNPLUGGED = "network-vif-plugged", "network-vif-unplugged"
REFUSAL = "apply-security-groups"


@dataclass(frozen=True)
class Move:
    """A port of a running machine that Nova is about to move from one host to another."""

    neutron: Neutron
    source: Host
    destination: Host
    port: str

    def begin(self) -> None:
        """As far as Nova goes before it waits."""
        binding = {"binding": {"host": self.destination.name}}
        self.neutron.rest("POST", f"/ports/{self.port}/bindings", binding)
        profile = {"migrating_to": self.destination.name}
        self.neutron.change(self.port, **{"binding:profile": profile})

    def activate(self) -> None:
        self.neutron.rest("PUT", f"/ports/{self.port}/bindings/{self.destination.name}/activate")

    def cancel(self) -> None:
        self.neutron.rest("DELETE", f"/ports/{self.port}/bindings/{self.destination.name}")
        self.neutron.change(self.port, **{"binding:profile": {}})

    def events_at_nova(self) -> list[str]:
        """The events for the port since the last call."""
        self.neutron.do("settle")
        return [name for name, port in self.neutron.do("nova") if port == self.port]


@pytest.fixture
def move(neutron: Neutron, ours: Host, make_port: MakePort) -> Move:
    port = make_port(ours, device_id=str(uuid.uuid4()))["id"]
    moving = Move(neutron, ours, Host(neutron, "agent_flows"), port)
    ours.plug(port)
    ours.reports(port)
    assert moving.events_at_nova() == [PLUGGED]
    return moving


def test_nova_receives_vif_plugged_once_a_new_port_is_proven(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours, device_id=str(uuid.uuid4()))["id"]
    ours.plug(port)
    ours.reports(port, fails=REFUSAL)
    assert neutron.do("nova") == []
    ours.reports(port)
    assert neutron.do("nova") == [[PLUGGED, port]]


def test_nova_receives_vif_unplugged_when_a_running_machines_rules_are_refused(move: Move) -> None:
    move.source.reports(move.port, flow=FlowName.REFRESH, fails=REFUSAL)
    assert move.events_at_nova() == [UNPLUGGED]
    move.source.reports(move.port)
    assert move.events_at_nova() == [PLUGGED]


def test_with_keep_nova_receives_nothing_when_rules_are_refused(move: Move) -> None:
    move.neutron.do("choose", group="agent_flows_server", name="on_refresh_failure", value="keep")
    move.source.reports(move.port, flow=FlowName.REFRESH, fails=REFUSAL)
    assert move.events_at_nova() == []


def test_nova_receives_vif_plugged_only_when_the_destination_proves_the_port(move: Move) -> None:
    move.begin()
    assert move.events_at_nova() == [UNPLUGGED]
    move.destination.plug(move.port)
    assert move.events_at_nova() == [], "Neutron's agent alone proves nothing"
    move.destination.reports(move.port)
    assert move.events_at_nova() == [PLUGGED]


def test_a_failure_on_the_destination_keeps_nova_waiting_and_is_readable(move: Move) -> None:
    move.begin()
    move.events_at_nova()
    move.destination.plug(move.port)
    move.destination.reports(move.port, fails=REFUSAL)
    assert move.events_at_nova() == []
    query = f"?resource_id={move.port}&task_state=FAILED&host={move.destination.name}"
    assert [task["name"] for task in move.neutron.tasks(query)] == [REFUSAL]
    move.destination.reports(move.port)
    assert move.events_at_nova() == [PLUGGED]


def test_an_old_report_of_the_destination_is_no_proof(move: Move) -> None:
    old = move.destination.report(move.port)
    move.begin()
    move.events_at_nova()
    assert move.destination.send(old)["accepted"] == [old.id]
    assert move.events_at_nova() == []
    casts = move.neutron.do("casts")
    assert ["ports_changed", move.destination.name, [move.port]] in casts


def test_invariant_10_reports_of_the_destination_do_not_change_the_ports_state(move: Move) -> None:
    move.begin()
    move.source.reports(move.port, flow=FlowName.RESYNC)
    there = move.neutron.state(move.port)
    assert there == ("DOWN", "IN_SYNC")
    for fields in ({"fails": REFUSAL}, {}, {"flow": FlowName.UNWIRE}):
        move.destination.reports(move.port, **fields)
        assert move.neutron.state(move.port) == there


def test_the_source_is_asked_for_a_report_and_the_port_stays_down_as_neutron_leaves_it(
    move: Move,
) -> None:
    """If it were ACTIVE there, Nova would receive a second vif-unplugged when it is activated."""
    move.neutron.do("casts")
    move.begin()
    move.events_at_nova()
    assert move.neutron.do("casts") == [["resync", move.source.name, [move.port]]]
    move.source.reports(move.port, flow=FlowName.RESYNC)
    assert move.neutron.state(move.port) == ("DOWN", "IN_SYNC")
    move.activate()
    assert move.events_at_nova() == []


def test_after_the_move_the_port_is_proven_again_where_it_is_bound(move: Move) -> None:
    move.begin()
    move.destination.plug(move.port)
    move.destination.reports(move.port)
    move.activate()
    assert move.neutron.state(move.port)[0] == "DOWN"
    move.events_at_nova()
    move.destination.plug(move.port)
    assert move.neutron.state(move.port)[0] == "DOWN"
    move.destination.reports(move.port)
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")
    assert move.events_at_nova() == [PLUGGED]
    late = move.source.report(move.port, flow=FlowName.UNWIRE)
    assert list(move.source.send(late)["rejected"]) == [late.id]
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")


def test_nova_receives_vif_plugged_though_the_bound_hosts_profile_has_migrating_to(
    move: Move,
) -> None:
    destination = move.destination.name
    fields = {"binding:host_id": destination, "binding:profile": {"migrating_to": destination}}
    move.neutron.change(move.port, **fields)
    move.events_at_nova()
    move.destination.plug(move.port)
    move.destination.reports(move.port)
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")
    assert move.events_at_nova() == [PLUGGED]


def test_a_move_that_is_cancelled_ends_with_a_proof_on_the_source(move: Move) -> None:
    move.begin()
    move.destination.reports(move.port)
    move.cancel()
    late = move.destination.report(move.port)
    assert list(move.destination.send(late)["rejected"]) == [late.id]
    move.events_at_nova()
    assert move.neutron.state(move.port)[0] == "DOWN"
    move.source.reports(move.port)
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")
    assert move.events_at_nova() == [PLUGGED]


def test_a_destination_without_the_extension_needs_no_report(move: Move) -> None:
    move.destination.sends_state("qos")
    move.begin()
    move.events_at_nova()
    move.destination.plug(move.port)
    assert move.events_at_nova() == [PLUGGED]
    move.activate()
    move.destination.plug(move.port)
    assert move.neutron.state(move.port) == ("ACTIVE", None)


def test_from_a_source_without_the_extension_the_destination_proves_the_port_too(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    port = make_port(plain, device_id=str(uuid.uuid4()))["id"]
    plain.plug(port)
    move = Move(neutron, plain, Host(neutron, "agent_flows"), port)
    move.begin()
    move.events_at_nova()
    move.destination.plug(port)
    assert move.events_at_nova() == []
    move.destination.reports(port)
    assert move.events_at_nova() == [PLUGGED]
    move.activate()
    move.destination.plug(port)
    move.destination.reports(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_move_that_waits_for_its_proof_goes_on_when_gating_is_turned_off(
    move: Move, gating: Gating
) -> None:
    move.begin()
    move.events_at_nova()
    move.destination.plug(move.port)
    gating("off", "--reason", "reports are lost", "--host", move.source.name)
    assert move.events_at_nova() == [], "it is off for another host"
    gating("off", "--reason", "reports are lost", "--host", move.destination.name)
    assert move.events_at_nova() == [PLUGGED]
    move.neutron.do("sweep")
    assert move.events_at_nova() == []


def test_while_gating_is_off_nova_is_notified_of_a_move_as_by_neutron_alone(
    move: Move, gating: Gating
) -> None:
    gating("off", "--reason", "reports are lost")
    move.begin()
    assert move.events_at_nova() == [UNPLUGGED]
    move.destination.plug(move.port)
    assert move.events_at_nova() == [PLUGGED]
    move.activate()
    move.destination.plug(move.port)
    # Neutron may take it down before it is up again.
    assert move.events_at_nova()[-1:] == [PLUGGED]
    assert move.neutron.state(move.port)[0] == "ACTIVE"


def test_gating_that_is_turned_off_notifies_nova_of_no_move_that_was_cancelled(
    move: Move, gating: Gating
) -> None:
    move.begin()
    move.destination.plug(move.port)
    move.cancel()
    move.source.reports(move.port)
    assert move.events_at_nova() == [UNPLUGGED, PLUGGED]
    gating("off", "--reason", "reports are lost")
    assert move.events_at_nova() == []
