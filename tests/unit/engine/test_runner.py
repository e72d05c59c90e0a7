"""A batch goes through one flow; each port gets its own report."""

import datetime
import errno
from collections.abc import Callable, Mapping, Sequence

import pytest
from taskflow import engines, states
from taskflow.flow import Flow
from taskflow.patterns import graph_flow, linear_flow

from agent_flows.engine import transcript
from agent_flows.engine.runner import Runner, Work
from agent_flows.engine.task import FlowTask, PortErrors, Skipped, TaskFailed
from agent_flows.report import FlowName, FlowReport, Step, TaskError, TaskState

REFUSED = TaskError("TABLE_FULL", "the switch refused the port's flows", "OFPFMFC_TABLE_FULL")


def port(n: int) -> str:
    return f"00000000-0000-4000-8000-{n:012d}"


class Recorder:
    """What the tasks of a run did, in order."""

    def __init__(self) -> None:
        self.executed: list[tuple[str, tuple[str, ...]]] = []
        self.reverted: list[tuple[str, tuple[str, ...]]] = []


class Recording(FlowTask):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def execute(self, port_ids: tuple[str, ...]) -> object:
        self.recorder.executed.append((self.name_, port_ids))
        return self.act(port_ids)

    def act(self, port_ids: tuple[str, ...]) -> object:
        return None

    def revert(self, port_ids: tuple[str, ...], **_: object) -> None:
        self.recorder.reverted.append((self.name_, port_ids))


class Locate(Recording):
    name_ = "locate-interface"
    step = Step.L2


class RaiseLink(Recording):
    name_ = "raise-link"
    step = Step.L2

    def act(self, port_ids: tuple[str, ...]) -> object:
        return Skipped({port(9): "vhost-user"})


class Apply(Recording):
    name_ = "apply-security-groups"
    step = Step.SECURITY_GROUPS

    def __init__(self, recorder: Recorder, trouble: Callable[[tuple[str, ...]], None]) -> None:
        super().__init__(recorder)
        self.trouble = trouble

    def act(self, port_ids: tuple[str, ...]) -> object:
        self.trouble(port_ids)
        return None


class Verify(Recording):
    name_ = "verify-security-groups"
    step = Step.SECURITY_GROUPS


def run_flow(compose: Callable[[], Flow], ports: Sequence[str] = (port(1),)) -> list[FlowReport]:
    reports: list[FlowReport] = []
    work = [Work(port_id, 7, {}, 1) for port_id in ports]
    Runner("host1").run(FlowName.WIRE, compose, work, {}, reports.extend)
    return reports


def run(
    ports: Sequence[str],
    trouble: Callable[[tuple[str, ...]], None],
    recorder: Recorder | None = None,
) -> tuple[list[FlowReport], Recorder]:
    recorder = recorder or Recorder()
    reports = run_flow(
        lambda: linear_flow.Flow("wire").add(
            Locate(recorder), RaiseLink(recorder), Apply(recorder, trouble), Verify(recorder)
        ),
        ports,
    )
    return reports, recorder


def fine(port_ids: tuple[str, ...]) -> None:
    return None


def by_port(reports: Sequence[FlowReport]) -> Mapping[str, FlowReport]:
    assert len({r.resource_id for r in reports}) == len(reports), "one report per port"
    return {r.resource_id: r for r in reports}


def states_of(report: FlowReport) -> list[str]:
    return [str(task.state) for task in report.tasks]


def test_healthy_batch_is_one_run_in_which_every_task_succeeds() -> None:
    ports = [port(n) for n in range(5)]
    reports, recorder = run(ports, fine)
    assert [ids for _, ids in recorder.executed] == [tuple(ports)] * 4
    for report in by_port(reports).values():
        assert states_of(report) == ["SUCCEEDED"] * 4
        assert report.proves(Step.L2)
        assert report.proves(Step.SECURITY_GROUPS)
        assert all(task.duration is not None and task.started_at for task in report.tasks)
        assert report.revision == 7


def test_task_that_does_not_apply_to_a_port_is_skipped_only_there() -> None:
    reports = by_port(run([port(8), port(9)], fine)[0])
    assert states_of(reports[port(8)])[1] == "SUCCEEDED"
    assert states_of(reports[port(9)])[1] == "SKIPPED"
    assert reports[port(9)].proves(Step.L2)


def test_invariant_6_blamed_port_fails_and_the_others_succeed_in_the_next_run() -> None:
    bad = port(3)

    def refuse(port_ids: tuple[str, ...]) -> None:
        if bad in port_ids:
            raise PortErrors({bad: REFUSED})

    reports, recorder = run([port(n) for n in range(10)], refuse)
    outcome = by_port(reports)
    assert states_of(outcome[bad]) == ["REVERTED", "REVERTED", "FAILED", "PENDING"]
    assert outcome[bad].tasks[2].error == REFUSED
    assert all(r.proves(Step.SECURITY_GROUPS) for p, r in outcome.items() if p != bad)
    applies = [ids for name, ids in recorder.executed if name == "apply-security-groups"]
    assert [len(ids) for ids in applies] == [10, 9]


