"""A machine moves while it runs: what Nova hears of its port, and when.

Nova makes a second binding, on the destination, writes ``migrating_to`` into
the profile of the first, has the port plugged in on the destination, waits for
``network-vif-plugged``, moves the machine, and activates the second binding.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import Body, Host, Neutron

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

    def nova_heard(self) -> list[str]:
        """The events about the port since the last question."""
        self.neutron.do("settle")
        return [name for name, port in self.neutron.do("nova") if port == self.port]


@pytest.fixture
def move(neutron: Neutron, ours: Host, make_port: MakePort) -> Move:
    port = make_port(ours, device_id=str(uuid.uuid4()))["id"]
    moving = Move(neutron, ours, Host(neutron, "agent_flows"), port)
    ours.plug(port)
    ours.says(port)
    assert moving.nova_heard() == [PLUGGED]
    return moving


def test_nova_hears_of_a_new_port_when_it_is_proven(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours, device_id=str(uuid.uuid4()))["id"]
    ours.plug(port)
    ours.says(port, fails=REFUSAL)
    assert neutron.do("nova") == []
    ours.says(port)
    assert neutron.do("nova") == [[PLUGGED, port]]


def test_nova_hears_that_a_running_machines_rules_were_refused(move: Move) -> None:
    move.source.says(move.port, flow=FlowName.REFRESH, fails=REFUSAL)
    assert move.nova_heard() == [UNPLUGGED]
    move.source.says(move.port)
    assert move.nova_heard() == [PLUGGED]


def test_with_keep_nova_hears_nothing_of_refused_rules(move: Move) -> None:
    move.neutron.do("choose", group="agent_flows_server", name="on_refresh_failure", value="keep")
    move.source.says(move.port, flow=FlowName.REFRESH, fails=REFUSAL)
    assert move.nova_heard() == []


def test_nova_hears_of_the_destination_only_when_it_is_proven_there(move: Move) -> None:
    move.begin()
    assert move.nova_heard() == [UNPLUGGED]
    move.destination.plug(move.port)
    assert move.nova_heard() == [], "the agent's own word proves nothing"
    move.destination.says(move.port)
    assert move.nova_heard() == [PLUGGED]


def test_a_failure_on_the_destination_keeps_nova_waiting_and_is_readable(move: Move) -> None:
    move.begin()
    move.nova_heard()
    move.destination.plug(move.port)
    move.destination.says(move.port, fails=REFUSAL)
    assert move.nova_heard() == []
    query = f"?resource_id={move.port}&task_state=FAILED&host={move.destination.name}"
    assert [task["name"] for task in move.neutron.tasks(query)] == [REFUSAL]
    move.destination.says(move.port)
    assert move.nova_heard() == [PLUGGED]


def test_an_old_report_of_the_destination_is_no_proof(move: Move) -> None:
    old = move.destination.report(move.port)
    move.begin()
    move.nova_heard()
    assert move.destination.send(old)["accepted"] == [old.id]
    assert move.nova_heard() == []
    casts = move.neutron.do("casts")
    assert ["ports_changed", move.destination.name, [move.port]] in casts


def test_invariant_10_the_destination_does_not_speak_for_the_source(move: Move) -> None:
    move.begin()
    move.source.says(move.port, flow=FlowName.RESYNC)
    there = move.neutron.state(move.port)
    assert there == ("ACTIVE", "IN_SYNC")
    for said in ({"fails": REFUSAL}, {}, {"flow": FlowName.UNWIRE}):
        move.destination.says(move.port, **said)
        assert move.neutron.state(move.port) == there


def test_the_source_is_asked_what_stands_there_and_its_answer_tells_nova_nothing(
    move: Move,
) -> None:
    move.neutron.do("casts")
    move.begin()
    move.nova_heard()
    assert move.neutron.do("casts") == [["resync", move.source.name, [move.port]]]
    move.source.says(move.port, flow=FlowName.RESYNC)
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")
    assert move.nova_heard() == []


def test_after_the_move_the_port_is_proven_once_more_where_it_is_bound(move: Move) -> None:
    move.begin()
    move.destination.plug(move.port)
    move.destination.says(move.port)
    move.activate()
    assert move.neutron.state(move.port)[0] == "DOWN"
    move.nova_heard()
    move.destination.plug(move.port)
    assert move.neutron.state(move.port)[0] == "DOWN"
    move.destination.says(move.port)
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")
    assert move.nova_heard() == [PLUGGED]
    late = move.source.report(move.port, flow=FlowName.UNWIRE)
    assert list(move.source.send(late)["rejected"]) == [late.id]
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")


def test_a_binding_that_still_says_it_is_being_moved_here_does_not_keep_the_news_from_nova(
    move: Move,
) -> None:
    destination = move.destination.name
    fields = {"binding:host_id": destination, "binding:profile": {"migrating_to": destination}}
    move.neutron.change(move.port, **fields)
    move.nova_heard()
    move.destination.plug(move.port)
    move.destination.says(move.port)
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")
    assert move.nova_heard() == [PLUGGED]


def test_a_move_that_is_cancelled_ends_with_a_proof_on_the_source(move: Move) -> None:
    move.begin()
    move.destination.says(move.port)
    move.cancel()
    late = move.destination.report(move.port)
    assert list(move.destination.send(late)["rejected"]) == [late.id]
    move.nova_heard()
    assert move.neutron.state(move.port)[0] == "DOWN"
    move.source.says(move.port)
    assert move.neutron.state(move.port) == ("ACTIVE", "IN_SYNC")
    assert move.nova_heard() == [PLUGGED]


def test_a_destination_without_the_extension_is_believed_as_ever(move: Move) -> None:
    move.destination.lives("qos")
    move.begin()
    move.nova_heard()
    move.destination.plug(move.port)
    assert move.nova_heard() == [PLUGGED]
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
    move.nova_heard()
    move.destination.plug(port)
    assert move.nova_heard() == []
    move.destination.says(port)
    assert move.nova_heard() == [PLUGGED]
    move.activate()
    move.destination.plug(port)
    move.destination.says(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")
