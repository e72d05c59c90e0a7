"""What agents send is validated at the door; what is refused is counted and answered."""

import datetime
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from agent_flows.report import FlowName, FlowReport, Step, TaskOutcome, TaskState
from agent_flows.rpc import codec, transport
from agent_flows.rpc.answers import NO_SUCH_PORT, Receipt
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.refusals import KINDS, UNKNOWN
from agent_flows.rpc.server import ServerEndpoint
from agent_flows.spec import NetworkSpec, NetworkType, PortSpec, Spec
from agent_flows.validation import Invalid

HOST = "compute-1"
PORT = str(uuid.UUID(int=7))
CONTEXT: dict[str, Any] = {}
MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Store:
    """Takes everything but the reports whose resource it is told to refuse."""

    def __init__(self, refuses: Mapping[str, str] | None = None) -> None:
        self.refuses = refuses or {}
        self.taken: list[FlowReport] = []
        self.heartbeats: list[tuple[str, Mapping[str, Any]]] = []
        self.asked: list[tuple[str, Collection[str] | None]] = []

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        good = [item for item in reports if item.resource_id not in self.refuses]
        self.taken += good
        bad = {
            item.id: self.refuses[item.resource_id]
            for item in reports
            if item.resource_id in self.refuses
        }
        return Receipt(
            max([r.sequence for r in good] or [0]),
            accepted=[item.id for item in good],
            rejected=bad,
        )

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]:
        self.asked.append((host, port_ids))
        network = NetworkSpec(id=str(uuid.UUID(int=9)), network_type=NetworkType.LOCAL)
        return [
            PortSpec(
                id=PORT, revision=1, host=host, network=network, mac_address="fa:16:3e:00:00:01"
            )
        ]

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> int:
        self.heartbeats.append((host, state))
        return 42


def a_report(number: int, host: str = HOST, resource_id: str = PORT) -> dict[str, Any]:
    return codec.to_wire(
        FlowReport(
            id=str(uuid.UUID(int=number)),
            host=host,
            resource_id=resource_id,
            flow=FlowName.WIRE,
            revision=1,
            attempt=1,
            sequence=number,
            started_at=MOMENT,
            finished_at=MOMENT,
            tasks=(TaskOutcome("bind-vlan", Step.L2, TaskState.SUCCEEDED, MOMENT, 0.1),),
        )
    )


def test_good_reports_are_acknowledged_with_the_highest_sequence() -> None:
    store = Store()
    answer = ServerEndpoint(store).report(CONTEXT, HOST, [a_report(1), a_report(2)])
    assert answer.pop("clock") > 0
    assert answer == {
        "accepted": [str(uuid.UUID(int=1)), str(uuid.UUID(int=2))],
        "rejected": {},
        "sequence": 2,
    }
    assert [item.sequence for item in store.taken] == [1, 2]


def test_one_malformed_report_does_not_hold_up_the_others() -> None:
    store = Store()
    bad = {**a_report(2), "flow": "nonsense"}
    answer = ServerEndpoint(store).report(CONTEXT, HOST, [a_report(1), bad, a_report(3)])
    assert answer["accepted"] == [str(uuid.UUID(int=1)), str(uuid.UUID(int=3))]
    reason = answer["rejected"][str(uuid.UUID(int=2))]
    assert "flow" in reason
    assert "nonsense" in reason


def test_invariant_10_a_report_in_the_name_of_another_host_is_refused() -> None:
    store = Store()
    endpoint = ServerEndpoint(store)
    answer = endpoint.report(CONTEXT, HOST, [a_report(1, host="compute-2")])
    assert answer["accepted"] == []
    assert "compute-2" in answer["rejected"][str(uuid.UUID(int=1))]
    assert store.taken == []
    assert endpoint.refusals.counts["host"] == 1


def test_what_the_store_refuses_is_answered_and_counted() -> None:
    endpoint = ServerEndpoint(Store(refuses={PORT: "not bound to compute-1"}))
    answer = endpoint.report(CONTEXT, HOST, [a_report(1)])
    assert answer["rejected"] == {str(uuid.UUID(int=1)): "not bound to compute-1"}
    assert endpoint.refusals.counts["store"] == 1


def test_a_report_of_a_port_that_was_deleted_is_answered_and_counts_for_no_refusal() -> None:
    endpoint = ServerEndpoint(Store(refuses={PORT: f"{NO_SUCH_PORT} {PORT}"}))
    answer = endpoint.report(CONTEXT, HOST, [a_report(1)])
    assert answer["rejected"] == {str(uuid.UUID(int=1)): f"there is no port {PORT}"}
    assert not endpoint.refusals.counts


@pytest.mark.parametrize(
    ("host", "reports"),
    [
        (HOST, "not a list"),
        (HOST, {"id": 1}),
        (HOST, None),
        ("", [a_report(1)]),
        ({"a": 1}, [a_report(1)]),
        (HOST, [a_report(n) for n in range(1, transport.MAX_REPORTS + 2)]),
        (HOST, [{"id": "x", "padding": "y" * transport.MAX_BYTES}]),
        (HOST, [{"id": "x", "not json": {1, 2}}]),
    ],
    ids=["text", "object", "none", "no-host", "odd-host", "too-many", "too-large", "no-json"],
)
def test_a_message_that_cannot_be_taken_is_refused_whole_and_counted(
    host: object, reports: object
) -> None:
    store = Store()
    endpoint = ServerEndpoint(store)
    answer = endpoint.report(CONTEXT, host, reports)
    assert answer["accepted"] == []
    assert store.taken == []
    assert endpoint.refusals.counts.total() == 1


