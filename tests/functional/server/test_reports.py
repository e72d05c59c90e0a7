"""Reports on every database: each counts once, none is lost, old never overwrites new."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence

import pytest

from agent_flows.report import FlowName, FlowReport, TaskError
from agent_flows.rpc import codec
from lab.model import flow_report, group_revisions
from lab.server_parts import FakeAgent, Server, together

MakePort = Callable[..., str]


def attempts(server: Server, port_id: str) -> list[str]:
    """Ids of the port's attempts, newest first."""
    tasks = server.find("tasks", resource_id=port_id, name="apply-security-groups")
    return [task["flow_id"] for task in tasks]


def test_a_wired_port_is_active(server: Server, agent: FakeAgent, make_port: MakePort) -> None:
    port = make_port()
    assert server.state(port) == ("DOWN", "SYNCING")  # its agent is to look: the clock runs
    report = agent.report(port)
    answer = agent.send(report)
    assert (answer.accepted, answer.rejected, answer.sequence) == ([report.id], {}, 1)
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_message_of_500_reports(server: Server, agent: FakeAgent, make_port: MakePort) -> None:
    good, bad = make_port(), make_port()
    desired = agent.specs(good, bad)
    reports = []
    for sequence in range(1, 501):
        port = good if sequence % 2 else bad
        reports.append(
            flow_report(
                resource_id=port,
                sequence=sequence,
                attempt=sequence,
                revision=desired.ports[port].revision,
                security_group_revisions=group_revisions(desired, desired.ports[port]),
                fails=None if port == good else "bind-vlan",
            )
        )
    answer = agent.send(*reversed(reports))
    assert sorted(answer.accepted) == sorted(report.id for report in reports)
    assert answer.sequence == 500
    assert server.state(good) == ("ACTIVE", "IN_SYNC")
    assert server.state(bad) == ("DOWN", "OUT_OF_SYNC")
    assert len(attempts(server, good)) == 250