def test_good_ports_are_delivered_first_and_bad_ones_together() -> None:
    """One at a time is refused, as a switch names only the first flow of a bundle."""
    bad = [port(3), port(5), port(7)]

    def refuse(port_ids: tuple[str, ...]) -> None:
        named = next((port_id for port_id in bad if port_id in port_ids), None)
        if named is not None:
            raise PortErrors({named: REFUSED})

    recorder = Recorder()
    delivered: list[set[str]] = []
    Runner("host-1").run(
        FlowName.REFRESH,
        lambda: linear_flow.Flow("refresh").add(Apply(recorder, refuse)),
        [Work(port(n), 1, {}, 1) for n in range(10)],
        {},
        lambda reports: delivered.append({report.resource_id for report in reports}),
    )
    assert delivered == [{port(n) for n in range(10)} - set(bad), set(bad)]


def test_invariant_6_failure_without_blame_is_bisected_to_its_ports() -> None:
    bad = {port(3), port(12)}

    def fail(port_ids: tuple[str, ...]) -> None:
        if bad & set(port_ids):
            raise TaskFailed(TaskError("Refused", "something in there is wrong"))

    outcome = by_port(run([port(n) for n in range(16)], fail)[0])
    assert {p for p, r in outcome.items() if r.failed} == bad
    assert len(outcome) == 16


def test_the_good_half_is_reported_before_the_search_for_the_bad_port_ends() -> None:
    def fail(port_ids: tuple[str, ...]) -> None:
        if port(15) in port_ids:
            raise TaskFailed(TaskError("Refused", "something in there is wrong"))

    reports, _ = run([port(n) for n in range(16)], fail)
    assert [r.resource_id for r in reports[:8]] == [port(n) for n in range(8)]
    assert reports[-1].resource_id == port(15)


def test_timeout_fails_the_whole_batch_without_a_search() -> None:
    def hang(port_ids: tuple[str, ...]) -> None:
        raise TaskFailed(TaskError("Timeout", "ovs-ofctl took over 30 s"), whole_batch=True)

    reports, recorder = run([port(n) for n in range(16)], hang)
    assert [n for n, _ in recorder.executed].count("apply-security-groups") == 1
    assert all(r.failed and r.failed.error and r.failed.error.type == "Timeout" for r in reports)


def test_invariant_9_unexpected_exception_in_a_task_becomes_an_outcome() -> None:
    def explode(port_ids: tuple[str, ...]) -> None:
        raise ZeroDivisionError("division by zero")

    (report,), recorder = run([port(1)], explode)
    assert report.failed is not None
    assert report.failed.error is not None
    assert report.failed.error.type == "ZeroDivisionError"
    assert report.failed.error.message == "division by zero"
    assert "in explode" in report.failed.error.detail
    assert [name for name, _ in recorder.reverted] == [
        "apply-security-groups",
        "raise-link",
        "locate-interface",
    ]


def test_invariant_8_order_revert_and_states_are_taskflows_own() -> None:
    """The report contains what TaskFlow notified, and nothing else."""
    calls: list[tuple[str, str]] = []

    class First(Recording):
        name_ = "first"
        step = Step.L2
        default_provides = "made"

        def act(self, port_ids: tuple[str, ...]) -> object:
            calls.append(("first", "executed"))
            return "made by first"

        def revert(self, result: object, **_: object) -> None:
            calls.append(("first", f"reverted {result}"))

    class Second(Recording):
        name_ = "second"
        step = Step.SECURITY_GROUPS

        def execute(self, port_ids: tuple[str, ...], made: str) -> object:  # type: ignore[override]
            calls.append(("second", f"got {made}"))
            raise PortErrors({port(1): REFUSED})

    recorder = Recorder()
    # A graph: only TaskFlow knows which task needs which result, and orders them.
    reports = run_flow(lambda: graph_flow.Flow("wire").add(Second(recorder), First(recorder)))
    assert calls == [
        ("first", "executed"),
        ("second", "got made by first"),
        ("first", "reverted made by first"),
    ]
    assert [(t.name, str(t.state)) for t in reports[0].tasks] == [
        ("first", "REVERTED"),
        ("second", "FAILED"),
    ]


def test_blame_of_a_port_outside_the_batch_is_bisected() -> None:
    def mistaken(port_ids: tuple[str, ...]) -> None:
        if port(2) in port_ids:
            raise PortErrors({port(99): REFUSED})

    outcome = by_port(run([port(1), port(2)], mistaken)[0])
    assert outcome[port(1)].failed is None
    assert outcome[port(2)].failed is not None