@pytest.mark.parametrize("raw", [None, 7, "x", [], {"id": 5}, {"id": "é" * 500}])
def test_a_report_without_a_usable_id_does_not_break_the_answer(raw: object) -> None:
    endpoint = ServerEndpoint(Store())
    answer = endpoint.report(CONTEXT, HOST, [raw, a_report(1)])
    assert answer["accepted"] == [str(uuid.UUID(int=1))]
    assert all(len(each) <= 64 for each in answer["rejected"])
    assert endpoint.refusals.counts.total() == 1


def test_what_is_refused_again_and_again_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = ServerEndpoint(Store())
    for _ in range(50):
        endpoint.report(CONTEXT, HOST, ["nonsense"])
    assert endpoint.refusals.counts.total() == 50
    assert len([record for record in caplog.records if "Refused" in record.message]) == 1


def test_specs_are_asked_for_all_ports_or_for_some() -> None:
    store = Store()
    endpoint = ServerEndpoint(store)
    first = endpoint.get_ports(CONTEXT, HOST)
    endpoint.get_ports(CONTEXT, HOST, [PORT])
    assert first[0]["kind"] == "port"
    assert first[0]["id"] == PORT
    assert store.asked == [(HOST, None), (HOST, [PORT])]


@pytest.mark.parametrize(
    "ids",
    ["all", [7], ["not-a-uuid"], [PORT] * (transport.MAX_IDS + 1), {}],
    ids=["text", "number", "no-uuid", "too-many", "object"],
)
def test_a_malformed_question_for_specs_is_refused_with_the_field(ids: object) -> None:
    endpoint = ServerEndpoint(Store())
    with pytest.raises(Invalid) as refusal:
        endpoint.get_ports(CONTEXT, HOST, ids)
    assert refusal.value.field == "port_ids"
    assert endpoint.refusals.counts["port_ids"] == 1


def test_a_heartbeat_answers_the_highest_sequence() -> None:
    store = Store()
    assert ServerEndpoint(store).heartbeat(CONTEXT, HOST, {"version": "1"})["sequence"] == 42
    assert store.heartbeats == [(HOST, {"version": "1"})]


@pytest.mark.parametrize(
    "state",
    ["alive", None, {"a": "x" * 20_000}],
    ids=["text", "none", "too-large"],
)
def test_a_malformed_heartbeat_is_refused_with_the_field(state: object) -> None:
    endpoint = ServerEndpoint(Store())
    with pytest.raises(Invalid) as refusal:
        endpoint.heartbeat(CONTEXT, HOST, state)
    assert refusal.value.field == "state"
    assert endpoint.refusals.counts["state"] == 1


def test_messages_full_of_misfits_grow_neither_counters_nor_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = ServerEndpoint(Store())
    for message in range(20):
        misfits = [
            {**a_report(number), f"field-{message}-{number}\n{'x' * 5000}": "y" * 5000}
            for number in range(1, transport.MAX_REPORTS // 100)
        ] + [{f"only-{message}-{number}": 1} for number in range(transport.MAX_REPORTS - 4)]
        answer = endpoint.report(CONTEXT, HOST, misfits)
        assert answer["accepted"] == []
        assert all(len(reason) < 500 for reason in answer["rejected"].values())
    assert endpoint.refusals.counts.total() == 20 * transport.MAX_REPORTS
    assert set(endpoint.refusals.counts) <= KINDS | {UNKNOWN}
    said = [record.getMessage() for record in caplog.records if "Refused" in record.message]
    assert len(said) <= 2
    assert all(len(line) < 600 and "\n" not in line for line in said)


def test_hosts_that_were_made_up_fill_the_log_within_bounds_and_not_for_ever(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = ServerEndpoint(Store())
    for number in range(500):
        endpoint.report(CONTEXT, f"made-up-{number}", "nonsense")
    assert len([record for record in caplog.records if "Refused" in record.message]) == 20
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + 61)
    endpoint.report(CONTEXT, HOST, "nonsense")
    assert f"Refused from {HOST}" in caplog.records[-1].message


def test_a_message_that_is_refused_whole_says_why_at_the_top() -> None:
    endpoint = ServerEndpoint(Store())
    too_many = [a_report(n) for n in range(1, transport.MAX_REPORTS + 2)]
    assert "at most 500 in a message" in endpoint.report(CONTEXT, HOST, too_many)["refused"]
    assert "must be a list" in endpoint.report(CONTEXT, HOST, {"id": 1})["refused"]
    assert "refused" not in endpoint.report(CONTEXT, HOST, [a_report(1)])


@pytest.mark.parametrize("reports", [False, True], ids=["a state", "reports"])
def test_what_is_nested_without_end_is_refused(reports: bool) -> None:
    endpoint = ServerEndpoint(Store())
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    if reports:
        assert "must be JSON" in endpoint.report(CONTEXT, HOST, nested)["refused"]
    else:
        with pytest.raises(Invalid, match="must be JSON"):
            endpoint.heartbeat(CONTEXT, HOST, {"a": nested})
