"""What a report proves, and how the output of a tool fits into it."""

import pytest

from agent_flows import report
from agent_flows.report import (
    SKIPPABLE_TASKS,
    TRANSITIONS,
    FlowReport,
    Step,
    TaskError,
    TaskOutcome,
    TaskState,
)
from lab.model import flow_report

SUCCEEDED, FAILED, SKIPPED = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED
BOUND = ("bind-vlan", Step.L2, SUCCEEDED)


def test_a_long_output_of_a_tool_is_cut_at_4_kib_and_marked() -> None:
    error = TaskError("SwitchError", "refused", "é" * 10_000)
    assert len(error.detail.encode()) <= report.MAX_DETAIL_BYTES
    assert error.detail.endswith("[...]")


def test_a_message_is_one_line() -> None:
    assert TaskError("SwitchError", "two\nlines\there", "").message == "two lines here"


def test_an_undecodable_byte_in_the_output_of_a_tool_is_replaced() -> None:
    detail = TaskError("SwitchError", "refused", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert detail.detail == "caf?"


def ending(*tasks: tuple[str, Step, TaskState]) -> FlowReport:
    """A report whose tasks ended in these states."""
    return flow_report(
        tasks=tuple(
            TaskOutcome(name, step, state, error=TaskError("E", "m") if state is FAILED else None)
            for name, step, state in tasks
        )
    )


@pytest.mark.parametrize("state", [s for s in TaskState if s is not SUCCEEDED])
def test_invariant_2_a_step_is_proven_only_if_all_its_tasks_succeeded(state: TaskState) -> None:
    groups = Step.SECURITY_GROUPS
    read = ending(
        ("apply-security-groups", groups, SUCCEEDED), ("verify-security-groups", groups, state)
    )
    assert not read.proves(groups)


def test_invariant_2_a_step_without_tasks_is_not_proven() -> None:
    assert not ending(BOUND).proves(Step.SECURITY_GROUPS)


def test_a_skipped_task_does_not_prevent_a_proof_and_is_none_by_itself() -> None:
    skipped = (min(SKIPPABLE_TASKS), Step.L2, SKIPPED)
    assert ending(skipped, BOUND).proves(Step.L2)
    assert not ending(skipped).proves(Step.L2)


def test_no_task_of_the_security_groups_may_be_skipped() -> None:
    assert not any("security" in name for name in SKIPPABLE_TASKS)


def test_the_failed_task_is_the_cause() -> None:
    failed = ending(BOUND, ("verify-wiring", Step.L2, FAILED)).failed
    assert failed is not None
    assert failed.name == "verify-wiring"


def test_every_state_has_its_moves_and_a_final_one_has_none() -> None:
    assert set(TRANSITIONS) == set(TaskState)
    assert {state for state, moves in TRANSITIONS.items() if not moves} == {
        FAILED,
        TaskState.REVERTED,
        SKIPPED,
    }