def test_invariant_9_failed_revert_is_reported_beside_its_cause() -> None:
    class Stubborn(Locate):
        def revert(self, port_ids: tuple[str, ...], **_: object) -> None:
            raise OSError("the switch is gone")

    def refuse(port_ids: tuple[str, ...]) -> None:
        raise PortErrors({port(1): REFUSED})

    recorder = Recorder()
    reports = run_flow(
        lambda: linear_flow.Flow("wire").add(Stubborn(recorder), Apply(recorder, refuse))
    )
    locate, apply = reports[0].tasks
    assert (locate.state, apply.state) == (TaskState.FAILED, TaskState.FAILED)
    assert locate.error is not None
    assert locate.error.type == "RevertFailed"
    assert "the switch is gone" in locate.error.message
    assert apply.error == REFUSED
    assert reports[0].failed == apply, "the cause comes before its effect"


def test_failed_task_whose_own_revert_fails_shows_the_cause() -> None:
    class Stuck(Apply):
        def revert(self, port_ids: tuple[str, ...], **_: object) -> None:
            raise OSError("the switch is gone")

    def refuse(port_ids: tuple[str, ...]) -> None:
        raise PortErrors({port(1): REFUSED})

    recorder = Recorder()
    reports = run_flow(
        lambda: linear_flow.Flow("wire").add(Locate(recorder), Stuck(recorder, refuse))
    )
    failed = reports[0].failed
    assert failed is not None
    assert failed.error is not None
    assert failed.name == "apply-security-groups"
    assert (failed.error.type, failed.error.message) == (REFUSED.type, REFUSED.message)
    assert "RevertFailed" in failed.error.detail
    assert "the switch is gone" in failed.error.detail


HOSTS_FAULTS = {
    "no memory": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "no file left": OSError(errno.EMFILE, "Too many open files"),
    "no tool": FileNotFoundError(errno.ENOENT, "No such file or directory", "ovs-ofctl"),
    "no time": TimeoutError("timed out"),
    "no memory in Python": MemoryError(),
}


@pytest.mark.parametrize("fault", HOSTS_FAULTS.values(), ids=HOSTS_FAULTS)
def test_a_fault_of_the_host_fails_every_port_after_one_run_and_one_line(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(port_ids: tuple[str, ...]) -> None:
        raise fault

    ports = [port(n) for n in range(64)]
    reports, recorder = run(ports, fail)
    assert [name for name, _ in recorder.executed].count("apply-security-groups") == 1
    assert {r.failed.error.type for r in reports if r.failed and r.failed.error} == {
        type(fault).__name__
    }
    assert set(by_port(reports)) == set(ports)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].exc_info is None


def test_error_of_one_device_is_bisected_and_logged_in_full_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(port_ids: tuple[str, ...]) -> None:
        if port(5) in port_ids:
            raise OSError(errno.ENODEV, "No such device")

    outcome = by_port(run([port(n) for n in range(16)], fail)[0])
    assert [p for p, r in outcome.items() if r.failed] == [port(5)]
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_error_with_an_invalid_type_name_is_reported() -> None:
    class _UnusualError(Exception):
        pass

    def fail(port_ids: tuple[str, ...]) -> None:
        raise _UnusualError

    [report] = run([port(1)], fail)[0]
    assert report.failed is not None
    assert report.failed.error is not None
    assert report.failed.error.type == "UnusualError"


@pytest.mark.parametrize("year", [1970, 2500])
def test_host_with_a_wrong_clock_reports(monkeypatch: pytest.MonkeyPatch, year: int) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
            return cls(year, 1, 1, tzinfo=tz)

    monkeypatch.setattr(transcript.datetime, "datetime", Clock)
    [report] = run([port(1)], fine)[0]
    assert report.failed is None


def test_impossible_state_change_raises_an_error() -> None:
    recorder = Recorder()
    engine = engines.load(linear_flow.Flow("wire").add(Locate(recorder)), store={"port_ids": ()})
    engine.compile()
    record = transcript.Transcript(
        engine, {"locate-interface": Locate(recorder)}, transcript.utcnow
    )
    record._task_receiver(states.REVERTED, {"task_name": "locate-interface"})
    with pytest.raises(RuntimeError, match="locate-interface from PENDING to REVERTED"):
        record.outcomes(port(1))


def test_flow_with_missing_inputs_raises_an_error() -> None:
    class Needy(Locate):
        def execute(self, port_ids: tuple[str, ...], never_given: object) -> object:  # type: ignore[override]
            return None

    with pytest.raises(Exception, match="never_given"):
        run_flow(lambda: linear_flow.Flow("wire").add(Needy(Recorder())))
