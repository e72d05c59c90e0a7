"""Reports reach the server after any answer, also while another agent has the host."""

import pathlib
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import oslo_messaging
import pytest

from agent_flows.report import FlowReport, Trouble
from agent_flows.reporting.observer import Unobserved
from agent_flows.reporting.outbox import Outbox
from agent_flows.reporting.reporter import Reporter
from agent_flows.rpc.answers import NO_SUCH_PORT, Held, Receipt
from agent_flows.supervision import Backoff, Troubles
from agent_flows.validation import Invalid
from lab.process import wait_until
from tests.unit.reporting.test_outbox import report

PATIENCE = 5.0

Answer = Callable[[Sequence[FlowReport]], Receipt]


def accepting(reports: Sequence[FlowReport]) -> Receipt:
    return Receipt(0, accepted=[item.id for item in reports])


class Server:
    """Gives these answers in turn, then accepts everything."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.accepted: list[str] = []

    def report(self, reports: Sequence[FlowReport]) -> Receipt:
        # The reporter introduces itself with an empty message.
        if reports and self.answers:
            return self.answers.pop(0)(reports)
        self.accepted += [item.id for item in reports]
        return accepting(reports)


@contextmanager
def reporting(
    outbox: Outbox,
    server: Server,
    troubles: Troubles,
    monkeypatch: pytest.MonkeyPatch,
    pause: float = 0.05,
) -> Iterator[Reporter]:
    monkeypatch.setattr("agent_flows.reporting.reporter._TAKEN_PAUSE", pause)
    reporter = Reporter(outbox, server, troubles, backoff=Backoff(0.01, 0.05))
    reporter.start()
    try:
        yield reporter
    finally:
        reporter.stop(PATIENCE)


def raising(exc: Exception) -> Answer:
    def answer(reports: Sequence[FlowReport]) -> Receipt:
        raise exc

    return answer


FAILURES: dict[str, Answer] = {
    "no answer of the bus": raising(oslo_messaging.MessagingTimeout("no answer")),
    "an invalid answer": raising(Invalid("accepted", None, "must be a list")),
    "an error of the database": raising(sqlite3.OperationalError("disk I/O error")),
    "no answer": lambda reports: None,  # type: ignore[return-value,dict-item]
    "no id": lambda reports: Receipt(0, accepted=[]),
    "unknown ids": lambda reports: Receipt(0, accepted=["x"], rejected={str(uuid.uuid4()): "no"}),
    "a refusal of the message": lambda reports: Receipt(0, accepted=[], refused="no list"),
    "an invalid sequence": lambda reports: Receipt(2**80, accepted=[]),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
def test_a_report_is_sent_again_until_the_server_accepts_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    outbox, troubles, seen = Outbox(tmp_path / "o", 10), Troubles(), list[str]()
    troubles.changed = lambda: seen.extend(troubles.current())
    items = [report(1), report(2)]
    outbox.put(items)
    server = Server(answer)
    with reporting(outbox, server, troubles, monkeypatch):
        wait_until(lambda: len(outbox) == 0, PATIENCE, "the reports are taken")
        wait_until(lambda: troubles.current() == {}, PATIENCE, "the trouble is over")
    assert server.accepted == [item.id for item in items]
    assert Trouble.REPORTER in seen


class Counts(Unobserved):
    """Counts what was sent again and rejected."""

    def __init__(self) -> None:
        self.again = 0
        self.rejections: list[bool] = []

    def sent_again(self, number: int) -> None:
        self.again += number

    def rejected(self, *, fault: bool) -> None:
        self.rejections.append(fault)


def test_what_is_sent_again_or_rejected_is_counted(tmp_path: pathlib.Path) -> None:
    outbox, counts = Outbox(tmp_path / "o", 10), Counts()
    unplugged, refused, third = report(1), report(2), report(3)
    outbox.put([unplugged, refused])
    server = Server(
        raising(oslo_messaging.MessagingTimeout("no answer")),
        lambda r: Receipt(
            0,
            accepted=[third.id],
            rejected={unplugged.id: f"{NO_SUCH_PORT} x", refused.id: "old sequence"},
        ),
    )
    reporter = Reporter(outbox, server, observer=counts)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        reporter.send_once()
    assert counts.again == 0
    outbox.put([third])
    reporter.send_once()
    assert counts.again == 2
    assert counts.rejections == [False, True]


def test_reports_stay_while_another_agent_has_the_host(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, troubles = Outbox(tmp_path / "o", 10), Troubles()
    outbox.put([report(1)])
    reason = "host h1 is taken: by boot 7, last heartbeat 3 s ago"
    other = oslo_messaging.RemoteError("HostTaken", reason)
    over = threading.Event()
    server = Server(*[lambda r: accepting(r) if over.is_set() else raising(other)(r)] * 1000)
    with reporting(outbox, server, troubles, monkeypatch):
        wait_until(lambda: Trouble.IDENTITY in troubles.current(), PATIENCE, "the trouble")
        assert "by boot 7" in troubles.current()[Trouble.IDENTITY]
        assert len(outbox) == 1
        over.set()
        wait_until(lambda: len(outbox) == 0, PATIENCE, "the report is taken")
        wait_until(lambda: troubles.current() == {}, PATIENCE, "the trouble is over")


def test_reports_that_were_refused_are_sent_again_once_a_heartbeat_is_answered(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, troubles = Outbox(tmp_path / "o", 10), Troubles()
    outbox.put([report(1)])
    late = oslo_messaging.RemoteError("HostTaken", "a later call of the host was received")
    with reporting(outbox, Server(raising(late)), troubles, monkeypatch, pause=3600) as reporter:
        wait_until(lambda: Trouble.IDENTITY in troubles.current(), PATIENCE, "it is refused")
        reporter.heard(Held(0))
        wait_until(lambda: len(outbox) == 0, PATIENCE, "the report is taken")


def test_a_rejected_report_is_dropped_and_its_reason_logged_in_one_line(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "o", 10)
    item = report(1)
    outbox.put([item])
    Reporter(
        outbox, Server(lambda r: Receipt(0, accepted=[], rejected={item.id: "no\nsuch\nport"}))
    ).send_once()
    assert len(outbox) == 0
    assert "no such port" in caplog.text


def test_a_full_disk_while_reports_are_deleted_loses_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, troubles, seen = Outbox(tmp_path / "o", 10), Troubles(), list[str]()
    troubles.changed = lambda: seen.extend(troubles.current().values())
    outbox.put([report(1)])
    forget, failures = outbox.forget, [sqlite3.OperationalError("database or disk is full")] * 3

    def sometimes(ids: set[str]) -> None:
        if failures:
            raise failures.pop()
        forget(ids)

    monkeypatch.setattr(outbox, "forget", sometimes)
    server = Server()
    with reporting(outbox, server, troubles, monkeypatch):
        wait_until(lambda: len(outbox) == 0, PATIENCE, "the report is forgotten")
    assert any("disk is full" in message for message in seen)
    assert set(server.accepted) == {*server.accepted[:1]}
