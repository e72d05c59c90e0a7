"""When a difference found inside Neutron's agent counts."""

from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

from agent_flows.engine.drift import NONE, Suspicion
from agent_flows.engine.port_life import Applied, Life, Phase, Request
from agent_flows.engine.port_table import PortTable
from agent_flows.neutron.agent.auditor import DriverAuditor, suspicion_of
from agent_flows.neutron.agent.wiring import Look
from agent_flows.neutron.interfaces import Interface
from agent_flows.openflow import wiring
from agent_flows.openflow.monitor import Changes
from agent_flows.report import Step
from agent_flows.spec import NetworkSpec
from agent_flows.supervision import Backoff
from agent_flows.validation import parse

PORT = "11111111-1111-1111-1111-111111111111"
NETWORK = parse(
    pydantic.TypeAdapter(NetworkSpec),
    {"id": "22222222-2222-2222-2222-222222222222", "network_type": "local"},
)
WRONG = {PORT: wiring.wrong_tag("tap1", 999, 1)}
ONE = Suspicion(port_ids=frozenset({PORT}))


class Host:
    """One proven port; ``looks`` are what the looks at its wiring find, one after the other."""

    def __init__(self, *looks: Look, meanwhile: Callable[["Host"], object] = lambda _: None):
        self.table = PortTable(10, Backoff(1, 1))
        self.prove()
        self._looks = list(looks)
        self.wiring = self
        # Its flows are not looked at: it is not intact.
        switch: Any = SimpleNamespace(wiring=self, firewall=None)
        self.seconds = 0.0
        self.auditor = DriverAuditor(
            switch,
            self.table,
            lambda: False,
            pause=lambda _: meanwhile(self),
            clock=lambda: self.seconds,
        )

    def prove(self) -> None:
        applied = Applied(Interface("tap1", 1, 1, NETWORK, None, row=7), None, None, proven=True)
        self.table._lives[PORT] = Life(Request(PORT), Phase.PROVEN, applied=applied)

    def look(self, before: Mapping[str, Interface]) -> Look:
        return self._looks.pop(0)

    def found(self) -> Collection[str]:
        drifts = self.auditor.compare(ONE)
        assert all(drift.step is Step.L2 for drift in drifts.values())
        return set(drifts)


def look(errors: Mapping[str, Any], *replugged: str) -> Look:
    return Look(errors, frozenset(replugged))


def test_what_is_wrong_at_two_looks_is_drift() -> None:
    assert Host(look(WRONG), look(WRONG)).found() == {PORT}


def test_what_neutrons_agent_was_just_changing_is_no_drift() -> None:
    assert Host(look(WRONG), look({})).found() == set()


def test_what_is_right_is_looked_at_once() -> None:
    assert Host(look({})).found() == set()


@pytest.mark.parametrize("looks", [(look(WRONG, PORT),), (look(WRONG), look(WRONG, PORT))])
def test_a_port_that_was_plugged_in_again_has_no_drift(looks: tuple[Look, ...]) -> None:
    assert Host(*looks).found() == set()


def elsewhere() -> Look:
    return Look({}, frozenset({PORT}), frozenset({PORT}))


def test_a_port_that_neutrons_agent_does_not_wire_again_is_drift() -> None:
    host = Host(*[elsewhere()] * 4)
    assert host.found() == set()
    host.seconds = 19.0
    assert host.found() == set()
    host.seconds = 20.0
    assert host.found() == {PORT}


def test_a_port_has_no_drift_while_neutrons_agent_wires_it_each_time() -> None:
    host = Host(*[elsewhere()] * 2)
    assert host.found() == set()
    host.seconds = 20.0
    host.prove()
    assert host.found() == set()


def test_a_port_that_is_back_where_it_was_begins_anew_when_it_leaves_again() -> None:
    host = Host(elsewhere(), look({}), elsewhere())
    assert host.found() == set()
    host.seconds = 20.0
    # It is back, and then elsewhere again.
    assert host.found() == set()
    assert host.found() == set()


def test_a_port_is_not_elsewhere_while_ovsdb_does_not_answer() -> None:
    host = Host(*[look(WRONG, PORT)] * 2)
    assert host.found() == set()
    host.seconds = 20.0
    assert host.found() == set()


def test_a_port_whose_flow_ran_meanwhile_has_no_drift() -> None:
    assert Host(look(WRONG), look(WRONG), meanwhile=Host.prove).found() == set()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (Changes(), NONE),
        (Changes(foreign=frozenset({7})), NONE),
        (Changes(foreign=frozenset({7, 8})), Suspicion(bridges=frozenset({"br-int"}))),
        (Changes(modified=True), Suspicion(bridges=frozenset({"br-int"}))),
        (Changes(deleted=frozenset({5})), Suspicion(deleted=frozenset({5}))),
        (Changes(paused=True), Suspicion(counted=True)),
        (Changes(missed=True), Suspicion(bridges=frozenset({"br-int"}))),
    ],
)
def test_only_changes_of_unknown_owners_are_suspicious(
    changes: Changes, expected: Suspicion
) -> None:
    assert suspicion_of("br-int", changes, lambda value: value == 7) == expected
