"""The server's endpoint validates what agents send, counts what it refuses, and answers."""

import time
from typing import Any

import pytest

from agent_flows.rpc import codec, transport
from agent_flows.rpc.answers import MOVED_AWAY, NO_BINDING, NO_SUCH_PORT
from agent_flows.rpc.refusals import KINDS, UNKNOWN
from agent_flows.rpc.server import ServerEndpoint
from agent_flows.validation import Invalid
from tests.unit.rpc.consumer import HOST, PORT, REVISIONS, Consumer, report

CONTEXT: dict[str, Any] = {}


def a_report(number: int, **fields: Any) -> dict[str, Any]:
    return codec.to_wire(report(number, **fields))


ONE, TWO, THREE = (report(number).id for number in (1, 2, 3))


def test_valid_reports_are_accepted_with_the_highest_sequence() -> None:
    consumer = Consumer()
    answer = ServerEndpoint(consumer).report(CONTEXT, HOST, [a_report(1), a_report(2)])
    assert answer.pop("clock") > 0
    assert answer == {
        "accepted": [ONE, TWO],
        "rejected": {},
        "sequence": 2,
    }
    assert [item.sequence for item in consumer.accepted] == [1, 2]


def test_an_invalid_report_does_not_stop_the_others() -> None:
    consumer = Consumer()
    bad = {**a_report(2), "flow": "nonsense"}
    answer = ServerEndpoint(consumer).report(CONTEXT, HOST, [a_report(1), bad, a_report(3)])
    assert answer["accepted"] == [ONE, THREE]
    reason = answer["rejected"][TWO]
    assert "flow" in reason
    assert "nonsense" in reason


def test_invariant_10_a_report_for_another_host_is_refused() -> None:
    consumer = Consumer()
    endpoint = ServerEndpoint(consumer)
    answer = endpoint.report(CONTEXT, HOST, [a_report(1, host="compute-2")])
    assert answer["accepted"] == []
    assert "compute-2" in answer["rejected"][ONE]
    assert consumer.accepted == []
    assert endpoint.refusals.counts["host"] == 1


def test_a_rejection_by_the_store_is_answered_and_counted() -> None:
    endpoint = ServerEndpoint(Consumer(rejects={PORT: "not bound to compute-1"}))
    answer = endpoint.report(CONTEXT, HOST, [a_report(1)])
    assert answer["rejected"] == {ONE: "not bound to compute-1"}
    assert endpoint.refusals.counts["store"] == 1


@pytest.mark.parametrize("reason", [NO_SUCH_PORT, NO_BINDING, MOVED_AWAY])
def test_a_report_of_a_deleted_unbound_or_moved_port_is_rejected_and_not_counted(
    reason: str,
) -> None:
    endpoint = ServerEndpoint(Consumer(rejects={PORT: f"{reason} {PORT}"}))
    answer = endpoint.report(CONTEXT, HOST, [a_report(1)])
    assert answer["rejected"] == {ONE: f"{reason} {PORT}"}
    assert not endpoint.refusals.counts


def nested() -> list[Any]:
    made: list[Any] = []
    for _ in range(100_000):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("host", "reports", "reason"),
    [
        (HOST, "not a list", "must be a list"),
        (HOST, {"id": 1}, "must be a list"),
        (HOST, None, "must be a list"),
        ("", [a_report(1)], "host"),
        ({"a": 1}, [a_report(1)], "host"),
        (HOST, [a_report(n) for n in range(1, transport.MAX_REPORTS + 2)], "at most 500 in a"),
        (HOST, [{"id": "x", "padding": "y" * transport.MAX_BYTES}], "bytes"),
        (HOST, [{"id": "x", "not json": {1, 2}}], "must be JSON"),
        (HOST, nested(), "must be JSON"),
    ],
)
def test_an_invalid_message_is_refused_as_a_whole_with_the_reason_and_counted(
    host: object, reports: object, reason: str
) -> None:
    consumer = Consumer()
    endpoint = ServerEndpoint(consumer)
    answer = endpoint.report(CONTEXT, host, reports)
    assert answer["accepted"] == []
    assert reason in answer["refused"]
    assert consumer.accepted == []
    assert endpoint.refusals.counts.total() == 1


@pytest.mark.parametrize("raw", [None, 7, "x", [], {"id": 5}, {"id": "é" * 500}])
def test_a_report_without_a_usable_id_does_not_break_the_answer(raw: object) -> None:
    endpoint = ServerEndpoint(Consumer())
    answer = endpoint.report(CONTEXT, HOST, [raw, a_report(1)])
    assert answer["accepted"] == [ONE]
    assert all(len(report_id) <= 64 for report_id in answer["rejected"])
    assert endpoint.refusals.counts.total() == 1


def test_repeated_refusals_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = ServerEndpoint(Consumer())
    for _ in range(50):
        endpoint.report(CONTEXT, HOST, ["nonsense"])
    assert endpoint.refusals.counts.total() == 50
    assert len([record for record in caplog.records if "Refused" in record.message]) == 1


