"""Reports stay on disk until the server has acknowledged them."""

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence

import oslo_messaging
import pytest

from agent_flows.report import FlowName, FlowReport, ResourceType, Trouble
from agent_flows.reporting.outbox import Outbox
from agent_flows.reporting.reporter import Reporter
from agent_flows.rpc import codec
from agent_flows.rpc.answers import MOVED_AWAY, NO_BINDING, NO_SUCH_PORT, Held, Receipt
from agent_flows.supervision import Backoff, Troubles
from lab.model import flow_report, numbered_id
from lab.process import wait_until

DAY = 24 * 3600 * 10**6


def port_id(port: int) -> str:
    return numbered_id(1, port)


def report(port: int = 1, *, failed: bool = False) -> FlowReport:
    """A report that has no number yet."""
    fails = "bind-vlan" if failed else None
    return flow_report(fails=fails, resource_id=port_id(port), sequence=0)


def edited(path: pathlib.Path, reports: Sequence[FlowReport], *edits: tuple[object, ...]) -> None:
    """Another process stored ``reports`` in the file at ``path``, which was then edited."""
    outbox = Outbox(path, 1000)
    outbox.put(reports)
    outbox.close()
    with sqlite3.connect(path) as file:
        for statement, *values in edits:
            file.execute(str(statement), values)


@pytest.fixture
def outbox(tmp_path: pathlib.Path) -> Outbox:
    return Outbox(tmp_path / "outbox.sqlite", max_reports=5)


class Server:
    """Accepts reports like the real one, except those in ``refuse`` and ``ignore``."""

    def __init__(self, *, held: int = 0) -> None:
        self.held = held
        self.messages: list[list[FlowReport]] = []
        self.outages = 0
        self.refuse: set[str] = set()
        self.reason = "not bound here"
        self.ignore: set[str] = set()

    def report(self, reports: Sequence[FlowReport]) -> Receipt:
        if self.outages:
            self.outages -= 1
            raise oslo_messaging.MessagingTimeout("no answer")
        if reports:
            self.messages.append(list(reports))
        accepted = [r.id for r in reports if r.id not in self.refuse | self.ignore]
        self.held = max([self.held, *(r.sequence for r in reports if r.id in accepted)])
        refused = {r.id: self.reason for r in reports if r.id in self.refuse}
        return Receipt(self.held, accepted=accepted, rejected=refused)


def test_invariant_3_a_report_is_deleted_only_after_the_acknowledgement(outbox: Outbox) -> None:
    server = Server()
    server.outages = 1
    outbox.put([report()])
    reporter = Reporter(outbox, server)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        reporter.send_once()
    assert len(outbox) == 1
    reporter.send_once()
    assert len(outbox) == 0


def test_only_the_reports_that_the_server_rejects_are_dropped(outbox: Outbox) -> None:
    server = Server()
    reports = [report(n) for n in range(1, 4)]
    outbox.put(reports)
    server.refuse = {reports[0].id}
    server.ignore = {reports[1].id}
    with pytest.raises(oslo_messaging.MessagingException, match="neither"):
        Reporter(outbox, server).send_once()
    assert [r.id for r in outbox.oldest(10, 10**6)] == [reports[1].id]


@pytest.mark.parametrize(
    ("flow", "reason", "level"),
    [
        (FlowName.WIRE, f"{NO_SUCH_PORT} {port_id(1)}", "INFO"),
        (FlowName.WIRE, f"{NO_BINDING} {port_id(1)}", "INFO"),
        (FlowName.WIRE, f"{MOVED_AWAY} port {port_id(1)} is bound to b, not to a", "INFO"),
        (FlowName.WIRE, "not bound here", "ERROR"),
        (FlowName.UNWIRE, "not bound here", "INFO"),
    ],
)
def test_a_rejection_is_an_error_except_for_a_port_that_was_deleted_unbound_or_moved(
    outbox: Outbox, caplog: pytest.LogCaptureFixture, flow: FlowName, reason: str, level: str
) -> None:
    caplog.set_level("INFO")
    server = Server()
    [rejected] = reports = [dataclasses.replace(report(), flow=flow)]
    outbox.put(reports)
    server.refuse, server.reason = {rejected.id}, reason
    Reporter(outbox, server).send_once()
    [record] = [r for r in caplog.records if rejected.id in r.message]
    assert (record.levelname, reason in record.message) == (level, True)
    assert len(outbox) == 0


