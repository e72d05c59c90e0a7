"""The agent's client validates the answers of the server."""

from typing import Any

import oslo_messaging
import pytest

from agent_flows.rpc.agent import ServerClient, host_taken
from agent_flows.rpc.answers import Held, Receipt
from agent_flows.rpc.revisions import Revisions
from agent_flows.validation import Invalid
from tests.unit.rpc.consumer import PORT


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ServerClient:
    monkeypatch.setattr(oslo_messaging, "get_rpc_client", lambda *_, **__: None)
    return ServerClient(None, "host-1", 1.0)


def answering(monkeypatch: pytest.MonkeyPatch, client: ServerClient, answer: Any) -> None:
    monkeypatch.setattr(client, "_call", lambda *_, **__: answer)


GOOD = {"accepted": [], "rejected": {}, "sequence": 3, "clock": 4}
INVALID: list[Any] = [
    None,
    [],
    "ok",
    {},
    {**GOOD, "accepted": None},
    {**GOOD, "accepted": [1]},
    {**GOOD, "rejected": ["a"]},
    {**GOOD, "rejected": {"a": None}},
    {**GOOD, "sequence": "3"},
    {**GOOD, "sequence": -1},
    {**GOOD, "sequence": 3.5},
    {**GOOD, "clock": "noon"},
    {**GOOD, "desired": None},
    {**GOOD, "desired": "0" * 31},
    {**GOOD, "desired": "0" * 32 + "\n"},
    {**GOOD, "desired": "A" * 32},
]


@pytest.mark.parametrize("answer", INVALID, ids=repr)
def test_an_invalid_answer_to_reports_is_refused(
    monkeypatch: pytest.MonkeyPatch, client: ServerClient, answer: Any
) -> None:
    answering(monkeypatch, client, answer)
    with pytest.raises(Invalid):
        client.report([])


@pytest.mark.parametrize("answer", [*INVALID[:4], *INVALID[-8:]], ids=repr)
def test_an_invalid_answer_to_a_heartbeat_is_refused(
    monkeypatch: pytest.MonkeyPatch, client: ServerClient, answer: Any
) -> None:
    answering(monkeypatch, client, answer)
    with pytest.raises(Invalid):
        client.heartbeat({})


def test_fields_of_a_newer_server_are_ignored_and_an_older_one_has_no_clock(
    monkeypatch: pytest.MonkeyPatch, client: ServerClient
) -> None:
    answering(monkeypatch, client, {**GOOD, "mood": "fine"})
    assert client.report([]) == Receipt(3, 4, accepted=[], rejected={})
    answering(monkeypatch, client, {"sequence": 3})
    assert client.heartbeat({}) == Held(3, 0)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"ports": [], "security_groups": {}},
        {"ports": {"../etc": 1}, "security_groups": {}},
        {"ports": {PORT: -1}, "security_groups": {}},
        {"ports": {PORT: "1"}, "security_groups": {}},
        {"ports": {}, "security_groups": {PORT: 2**62}},
        {"ports": {}, "security_groups": {}, "awaited": ["all"]},
        {"ports": {}, "security_groups": {}, "awaited": PORT},
        {"ports": {}, "security_groups": {}, "members": {"all": 1}},
        {"ports": {}, "security_groups": {}, "address_groups": {PORT: 1.5}},
    ],
    ids=repr,
)
def test_invalid_revisions_are_refused(
    monkeypatch: pytest.MonkeyPatch, client: ServerClient, answer: Any
) -> None:
    answering(monkeypatch, client, answer)
    with pytest.raises(Invalid):
        client.get_revisions()


@pytest.mark.parametrize(
    "answer", [None, [], {"all": 1}, {PORT: -1}, {PORT: {}}, {"\n": 1}], ids=repr
)
def test_invalid_members_are_refused(
    monkeypatch: pytest.MonkeyPatch, client: ServerClient, answer: Any
) -> None:
    answering(monkeypatch, client, answer)
    with pytest.raises(Invalid):
        client.get_members(PORT)


def test_revisions_of_a_newer_server_may_have_more_fields(
    monkeypatch: pytest.MonkeyPatch, client: ServerClient
) -> None:
    answering(monkeypatch, client, {"ports": {PORT: 1}, "security_groups": {}, "mood": {}})
    assert client.get_revisions() == Revisions({PORT: 1}, {})


def test_only_the_servers_own_error_means_that_a_host_is_taken() -> None:
    taken = oslo_messaging.RemoteError("HostTaken", "host h1 is taken:\nby boot 7")
    assert host_taken(taken) == "host h1 is taken: by boot 7"
    assert host_taken(oslo_messaging.RemoteError("KeyError", "x")) is None
    assert host_taken(oslo_messaging.MessagingTimeout("x")) is None
