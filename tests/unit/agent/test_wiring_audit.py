"""Only what a proven port was seen to lack, while no flow of it ran, is its drift."""

import contextlib
import dataclasses
import types
import uuid
from typing import Any

import pytest

from agent_flows.agent.wiring_audit import WiringAudit
from agent_flows.engine.port_life import Applied, Event, Life, Phase, Request
from agent_flows.errors import ErrorType
from agent_flows.l2 import interfaces, links
from agent_flows.l2.bindings import Binding, Carried
from agent_flows.l2.interfaces import Interface
from agent_flows.report import TaskError
from agent_flows.spec import NetworkSpec, NetworkType

ONE = str(uuid.UUID(int=1))
NETWORK = NetworkSpec(str(uuid.UUID(int=99)), NetworkType.LOCAL)
INTERFACE = Interface(ONE, "tap1", "", 7)
APPLIED = Applied(INTERFACE, types.SimpleNamespace(network=NETWORK), None, proven=True)
RIGHT = Carried(5, Binding("tap1", 5, NETWORK).columns["other_config"])


class Host:
    """A host with one port, whose parts the test changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.life = Life(Request(ONE), Phase.PROVEN, applied=APPLIED)
        self.row, self.interface = RIGHT, INTERFACE
        self.link: TaskError | None = None
        self.blocked: dict[int, tuple[str, ...]] = {}
        monkeypatch.setattr(interfaces, "find", self._find)
        monkeypatch.setattr(
            links, "verify_links", lambda _: {} if self.link is None else {"tap1": self.link}
        )
        switch: Any = types.SimpleNamespace(
            bridge="br-int",
            ovsdb=types.SimpleNamespace(reading=contextlib.nullcontext),
            bindings=types.SimpleNamespace(carried=lambda _: {"tap1": self.row}),
            networks=types.SimpleNamespace(vlans=lambda: {NETWORK.id: 5}),
            ofctl=types.SimpleNamespace(blocked=lambda: self.blocked),
        )
        table: Any = types.SimpleNamespace(lives=lambda: {ONE: self.life})
        self.audit = WiringAudit(switch, table, clock=lambda: self.now)
        self.while_looking = lambda: None

    def _find(self, _ovsdb: object, _bridge: str, port_ids: Any) -> dict[str, Interface]:
        self.while_looking()
        return {ONE: self.interface} if ONE in port_ids else {}

    def found(self, **more: Any) -> list[str]:
        return [drift.error.message for drift in self.audit.compare(None, **more).values()]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_a_port_as_it_was_proven_is_not_found(host: Host) -> None:
    assert host.found(ask_switch=True) == []


def test_a_changed_tag_is_found(host: Host) -> None:
    host.row = dataclasses.replace(RIGHT, tag=999)
    assert host.found() == ["the tag of tap1 is 999 instead of 5"]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.PROVEN])
def test_a_port_in_another_phase_is_not_compared(host: Host, phase: Phase) -> None:
    host.row = dataclasses.replace(RIGHT, tag=999)
    host.life = dataclasses.replace(host.life, phase=phase)
    assert host.found() == []


def test_a_port_whose_flow_ran_while_it_was_looked_at_is_not_found(host: Host) -> None:
    def run_a_flow() -> None:
        claimed = host.life.moved(Event.SUBMIT).moved(Event.CLAIM)
        host.life = claimed.moved(Event.PROVE)

    host.row = dataclasses.replace(RIGHT, tag=4095)
    host.while_looking = run_a_flow
    assert host.found() == []
    host.while_looking = lambda: None
    assert host.found() == ["the tag of tap1 is 4095 instead of 5"]


def test_a_missing_link_is_found_only_if_its_port_is_not_unplugged_soon(host: Host) -> None:
    host.link = TaskError(ErrorType.LINK_NOT_FOUND, "there is no link tap1 on this host")
    host.interface = dataclasses.replace(INTERFACE, ofport=None, error="no such device")
    assert host.found() == []
    host.interface = INTERFACE
    host.now += 4
    assert host.found() == []
    host.now += 2
    assert host.found() == ["there is no link tap1 on this host"]
    host.link = None
    assert host.found() == []
    host.link = TaskError(ErrorType.LINK_NOT_FOUND, "there is no link tap1 on this host")
    assert host.found() == []


def test_what_only_the_switch_shows_is_asked_for_on_request(host: Host) -> None:
    host.blocked = {7: ("receive",), 8: ("forward",)}
    assert host.found() == []
    assert host.found(ask_switch=True) == ["OpenFlow port tap1 must not receive packets"]