def test_specs_are_requested_for_all_ports_or_for_some() -> None:
    consumer = Consumer()
    endpoint = ServerEndpoint(consumer)
    first = endpoint.get_ports(CONTEXT, HOST)
    endpoint.get_ports(CONTEXT, HOST, [PORT])
    assert first[0]["kind"] == "port"
    assert first[0]["id"] == PORT
    assert consumer.requests == [(HOST, None), (HOST, [PORT])]


def test_a_heartbeat_is_answered_with_the_highest_sequence() -> None:
    consumer = Consumer()
    assert ServerEndpoint(consumer).heartbeat(CONTEXT, HOST, {"version": "1"})["sequence"] == 42
    assert consumer.heartbeats == [(HOST, {"version": "1"})]


@pytest.mark.parametrize(
    ("call", "value", "field", "reason"),
    [
        ("get_ports", "all", "port_ids", "must be"),
        ("get_ports", [7], "port_ids", "must be"),
        ("get_ports", ["not-a-uuid"], "port_ids", "must be"),
        ("get_ports", [PORT] * (transport.MAX_IDS + 1), "port_ids", "must be"),
        ("get_ports", {}, "port_ids", "must be"),
        ("get_members", "all", "security_group", "must be"),
        ("get_members", None, "security_group", "must be"),
        ("get_members", [PORT], "security_group", "must be"),
        ("get_members", PORT + "\n", "security_group", "must be"),
        ("heartbeat", "alive", "state", "must be"),
        ("heartbeat", None, "state", "must be"),
        ("heartbeat", {"a": "x" * 20_000}, "state", "must be"),
        ("heartbeat", {"a": nested()}, "state", "must be JSON"),
    ],
)
def test_an_invalid_request_is_refused_with_the_field(
    call: str, value: object, field: str, reason: str
) -> None:
    endpoint = ServerEndpoint(Consumer())
    with pytest.raises(Invalid, match=reason) as refusal:
        getattr(endpoint, call)(CONTEXT, HOST, value)
    assert refusal.value.field == field
    assert endpoint.refusals.counts[field] == 1


@pytest.mark.parametrize(
    ("known", "field"),
    [
        (None, "known"),
        ([], "known"),
        ({"members": {PORT: 1}, "padding": "x" * transport.MAX_BYTES}, "known"),
        ({"security_groups": [PORT]}, "known.security_groups"),
        ({"members": {PORT: "1"}}, f"known.members.{PORT}"),
        ({"members": {PORT: -1}}, f"known.members.{PORT}"),
        ({"address_groups": {PORT: True}}, f"known.address_groups.{PORT}"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_invalid_revisions_of_what_a_host_has_are_refused(known: object, field: str) -> None:
    endpoint = ServerEndpoint(Consumer())
    with pytest.raises(Invalid) as refusal:
        endpoint.get_desired(CONTEXT, HOST, [PORT], known)
    assert refusal.value.field == field


def test_invalid_messages_do_not_grow_counters_and_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = ServerEndpoint(Consumer())
    for message in range(20):
        invalid = [
            {**a_report(number), f"field-{message}-{number}\n{'x' * 5000}": "y" * 5000}
            for number in range(1, transport.MAX_REPORTS // 100)
        ] + [{f"only-{message}-{number}": 1} for number in range(transport.MAX_REPORTS - 4)]
        answer = endpoint.report(CONTEXT, HOST, invalid)
        assert answer["accepted"] == []
        assert all(len(reason) < 500 for reason in answer["rejected"].values())
    assert endpoint.refusals.counts.total() == 20 * transport.MAX_REPORTS
    assert set(endpoint.refusals.counts) <= KINDS | {UNKNOWN}
    lines = [record.getMessage() for record in caplog.records if "Refused" in record.message]
    assert len(lines) <= 2
    assert all(len(line) < 600 and "\n" not in line for line in lines)


def test_invented_hosts_fill_the_log_within_the_limit_of_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = ServerEndpoint(Consumer())
    for number in range(500):
        endpoint.report(CONTEXT, f"invented-{number}", "nonsense")
    assert len([record for record in caplog.records if "Refused" in record.message]) == 20
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + 61)
    endpoint.report(CONTEXT, HOST, "nonsense")
    assert f"Refused from {HOST}" in caplog.records[-1].message


def test_a_heartbeat_with_a_digest_is_passed_on_and_answered_with_the_servers() -> None:
    consumer = Consumer()
    answer = ServerEndpoint(consumer).heartbeat(CONTEXT, HOST, {"desired": "0f" * 16})
    assert consumer.heartbeats == [(HOST, {"desired": "0f" * 16})]
    assert answer["desired"] == REVISIONS.digest()


@pytest.mark.parametrize(
    "hostile",
    [None, 7, True, [], {}, "0" * 31, "0" * 33, "0F" * 16, "0" * 31 + "\n", "'; --", "x" * 4096],
    ids=repr,
)
def test_a_hostile_digest_is_counted_and_left_out_of_the_heartbeat(hostile: object) -> None:
    consumer = Consumer()
    endpoint = ServerEndpoint(consumer)
    assert endpoint.heartbeat(CONTEXT, HOST, {"bridge": "b", "desired": hostile})["sequence"] == 42
    assert consumer.heartbeats == [(HOST, {"bridge": "b"})]
    assert dict(endpoint.refusals.counts) == {"desired": 1}
