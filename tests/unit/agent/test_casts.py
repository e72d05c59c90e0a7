"""What the server casts becomes a request of the right kind."""

from typing import Any

import pytest

from agent_flows.agent.control import Control
from agent_flows.supervision import Troubles


class Recorder:
    """Stands for all that a Control acts on, and records what is submitted."""

    def __init__(self) -> None:
        self.submitted: list[tuple[set[str], dict[str, bool]]] = []

    def submit(self, port_ids: Any, **kind: bool) -> None:
        self.submitted.append((set(port_ids), kind))

    @property
    def firewall(self) -> "Recorder":
        return self

    def affected_by(self, ids: Any) -> set[str]:
        return {f"port of {each}" for each in ids}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def control(recorder: Recorder) -> Control:
    every: Any = recorder
    return Control(every, every, every, every, troubles=Troubles())


def test_ports_the_server_names_are_asked_for(control: Control, recorder: Recorder) -> None:
    control.ports_changed(["a"])
    assert recorder.submitted == [({"a"}, {"asked": True})]


def test_a_change_of_a_group_does_not_undo_the_backoff_of_its_ports(
    control: Control, recorder: Recorder
) -> None:
    control.security_groups_changed(["g"])
    assert recorder.submitted == [({"port of g"}, {"afresh": False})]


def test_ports_to_be_resynced_are_forced(control: Control, recorder: Recorder) -> None:
    control.resync(["a"])
    assert recorder.submitted == [({"a"}, {"forced": True})]