def test_reports_are_sent_in_the_order_in_which_they_were_made(outbox: Outbox) -> None:
    server = Server()
    reports = [report(1, failed=n % 2 == 0) for n in range(4)]
    outbox.put(reports)
    Reporter(outbox, server).send_once()
    assert [r.id for r in server.messages[0]] == [r.id for r in reports]
    sequences = [r.sequence for r in server.messages[0]]
    assert sequences == sorted(set(sequences))


def test_the_reporter_delivers_after_an_outage(outbox: Outbox) -> None:
    server = Server()
    server.outages = 3
    reports = [report(n) for n in range(1, 6)]
    reporter = Reporter(outbox, server, backoff=Backoff(0.01, 0.02))
    reporter.start()
    try:
        for item in reports:
            outbox.put([item])
        wait_until(lambda: len(outbox) == 0, 10, "all are delivered")
    finally:
        reporter.stop(5)
    assert server.outages == 0
    assert [r.id for message in server.messages for r in message] == [r.id for r in reports]


def sequences(outbox: Outbox) -> list[int]:
    return [item.sequence for item in outbox.oldest(500, 10**7)]


def now() -> int:
    return time.time_ns() // 1000


def test_invariant_4_the_sequence_rises_across_restarts_and_a_clock_set_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.sqlite"
    first = Outbox(path, 10)
    first.put([report()])
    first.put([report()])
    first.close()
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000)
    second = Outbox(path, 10)
    second.put([report()])
    assert sequences(second) == sorted(set(sequences(second)))


def test_invariant_4_a_lost_outbox_reports_above_what_the_server_holds(outbox: Outbox) -> None:
    ahead = now() + 10**10
    server = Server(held=ahead)
    waiting = [report(n) for n in range(1, 4)]
    outbox.put(waiting)
    Reporter(outbox, server).send_once()
    sent = server.messages[0]
    assert [r.id for r in sent] == [r.id for r in waiting]
    assert all(r.sequence > ahead for r in sent)
    outbox.put([report()])
    assert sequences(outbox)[0] > sent[-1].sequence


def test_a_report_is_numbered_when_it_is_stored(outbox: Outbox) -> None:
    built_before = report()
    held = now() + 10**9
    outbox.raise_sequence(Held(held, now()))
    outbox.put([built_before])
    assert sequences(outbox) == [held + 1]


@pytest.mark.parametrize("clock", ["unknown", "right"])
@pytest.mark.parametrize("held", [2**61, 10**30, 2 * DAY])
def test_a_sequence_more_than_a_day_ahead_of_both_clocks_is_ignored(
    tmp_path: pathlib.Path, held: int, clock: str
) -> None:
    troubles = Troubles()
    outbox = Outbox(tmp_path / "outbox.sqlite", 5, troubles)
    outbox.raise_sequence(Held(now() + held, 0 if clock == "unknown" else now()))
    outbox.put([report()])
    assert abs(sequences(outbox)[0] - now()) < DAY
    assert "ignored" in troubles.current()[Trouble.CLOCK]
    outbox.raise_sequence(Held(now(), now()))
    assert troubles.current() == {}


def test_a_sequence_of_a_server_whose_clock_is_ahead_is_valid(
    outbox: Outbox,
) -> None:
    server = now() + 400 * DAY
    outbox.raise_sequence(Held(server - 5, server))
    outbox.put([report()])
    assert sequences(outbox) == [server - 4]