def test_a_report_sent_twice_counts_once(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    report = agent.report(port, fails="bind-vlan")
    for _ in range(3):
        answer = agent.send(report, report)
        assert set(answer.accepted) == {report.id}
    assert attempts(server, port) == [report.id]
    # Two in each of three messages, all but the first of them once more.
    assert b"agent_flows_reports_redelivered_total 5.0" in server.metrics.text()


def test_an_id_that_was_used_before_counts_no_more(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    one, other = make_port(), make_port()
    agent.wire(other)
    first = agent.report(one)
    agent.send(first)
    again = agent.report(other, fails="bind-vlan", id=first.id)
    assert agent.send(again).accepted == [first.id]
    assert server.state(other) == ("ACTIVE", "IN_SYNC")
    assert len(attempts(server, other)) == 1


def test_the_order_of_arrival_does_not_matter(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    older = agent.report(port, fails="bind-vlan")
    newer = agent.report(port)
    agent.send(newer)
    assert agent.send(older).accepted == [older.id]
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    assert attempts(server, port) == [newer.id]


def test_invariant_10_one_host_cannot_report_for_another(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port, lookalike = make_port(), make_port(**{"binding:host_id": "HOST-A"})
    stranger = FakeAgent(server, "host-b")
    report = flow_report(host="host-b", resource_id=port)
    assert stranger.send(report).rejected == {
        report.id: f"port {port} is bound to host-a, not to host-b"
    }
    assert stranger.specs().ports == {}
    assert stranger.specs(port).ports == {}
    assert server.state(port) == ("DOWN", "SYNCING")
    assert lookalike not in agent.specs().ports  # hosts differ by case
    about_lookalike = flow_report(resource_id=lookalike)
    assert about_lookalike.id in agent.send(about_lookalike).rejected


def test_a_refused_report_does_not_keep_the_others_from_counting(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    unknown = flow_report(sequence=1)
    agent.sequence = 1
    good = agent.report(port)
    answer = agent.send(unknown, good)
    assert answer.accepted == [good.id]
    assert answer.rejected == {unknown.id: f"there is no port {unknown.resource_id}"}
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_any_text_of_a_tool_is_kept(server: Server, agent: FakeAgent, make_port: MakePort) -> None:
    port = make_port()
    report = agent.report(port, fails="bind-vlan")
    strange = TaskError("OvsdbError", "nul \x00 \ud800 \U0001f4a5", "\x00\U0001f4a5" + "x" * 5000)
    tasks = [
        task if task.error is None else type(task)(**{**vars(task), "error": strange})
        for task in report.tasks
    ]
    agent.send(flow_report(**{**vars(report), "tasks": tuple(tasks)}))
    (task,) = server.find("tasks", resource_id=port, task_state="FAILED")
    assert task["error"]["message"] == "nul \N{REPLACEMENT CHARACTER} ? \U0001f4a5"
    assert task["error"]["detail"].startswith("\N{REPLACEMENT CHARACTER}\U0001f4a5xxx")


def test_times_are_kept_to_the_microsecond(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    report = agent.report(port)
    agent.send(report)
    shown = server.find("tasks", resource_id=port)[0]["started_at"]
    assert report.tasks[0].started_at is not None
    assert shown == report.tasks[0].started_at.isoformat(timespec="microseconds")


@pytest.mark.parametrize("seed", range(3))
def test_invariant_4_workers_that_take_reports_of_the_same_ports_agree_on_the_newest(
    server: Server,
    agent: FakeAgent,
    another: Callable[..., Server],
    make_port: MakePort,
    seed: int,
) -> None:
    ports = [make_port() for _ in range(6)]
    desired = agent.specs(*ports)
    chance = random.Random(seed)
    reports = [
        flow_report(
            resource_id=ports[number % 6],
            sequence=number + 1,
            revision=desired.ports[ports[number % 6]].revision,
            security_group_revisions=group_revisions(desired, desired.ports[ports[number % 6]]),
            fails=chance.choice([None, "bind-vlan"]),
        )
        for number in range(120)
    ]
    workers = [another() for _ in range(4)]

    def work(worker: Server, share: Sequence[FlowReport]) -> None:
        for start in range(0, len(share), 10):
            worker.store.take_reports("host-a", share[start : start + 10])

    # Every report goes to two workers, in an order of each worker's own.
    shares = [chance.sample(reports, 60) for _ in workers]
    together(*(lambda w=w, s=s: work(w, s) for w, s in zip(workers, shares, strict=True)))
    work(server, reports)

    for number, port in enumerate(ports):
        newest = reports[114 + number]
        failed = newest.failed is not None
        assert server.state(port)[1] == ("OUT_OF_SYNC" if failed else "IN_SYNC")
        sequence = {report.id: report.sequence for report in reports}
        kept = [sequence[flow_id] for flow_id in attempts(server, port)]
        assert kept == sorted(set(kept), reverse=True)
        assert kept[0] == newest.sequence


def test_the_same_message_to_many_workers_counts_once(
    server: Server, agent: FakeAgent, another: Callable[..., Server], make_port: MakePort
) -> None:
    ports = [make_port() for _ in range(20)]
    desired = agent.specs(*ports)
    reports = [
        flow_report(
            resource_id=port,
            sequence=number,
            revision=desired.ports[port].revision,
            security_group_revisions=group_revisions(desired, desired.ports[port]),
        )
        for number, port in enumerate(ports, start=1)
    ]
    answers = []
    workers = [another() for _ in range(4)]
    together(
        *(lambda w=w: answers.append(w.store.take_reports("host-a", reports)) for w in workers)
    )
    assert all(sorted(answer.accepted) == sorted(r.id for r in reports) for answer in answers)
    for port, report in zip(ports, reports, strict=True):
        assert server.state(port) == ("ACTIVE", "IN_SYNC")
        assert attempts(server, port) == [report.id]


DIES_AFTER_COMMIT = """
    import json, os, signal, sys
    from agent_flows.rpc.codec import report_from_wire
    from agent_flows.server.standalone.directory import OwnDirectory
    from lab.server_parts import Server

    class Dies(OwnDirectory):
        def {moment}:
            os.kill(os.getpid(), signal.SIGKILL)

    server = Server(sys.argv[1], directory=Dies())
    server.store.take_reports("host-a", [report_from_wire(json.load(sys.stdin))])
"""


def die_while_taking(url: str, report: FlowReport, moment: str) -> None:
    """A server process takes ``report`` and is killed at ``moment``."""
    program = textwrap.dedent(DIES_AFTER_COMMIT.format(moment=moment))
    done = subprocess.run(
        [sys.executable, "-c", program, url],
        input=json.dumps(codec.to_wire(report)),
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def test_invariant_3_killed_between_commit_and_answer_the_report_counts_once(
    server: Server, agent: FakeAgent, make_port: MakePort, url: str
) -> None:
    port = make_port()
    report = agent.report(port)
    die_while_taking(url, report, "moved(self, ports)")
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    assert agent.send(report).accepted == [report.id]  # the agent had no answer: again
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    assert attempts(server, port) == [report.id]


def test_invariant_3_killed_before_the_commit_nothing_of_the_message_is_there(
    server: Server, agent: FakeAgent, make_port: MakePort, url: str
) -> None:
    port = make_port()
    report = agent.report(port)
    die_while_taking(url, report, "move(self, session, ports)")
    assert server.state(port) == ("DOWN", "SYNCING")
    assert attempts(server, port) == []
    assert agent.send(report).accepted == [report.id]
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_an_agent_that_missed_a_change_receives_the_cast_again(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    port = make_port()
    late = agent.report(port)
    server.put("security-groups", group, security_group_rules=[{"direction": "egress"}])
    server.new_casts()
    agent.send(late)
    assert server.state(port) == ("DOWN", "SYNCING")
    assert server.new_casts() == [("host-a", "security_groups_changed", frozenset({group}))]


def test_the_agent_goes_on_from_the_highest_sequence_held(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    one, other = make_port(), make_port()
    agent.send(agent.report(one, sequence=900))
    agent.send(agent.report(other, sequence=300))
    assert server.store.take_heartbeat("host-a", {}).sequence == 900
    assert server.store.take_heartbeat("host-b", {}).sequence == 0


def test_refresh_and_unwire_move_a_port(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.wire(port)
    agent.send(agent.report(port, FlowName.REFRESH, fails="apply-security-groups"))
    assert server.state(port) == ("DOWN", "OUT_OF_SYNC")
    agent.send(agent.report(port, FlowName.REFRESH))
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    agent.send(agent.report(port, FlowName.UNWIRE))
    assert server.state(port) == ("DOWN", "ABSENT")
    agent.send(agent.report(port, FlowName.REFRESH))
    assert server.state(port) == ("DOWN", "OUT_OF_SYNC")
