"""Reports survive the wire unchanged, and nothing malformed gets in."""

import datetime
import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows import report
from agent_flows.report import (
    SKIPPABLE_TASKS,
    TRANSITIONS,
    FlowName,
    FlowReport,
    Step,
    TaskError,
    TaskOutcome,
    TaskState,
)
from agent_flows.rpc import codec
from agent_flows.validation import Invalid

ids = st.uuids().map(str)
words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
names = st.from_regex(r"\A[a-z][a-z0-9-]{0,30}[a-z]\Z")
moments = st.datetimes(
    datetime.datetime(2020, 1, 2), datetime.datetime(2099, 1, 1), timezones=st.just(datetime.UTC)
)
numbers = st.integers(1, 2**31 - 1)


@st.composite
def outcomes(draw: st.DrawFn, name: str) -> TaskOutcome:
    state = draw(st.sampled_from(TaskState))
    reached = state is not TaskState.PENDING
    return TaskOutcome(
        name=name,
        step=draw(st.sampled_from(Step)),
        state=state,
        started_at=draw(moments) if reached else None,
        duration=draw(st.floats(0, 3600)) if reached else None,
        error=draw(st.builds(TaskError, type=names, message=words, detail=words))
        if state is TaskState.FAILED
        else None,
    )


@st.composite
def reports(draw: st.DrawFn) -> FlowReport:
    started = draw(moments)
    tasks = draw(st.lists(names, min_size=1, max_size=8, unique=True))
    return FlowReport(
        id=draw(ids),
        host="compute-1",
        resource_id=draw(ids),
        flow=draw(st.sampled_from(FlowName)),
        revision=draw(st.integers(0, 2**62 - 1)),
        attempt=draw(numbers),
        sequence=draw(st.integers(1, 2**62 - 1)),
        started_at=started,
        finished_at=started + draw(st.timedeltas(datetime.timedelta(0), datetime.timedelta(1))),
        tasks=tuple(draw(outcomes(name)) for name in tasks),
        security_group_revisions=draw(st.dictionaries(ids, st.integers(0, 2**62 - 1), max_size=3)),
    )


@given(reports())
def test_a_report_comes_back_from_json_as_it_was(value: FlowReport) -> None:
    assert codec.report_from_wire(json.loads(json.dumps(codec.to_wire(value)))) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    )
)
def test_anything_else_is_refused_and_never_a_crash(raw: object) -> None:
    with pytest.raises(Invalid):
        codec.report_from_wire(raw)


def outcome(name: str = "bind-vlan", **changes: object) -> dict[str, Any]:
    return {
        "name": name,
        "step": "l2",
        "state": "SUCCEEDED",
        "started_at": "2026-01-01T00:00:00Z",
        "duration": 0.5,
        **changes,
    }


def a_report(**changes: object) -> dict[str, Any]:
    return {
        "version": "1.0",
        "id": str(uuid.UUID(int=1)),
        "host": "compute-1",
        "resource_id": str(uuid.UUID(int=2)),
        "flow": "wire",
        "revision": 3,
        "attempt": 1,
        "sequence": 10,
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:00:01Z",
        "tasks": [outcome()],
        **changes,
    }


def a_task(**changes: object) -> dict[str, Any]:
    return a_report(tasks=[outcome(**changes)])


FAILED_WITHOUT_ERROR = a_task(state="FAILED")
REFUSED = [
    (a_report(colour="red"), "colour", "red"),
    (a_report(id="1"), "id", "1"),
    (a_report(host="../../etc"), "host", "../../etc"),
    (a_report(resource_type="router"), "resource_type", "router"),
    (a_report(flow="delete"), "flow", "delete"),
    (a_report(revision=2**62), "revision", str(2**62)),
    (a_report(attempt=0), "attempt", "0"),
    (a_report(sequence=0), "sequence", "0"),
    (a_report(sequence=1.5), "sequence", "1.5"),
    (a_report(started_at="2026-01-01T00:00:00"), "started_at", "2026-01-01T00:00:00"),
    (a_report(started_at="1970-01-01T00:00:00Z"), "started_at", "1970"),
    (a_report(finished_at="2150-01-01T00:00:00Z"), "finished_at", "2150"),
    (a_report(finished_at="2025-12-31T00:00:00Z"), "finished_at", "2025-12-31"),
    (a_report(tasks=[]), "tasks", "[]"),
    (a_report(tasks=[outcome(f"task-{n}") for n in range(65)]), "tasks", "task-0"),
    (a_report(tasks=[outcome(), outcome()]), "tasks", "bind-vlan"),
    (a_report(security_group_revisions={"x": 1}), "security_group_revisions.x.[key]", "x"),
    (a_task(name="drop table"), "tasks.0.name", "drop table"),
    (a_task(step="l3"), "tasks.0.step", "l3"),
    (a_task(state="DONE"), "tasks.0.state", "DONE"),
    (a_task(duration=-1), "tasks.0.duration", "-1"),
    (a_task(duration=float("nan")), "tasks.0.duration", "nan"),
    (FAILED_WITHOUT_ERROR, "tasks.0.error", "None"),
    (a_task(error={"type": "Timeout", "message": "late"}), "tasks.0.error", "Timeout"),
    (
        a_task(state="FAILED", error={"type": "Time out", "message": ""}),
        "tasks.0.error.type",
        "Time out",
    ),
    (a_report(version="2.0"), "version", "2.0"),
    (a_report(version="1"), "version", "1"),
    ("report", "", "report"),
]


