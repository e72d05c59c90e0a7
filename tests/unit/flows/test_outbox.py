"""Reports wait on disk until the server has them."""

import datetime
import os
import pathlib
import queue
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence

import oslo_messaging
import pytest

from agent_flows.flows.outbox import Outbox
from agent_flows.flows.reporter import Reporter
from agent_flows.report import FlowName, FlowReport, Step, TaskError, TaskOutcome, TaskState
from agent_flows.rpc.server import Accepted, Held
from agent_flows.supervision import Backoff
from lab.process import wait_until

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def report(outbox: Outbox, port: int = 1, *, failed: bool = False) -> FlowReport:
    task = (
        TaskOutcome("bind-vlan", Step.L2, TaskState.FAILED, error=TaskError("X", "it broke"))
        if failed
        else TaskOutcome("bind-vlan", Step.L2, TaskState.SUCCEEDED)
    )
    return FlowReport(
        id=str(uuid.uuid4()),
        host="host1",
        resource_id=str(uuid.UUID(int=port)),
        flow=FlowName.WIRE,
        revision=1,
        attempt=1,
        sequence=outbox.next_sequence(),
        started_at=NOW,
        finished_at=NOW,
        tasks=(task,),
    )


@pytest.fixture
def outbox(tmp_path: pathlib.Path) -> Outbox:
    return Outbox(tmp_path / "outbox.sqlite", max_reports=5)


class Server:
    """Takes reports as the real one does, and fails as told."""

    def __init__(self, *, held: int = 0) -> None:
        self.held = held
        self.messages: list[list[FlowReport]] = []
        self.outages = 0
        self.refuse: set[str] = set()
        self.ignore: set[str] = set()

    def report(self, reports: Sequence[FlowReport]) -> Accepted:
        if self.outages:
            self.outages -= 1
            raise oslo_messaging.MessagingTimeout("nobody answered")
        if reports:
            self.messages.append(list(reports))
        accepted = [r.id for r in reports if r.id not in self.refuse | self.ignore]
        self.held = max([self.held, *(r.sequence for r in reports if r.id in accepted)])
        refused = {r.id: "not bound here" for r in reports if r.id in self.refuse}
        return Accepted(accepted, refused, Held(self.held))


def test_invariant_3_a_report_is_forgotten_only_after_the_acknowledgement(outbox: Outbox) -> None:
    server = Server()
    server.outages = 1
    outbox.put([report(outbox)])
    reporter = Reporter(outbox, server)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        reporter.send_once()
    assert len(outbox) == 1
    reporter.send_once()
    assert len(outbox) == 0


def test_a_report_the_server_refuses_is_dropped_and_the_others_are_not(outbox: Outbox) -> None:
    server = Server()
    reports = [report(outbox, n) for n in range(1, 4)]
    outbox.put(reports)
    server.refuse = {reports[0].id}
    server.ignore = {reports[1].id}
    with pytest.raises(oslo_messaging.MessagingException, match="neither"):
        Reporter(outbox, server).send_once()
    assert [r.id for r in outbox.oldest(10, 10**6)] == [reports[1].id]


def test_reports_leave_in_the_order_they_were_made(outbox: Outbox) -> None:
    server = Server()
    reports = [report(outbox, 1, failed=n % 2 == 0) for n in range(4)]
    outbox.put(reports)
    Reporter(outbox, server).send_once()
    assert [r.sequence for r in server.messages[0]] == [r.sequence for r in reports]


def test_the_running_reporter_delivers_through_an_outage_and_says_when_it_is_over(
    outbox: Outbox,
) -> None:
    server, returns = Server(), queue.SimpleQueue[int]()
    server.outages = 3
    reports = [report(outbox, n) for n in range(1, 6)]
    reporter = Reporter(
        outbox, server, Backoff(0.01, 0.02), on_return=lambda: returns.put(server.outages)
    )
    reporter.start()
    try:
        assert returns.get(timeout=10) == 0
        for item in reports:
            outbox.put([item])
        wait_until(lambda: len(outbox) == 0, 10, "all are delivered")
    finally:
        reporter.stop(5)
    assert [r.id for message in server.messages for r in message] == [r.id for r in reports]
    assert returns.empty()


def test_invariant_4_the_sequence_rises_across_restarts_and_a_clock_set_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.sqlite"
    first = Outbox(path, 10)
    first.put([report(first)])
    before = first.next_sequence()
    first.put([report(first)])
    first.close()
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000)
    second = Outbox(path, 10)
    assert second.next_sequence() > before


def test_invariant_4_a_lost_outbox_speaks_above_what_the_server_holds(outbox: Outbox) -> None:
    far_ahead = outbox.next_sequence() + 10**12
    server = Server(held=far_ahead)
    waiting = [report(outbox, n) for n in range(1, 4)]
    outbox.put(waiting)
    Reporter(outbox, server).send_once()
    sent = server.messages[0]
    assert [r.id for r in sent] == [r.id for r in waiting]
    assert all(r.sequence > far_ahead for r in sent)
    assert outbox.next_sequence() > sent[-1].sequence


def test_a_full_outbox_drops_superseded_successes_first_and_never_a_failure(
    outbox: Outbox,
) -> None:
    superseded = [report(outbox, 1) for _ in range(4)]
    failures = [report(outbox, 2, failed=True) for _ in range(4)]
    last_word = report(outbox, 1)
    for item in [*superseded, *failures, last_word]:
        outbox.put([item])
    kept = [r.id for r in outbox.oldest(100, 10**7)]
    assert kept == [f.id for f in failures] + [last_word.id]


def test_a_message_stays_within_its_size(outbox: Outbox) -> None:
    outbox.put([report(outbox, n) for n in range(1, 4)])
    assert len(outbox.oldest(2, 10**6)) == 2
    assert len(outbox.oldest(500, 1)) == 1


def test_invariant_3_what_was_put_survives_kill_9(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "outbox.sqlite"
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from test_outbox import report\n"
        "from agent_flows.flows.outbox import Outbox\n"
        "box = Outbox(sys.argv[1], 10)\n"
        "box.put([report(box, 1), report(box, 2, failed=True)])\n"
        "print('put', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path), os.path.dirname(__file__)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "put\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert len(Outbox(path, 10)) == 2
