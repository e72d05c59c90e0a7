"""Each cast of the server becomes a request of its kind."""

import threading
from typing import Any

import pytest

from agent_flows.agent.catch_up import CatchUp
from agent_flows.rpc.desired import Update
from agent_flows.supervision import Troubles


class Recorder:
    """All that a CatchUp acts on; records the requests."""

    def __init__(self) -> None:
        self.submitted: list[tuple[set[str], dict[str, bool]]] = []
        self.learnt = threading.Event()
        self.followed: list[Update] = []
        self.fits = True

    def submit(self, port_ids: Any, **kind: bool) -> None:
        self.submitted.append((set(port_ids), kind))

    @property
    def knowledge(self) -> "Recorder":
        return self

    def may_have(self, ids: Any) -> bool:
        return "g" in ids

    def learn(self, port_ids: Any) -> None:
        self.learnt.set()

    def follow(self, change: Any) -> bool:
        self.followed.append(change)
        return self.fits


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def catch_up(recorder: Recorder) -> CatchUp:
    part: Any = recorder
    return CatchUp(part, part, part, part, unreported=lambda: False, troubles=Troubles())


def test_ports_named_by_the_server_are_submitted_as_asked(
    catch_up: CatchUp, recorder: Recorder
) -> None:
    catch_up.ports_changed(["a"])
    assert recorder.submitted == [({"a"}, {"asked": True})]


def test_a_changed_group_is_read_if_it_matters_here(catch_up: CatchUp, recorder: Recorder) -> None:
    catch_up.security_groups_changed(["another"])
    catch_up.security_groups_changed(["g"])
    catch_up._step()
    assert recorder.learnt.is_set()


def test_a_change_that_a_cast_carries_is_learnt_without_asking(
    catch_up: CatchUp, recorder: Recorder
) -> None:
    first, second = Update(gone=["1"]), Update(gone=["2"])
    catch_up.security_groups_changed(["another"], Update())
    catch_up.security_groups_changed(["g"], first)
    catch_up.security_groups_changed(["g"], second)
    catch_up._step()
    assert recorder.followed == [first, second]
    assert not recorder.learnt.is_set()


def test_the_server_is_asked_if_a_change_does_not_fit(
    catch_up: CatchUp, recorder: Recorder
) -> None:
    recorder.fits = False
    catch_up.security_groups_changed(["g"], Update(gone=["1"]))
    catch_up.security_groups_changed(["g"], Update(gone=["2"]))
    catch_up._step()
    assert recorder.learnt.is_set()
    assert len(recorder.followed) == 1


def test_in_place_of_a_flood_of_changes_the_server_is_asked_once(
    catch_up: CatchUp, recorder: Recorder
) -> None:
    for _ in range(65):
        catch_up.security_groups_changed(["g"], Update())
    catch_up._step()
    assert recorder.learnt.is_set()
    assert recorder.followed == []


def test_ports_of_a_changed_group_keep_their_backoff(catch_up: CatchUp, recorder: Recorder) -> None:
    catch_up.ports_of_groups_changed(["a"])
    assert recorder.submitted == [({"a"}, {"afresh": False})]


def test_resynced_ports_are_forced(catch_up: CatchUp, recorder: Recorder) -> None:
    catch_up.resync(["a"])
    assert recorder.submitted == [({"a"}, {"forced": True})]