@pytest.mark.parametrize(
    ("raw", "field", "value"), REFUSED, ids=[f"{field}-{value[:20]}" for _, field, value in REFUSED]
)
def test_a_refusal_names_the_field_and_the_value(raw: object, field: str, value: str) -> None:
    with pytest.raises(Invalid) as refusal:
        codec.report_from_wire(raw)
    assert refusal.value.field == field
    assert value in refusal.value.value
    assert len(str(refusal.value)) < 1000


def test_what_a_newer_minor_version_adds_is_ignored() -> None:
    assert codec.report_from_wire(a_report(version="1.1", colour="red")) == codec.report_from_wire(
        a_report()
    )


def test_a_tools_long_answer_is_cut_at_4_kib_and_says_so() -> None:
    error = TaskError("SwitchError", "refused", "é" * 10_000)
    assert len(error.detail.encode()) <= report.MAX_DETAIL_BYTES
    assert error.detail.endswith("[...]")


def test_a_message_is_one_line() -> None:
    assert TaskError("SwitchError", "two\nlines\there", "").message == "two lines here"


def test_a_tools_undecodable_byte_does_not_stop_the_report() -> None:
    detail = TaskError("SwitchError", "refused", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert detail.detail == "caf?"


def steps(*tasks: tuple[str, Step, TaskState]) -> FlowReport:
    return codec.report_from_wire(
        a_report(
            tasks=[
                outcome(
                    name,
                    step=step.value,
                    state=state.value,
                    error={"type": "E", "message": "m"} if state is TaskState.FAILED else None,
                )
                for name, step, state in tasks
            ]
        )
    )


@pytest.mark.parametrize("state", [s for s in TaskState if s is not TaskState.SUCCEEDED])
def test_invariant_2_a_step_is_proven_only_if_all_its_tasks_succeeded(state: TaskState) -> None:
    read = steps(
        ("apply-security-groups", Step.SECURITY_GROUPS, TaskState.SUCCEEDED),
        ("verify-security-groups", Step.SECURITY_GROUPS, state),
    )
    assert not read.proves(Step.SECURITY_GROUPS)


def test_invariant_2_a_step_without_tasks_is_not_proven() -> None:
    assert not steps(("bind-vlan", Step.L2, TaskState.SUCCEEDED)).proves(Step.SECURITY_GROUPS)


def test_a_task_without_an_object_may_be_skipped_but_proves_nothing_alone() -> None:
    skippable = min(SKIPPABLE_TASKS)
    bound = ("bind-vlan", Step.L2, TaskState.SUCCEEDED)
    assert steps((skippable, Step.L2, TaskState.SKIPPED), bound).proves(Step.L2)
    assert not steps((skippable, Step.L2, TaskState.SKIPPED)).proves(Step.L2)


def test_nothing_of_the_security_groups_may_be_skipped() -> None:
    assert not any("security" in name for name in SKIPPABLE_TASKS)


def test_the_first_failed_task_is_the_one_to_show() -> None:
    read = steps(
        ("bind-vlan", Step.L2, TaskState.SUCCEEDED),
        ("verify-wiring", Step.L2, TaskState.FAILED),
    )
    assert read.failed is not None
    assert read.failed.name == "verify-wiring"


def test_every_state_has_its_moves_and_an_end_has_none() -> None:
    assert set(TRANSITIONS) == set(TaskState)
    ends = {state for state, moves in TRANSITIONS.items() if not moves}
    assert ends == {TaskState.FAILED, TaskState.REVERTED, TaskState.SKIPPED}
