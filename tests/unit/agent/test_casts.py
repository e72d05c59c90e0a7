"""Each cast of the server becomes a request of its kind."""

from typing import Any

import pytest

from agent_flows.agent.control import Control
from agent_flows.agent.knowledge import Knowledge
from agent_flows.supervision import Troubles


class Recorder:
    """All that a Control acts on; records the requests."""

    def __init__(self) -> None:
        self.submitted: list[tuple[set[str], dict[str, bool]]] = []

    def submit(self, port_ids: Any, **kind: bool) -> None:
        self.submitted.append((set(port_ids), kind))

    @property
    def firewall(self) -> "Recorder":
        return self

    def affected_by(self, ids: Any) -> set[str]:
        return {f"port of {group}" for group in ids}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def control(recorder: Recorder) -> Control:
    part: Any = recorder
    return Control(
        part,
        part,
        part,
        part,
        part,
        knowledge=Knowledge(),
        unreported=lambda: False,
        troubles=Troubles(),
    )


def test_ports_named_by_the_server_are_submitted_as_asked(
    control: Control, recorder: Recorder
) -> None:
    control.ports_changed(["a"])
    assert recorder.submitted == [({"a"}, {"asked": True})]


def test_changed_group_keeps_the_backoff_of_its_ports(control: Control, recorder: Recorder) -> None:
    control.security_groups_changed(["g"])
    assert recorder.submitted == [({"port of g"}, {"afresh": False})]


def test_resynced_ports_are_forced(control: Control, recorder: Recorder) -> None:
    control.resync(["a"])
    assert recorder.submitted == [({"a"}, {"forced": True})]