def test_a_host_whose_clock_is_days_ahead_continues_the_sequence_of_the_server(
    tmp_path: pathlib.Path,
) -> None:
    troubles = Troubles()
    outbox = Outbox(tmp_path / "outbox.sqlite", 5, troubles)
    outbox.put([report(1), report(2)])
    server = now() - 3 * DAY
    outbox.raise_sequence(Held(server - 100, server))
    outbox.put([report(3)])
    assert sequences(outbox) == [server - 99, server - 98, server - 97]
    assert "3.0 days ahead" in troubles.current()[Trouble.CLOCK]
    outbox.raise_sequence(Held(server - 97, now()))
    outbox.put([report(4)])
    assert abs(sequences(outbox)[-1] - now()) < DAY
    assert troubles.current() == {}


def test_a_file_with_invalid_sequences_is_numbered_again_at_start(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "outbox.sqlite"
    waiting = [report(n) for n in range(1, 4)]
    edited(
        path,
        waiting,
        ("UPDATE last SET sequence = ?", 2**61),
        ("UPDATE unsent SET sequence = ? WHERE id = ?", 2**61 - 1, waiting[1].id),
    )
    second = Outbox(path, 10)
    second.put([report(4)])
    kept = second.oldest(10, 10**6)
    assert [r.id for r in kept][:3] == [waiting[0].id, waiting[2].id, waiting[1].id]
    assert all(abs(sequence - now()) < DAY for sequence in sequences(second))


def test_new_sequences_equal_to_old_ones_lose_no_report(outbox: Outbox) -> None:
    outbox.put([report(n) for n in range(1, 5)])
    first = sequences(outbox)[0]
    server = now() - 3 * DAY
    outbox.raise_sequence(Held(server, server))
    outbox.raise_sequence(Held(server + 2, server))
    assert len(outbox) == 4
    assert sequences(outbox) == [server + n for n in range(1, 5)]
    assert first > server


BAD_BODIES = {
    "no JSON": "{",
    "no object": "[]",
    "newer major version": '{"version": "9.0"}',
    "no text": b"\xff\xfe\x00",
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_an_unreadable_report_is_set_aside_and_the_others_are_delivered(
    tmp_path: pathlib.Path, body: object
) -> None:
    path = tmp_path / "outbox.sqlite"
    waiting = [report(n) for n in range(1, 4)]
    edited(path, waiting, ("UPDATE unsent SET body = ? WHERE id = ?", body, waiting[0].id))
    server, troubles, lost = Server(), Troubles(), list[str]()
    outbox = Outbox(path, 10, troubles)
    reporter = Reporter(outbox, server, troubles, lost=lost.extend)
    reporter.start()
    wait_until(lambda: Trouble.REPORTER in troubles.current(), 5, "the trouble is reported")
    wait_until(lambda: len(outbox) == 0, 5, "the others are delivered")
    reporter.stop(5)
    assert "set aside" in troubles.current()[Trouble.REPORTER]
    outbox.close()
    assert [r.id for message in server.messages for r in message] == [r.id for r in waiting[1:]]
    assert set(lost) == {waiting[0].resource_id}


def test_who_waits_for_a_report_is_woken_though_there_is_none(outbox: Outbox) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(outbox.wait, None)
        outbox.wake()
        assert waiting.result(30) is False
    assert outbox.wait(0) is False
    outbox.put([report()])
    assert outbox.wait(None)


def test_a_later_report_of_the_port_ends_the_loss(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "outbox.sqlite"
    edited(path, [report(1)], ("UPDATE unsent SET body = 'x'",))
    outbox = Outbox(path, 10)
    reporter = Reporter(outbox, Server())
    reporter.send_once()
    assert list(outbox.set_aside()) == [port_id(1)]
    outbox.put([report(2)])
    reporter.send_once()
    assert list(outbox.set_aside()) == [port_id(1)]
    outbox.put([report(1)])
    reporter.send_once()
    assert outbox.set_aside() == {}


def test_reports_set_aside_by_an_earlier_process_do_not_count(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "outbox.sqlite"
    edited(path, [report(1)], ("UPDATE unsent SET body = 'x'",))
    first = Outbox(path, 10)
    assert first.oldest(10, 10_000) == []
    assert list(first.set_aside()) == [port_id(1)]
    first.close()
    # At a start every port that still exists is reported again.
    assert Outbox(path, 10).set_aside() == {}


def test_reports_set_aside_are_limited(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "outbox.sqlite"
    edited(path, [report(n) for n in range(1, 300)], ("UPDATE unsent SET body = ''",))
    outbox = Outbox(path, 1000)
    assert outbox.oldest(500, 10**6) == []
    assert len(outbox.set_aside()) == 100
    assert len(outbox) == 0


def test_an_identity_contains_the_earlier_processes_of_its_file(tmp_path: pathlib.Path) -> None:
    boots = []
    for _ in range(20):
        outbox = Outbox(tmp_path / "outbox.sqlite", 10)
        assert list(outbox.identity.predecessors) == boots[::-1][:16]
        boots.append(outbox.identity.boot_id)
        outbox.close()
    assert len(set(boots)) == 20


def test_a_full_outbox_drops_superseded_successes_and_no_failure(
    outbox: Outbox,
) -> None:
    superseded = [report(1) for _ in range(4)]
    failures = [report(2, failed=True) for _ in range(4)]
    last = report(1)
    for item in [*superseded, *failures, last]:
        outbox.put([item])
    kept = [r.id for r in outbox.oldest(100, 10**7)]
    assert kept == [f.id for f in failures] + [last.id]


def test_a_message_stays_within_its_size(outbox: Outbox) -> None:
    outbox.put([report(n) for n in range(1, 4)])
    assert len(outbox.oldest(2, 10**6)) == 2
    assert len(outbox.oldest(500, 1)) == 1


def test_invariant_3_stored_reports_survive_kill_9(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "outbox.sqlite"
    script = (
        "import sys, time\n"
        "from agent_flows.reporting.outbox import Outbox\n"
        "from lab.model import flow_report\n"
        "Outbox(sys.argv[1], 10).put([flow_report(), flow_report(fails='bind-vlan')])\n"
        "print('put', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "put\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert len(Outbox(path, 10)) == 2


def test_a_group_and_a_port_with_the_same_id_do_not_supersede_each_other(
    tmp_path: pathlib.Path,
) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite", max_reports=2)
    of_port = report(1)
    of_group = dataclasses.replace(
        report(1), resource_type=ResourceType.SECURITY_GROUP, security_group_revisions={}
    )
    outbox.put([of_port])
    outbox.put([of_group, report(2)])
    assert len(outbox) == 3
    later = dataclasses.replace(of_group, id=report().id)
    outbox.put([later])
    assert {item.id for item in outbox.oldest(10, 10**6)} >= {of_port.id, later.id}
    assert of_group.id not in {item.id for item in outbox.oldest(10, 10**6)}


# The tables of a release that reported only ports.
EARLIER = """
CREATE TABLE reports (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    port_id TEXT NOT NULL,
    failed INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX reports_by_port ON reports (port_id, sequence);
CREATE TABLE set_aside (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sequence INTEGER NOT NULL,
    id TEXT NOT NULL,
    port_id TEXT NOT NULL,
    body TEXT NOT NULL,
    reason TEXT NOT NULL
);
"""


def test_reports_of_an_earlier_release_are_delivered_after_an_upgrade(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "outbox.sqlite"
    waiting = [dataclasses.replace(report(number), sequence=number) for number in (1, 2)]
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.executescript(EARLIER)
        for item in waiting:
            row = (item.sequence, item.id, item.resource_id, 0, json.dumps(codec.to_wire(item)))
            file.execute("INSERT INTO reports VALUES (?, ?, ?, ?, ?)", row)
        file.execute("INSERT INTO set_aside VALUES (1, 0, 'x', ?, '{', 'no JSON')", [port_id(3)])
    outbox = Outbox(path, 10)
    assert outbox.oldest(10, 10**6) == waiting
    assert outbox.set_aside() == {}
    outbox.put([report(3)])
    outbox.close()
    # Once is enough.
    assert len(Outbox(path, 10)) == 3
