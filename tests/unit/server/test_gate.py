"""The gate: each row of the design's table, and what no report may cause."""

import dataclasses
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows.report import (
    FlowName,
    FlowReport,
    PortStatus,
    Step,
    SyncState,
    TaskError,
    TaskOutcome,
    TaskState,
)
from agent_flows.server.core.gate import (
    PortState,
    Ruling,
    Settings,
    StatusFrom,
    decide,
    without_gating,
)
from lab.model import WIRE, flow_report, new_id

PORT, GROUP = new_id(), new_id()
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SETTINGS = Settings()
KEEP = Settings(keep_active_on_refresh_failure=True)


def port(**fields: Any) -> PortState:
    values: dict[str, Any] = {
        "id": PORT,
        "host": "host-a",
        "revision": 5,
        "status": PortStatus.DOWN,
        "sync_state": SyncState.SYNCING,
        "sequence": 100,
        "security_group_revisions": {GROUP: 7},
        **fields,
    }
    return PortState(**values)


def report(**fields: Any) -> FlowReport:
    values: dict[str, Any] = {
        "resource_id": PORT,
        "revision": 5,
        "sequence": 101,
        "security_group_revisions": {GROUP: 7},
        **fields,
    }
    return flow_report(**values)


ACTIVE = port(status=PortStatus.ACTIVE, sync_state=SyncState.IN_SYNC, proven_revision=5)


def outcome(before: PortState, sent: FlowReport, settings: Settings = SETTINGS) -> tuple[str, str]:
    decision = decide(before, sent, settings)
    return decision.port.status.value, decision.port.sync_state.value


# The table of the design, row by row.


@pytest.mark.parametrize("host", ["host-b", None])
def test_invariant_10_a_report_from_another_host_than_the_bound_one_is_refused(
    host: str | None,
) -> None:
    before = dataclasses.replace(ACTIVE, host=host)
    decision = decide(before, report(fails="apply-security-groups"), SETTINGS)
    assert decision.ruling is Ruling.REFUSED
    assert "host-a" in decision.reason
    assert decision.port == before


@pytest.mark.parametrize("sequence", [1, 99, 100])
def test_a_sequence_that_is_not_newer_changes_nothing(sequence: int) -> None:
    decision = decide(ACTIVE, report(sequence=sequence, fails="bind-vlan"), SETTINGS)
    assert decision.ruling is Ruling.STALE
    assert decision.port == ACTIVE


def test_an_older_revision_leaves_the_status_and_is_syncing() -> None:
    assert outcome(ACTIVE, report(revision=4)) == ("ACTIVE", "SYNCING")
    assert outcome(port(), report(revision=4)) == ("DOWN", "SYNCING")


def test_an_older_revision_that_failed_leaves_the_status_too() -> None:
    assert outcome(ACTIVE, report(revision=4, fails="bind-vlan")) == ("ACTIVE", "SYNCING")


@pytest.mark.parametrize("revisions", [{GROUP: 6}, {}, {new_id(): 7}])
def test_an_older_security_group_is_an_older_revision(revisions: dict[str, int]) -> None:
    sent = report(security_group_revisions=revisions)
    assert outcome(port(), sent) == ("DOWN", "SYNCING")


@pytest.mark.parametrize("fields", [{"revision": 6}, {"security_group_revisions": {GROUP: 8}}])
def test_a_revision_the_server_does_not_know_yet_proves_nothing(fields: dict[str, Any]) -> None:
    assert outcome(port(), report(**fields)) == ("DOWN", "SYNCING")


def test_the_groups_of_a_port_without_port_security_do_not_matter() -> None:
    unguarded = port(security_group_revisions={})
    assert outcome(unguarded, report(security_group_revisions={})) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize("flow", [FlowName.WIRE, FlowName.RESYNC])
def test_a_port_of_which_every_required_step_succeeded_is_active(flow: FlowName) -> None:
    assert outcome(port(), report(flow=flow)) == ("ACTIVE", "IN_SYNC")


def test_a_port_that_is_administratively_down_is_down_and_in_sync() -> None:
    assert outcome(port(admin_state_up=False), report()) == ("DOWN", "IN_SYNC")


@pytest.mark.parametrize("name", list(WIRE))
def test_a_failed_task_takes_the_port_down(name: str) -> None:
    assert outcome(ACTIVE, report(fails=name)) == ("DOWN", "OUT_OF_SYNC")


@pytest.mark.parametrize("missing", list(Step))
def test_invariant_2_a_missing_required_step_is_a_failure(missing: Step) -> None:
    tasks = tuple(task for task in report().tasks if task.step is not missing)
    assert outcome(ACTIVE, report(tasks=tasks)) == ("DOWN", "OUT_OF_SYNC")


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.RUNNING, TaskState.REVERTED])
@pytest.mark.parametrize("name", list(WIRE))
def test_a_task_that_did_not_succeed_is_a_failure(name: str, state: TaskState) -> None:
    tasks = tuple(
        dataclasses.replace(task, state=state) if task.name == name else task
        for task in report().tasks
    )
    assert outcome(ACTIVE, report(tasks=tasks)) == ("DOWN", "OUT_OF_SYNC")


def audit(state: TaskState = TaskState.FAILED, **fields: Any) -> FlowReport:
    error = TaskError("Drift", "the tag is 999 instead of 2") if state is TaskState.FAILED else None
    outcome = TaskOutcome("compare-switch", Step.L2, state, NOW, 0.0, error)
    return report(flow=FlowName.AUDIT, tasks=(outcome,), **fields)


def test_found_drift_leaves_the_status_and_is_out_of_sync() -> None:
    decision = decide(ACTIVE, audit(), SETTINGS)
    assert (decision.ruling, decision.port.status) == (Ruling.DRIFTED, PortStatus.ACTIVE)
    assert decision.port.sync_state is SyncState.OUT_OF_SYNC
    # A refresh after it is proof with the wiring as it was proven before.
    assert decision.port.proven_revision == ACTIVE.proven_revision


def test_repaired_drift_is_in_sync_and_a_failed_repair_takes_the_port_down() -> None:
    drifted = decide(ACTIVE, audit(), SETTINGS).port
    repaired = report(flow=FlowName.RESYNC, sequence=102)
    assert outcome(drifted, repaired) == ("ACTIVE", "IN_SYNC")
    failed = report(flow=FlowName.RESYNC, sequence=102, fails="verify-security-groups")
    assert outcome(drifted, failed) == ("DOWN", "OUT_OF_SYNC")


def test_invariant_2_an_audit_that_found_nothing_proves_nothing() -> None:
    down = port(proven_revision=None)
    decision = decide(down, audit(TaskState.SUCCEEDED), SETTINGS)
    assert decision.port == dataclasses.replace(down, sequence=101)


def test_drift_of_an_older_revision_leaves_a_port_syncing() -> None:
    assert outcome(ACTIVE, audit(revision=4)) == ("ACTIVE", "SYNCING")


def test_a_port_without_a_kernel_link_skips_raising_it() -> None:
    assert outcome(port(), report(tasks=skipping("raise-link"))) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize("name", [name for name in WIRE if name != "raise-link"])
def test_no_other_task_may_be_skipped(name: str) -> None:
    assert outcome(ACTIVE, report(tasks=skipping(name))) == ("DOWN", "OUT_OF_SYNC")


def skipping(name: str) -> tuple[TaskOutcome, ...]:
    return tuple(
        dataclasses.replace(task, state=TaskState.SKIPPED) if task.name == name else task
        for task in report().tasks
    )


@pytest.mark.parametrize("revision", [3, 5, 6])
def test_unwired_port_is_absent_at_any_revision(revision: int) -> None:
    sent = report(flow=FlowName.UNWIRE, revision=revision, security_group_revisions={})
    decision = decide(ACTIVE, sent, SETTINGS)
    assert decision.ruling is Ruling.UNWIRED
    assert (decision.port.status, decision.port.sync_state) == (PortStatus.DOWN, SyncState.ABSENT)
    assert decision.port.proven_revision is None


def test_a_failed_unwire_is_out_of_sync() -> None:
    sent = report(flow=FlowName.UNWIRE, fails="release-vlan")
    assert outcome(ACTIVE, sent) == ("DOWN", "OUT_OF_SYNC")


# Refresh: it carries the security groups alone.


def test_a_refresh_of_a_port_whose_wiring_is_proven_keeps_it_active() -> None:
    before = dataclasses.replace(ACTIVE, sync_state=SyncState.SYNCING)
    assert outcome(before, report(flow=FlowName.REFRESH)) == ("ACTIVE", "IN_SYNC")


def test_refresh_repairs_a_failed_refresh() -> None:
    broken = decide(ACTIVE, report(flow=FlowName.REFRESH, fails="apply-security-groups"), SETTINGS)
    assert broken.port.sync_state is SyncState.OUT_OF_SYNC
    healed = decide(broken.port, report(flow=FlowName.REFRESH, sequence=102), SETTINGS)
    assert (healed.port.status, healed.port.sync_state) == (PortStatus.ACTIVE, SyncState.IN_SYNC)


@pytest.mark.parametrize("proven", [None, 4])
def test_a_refresh_proves_no_wiring_of_its_own(proven: int | None) -> None:
    before = port(proven_revision=proven)
    assert outcome(before, report(flow=FlowName.REFRESH)) == ("DOWN", "OUT_OF_SYNC")


@pytest.mark.parametrize("revisions", [{GROUP: 7}, {GROUP: 6}])
def test_a_wiring_that_failed_is_not_proven_by_a_later_refresh(revisions: dict[str, int]) -> None:
    sent = report(fails="bind-vlan", security_group_revisions=revisions)
    after = decide(ACTIVE, sent, SETTINGS).port
    refreshed = decide(after, report(flow=FlowName.REFRESH, sequence=102), SETTINGS)
    assert (refreshed.port.status, refreshed.port.sync_state) == (
        PortStatus.DOWN,
        SyncState.OUT_OF_SYNC,
    )


def test_a_failed_refresh_takes_the_port_down_unless_the_operator_keeps_it() -> None:
    sent = report(flow=FlowName.REFRESH, fails="verify-security-groups")
    assert outcome(ACTIVE, sent) == ("DOWN", "OUT_OF_SYNC")
    assert outcome(ACTIVE, sent, KEEP) == ("ACTIVE", "OUT_OF_SYNC")
    assert outcome(port(proven_revision=5), sent, KEEP) == ("DOWN", "OUT_OF_SYNC")


def test_only_a_failed_refresh_keeps_the_port_active() -> None:
    assert outcome(ACTIVE, report(fails="apply-security-groups"), KEEP) == ("DOWN", "OUT_OF_SYNC")


# The operator's choice of steps.


def test_failed_step_that_is_not_required_shows_and_leaves_the_port_active() -> None:
    only_l2 = Settings(frozenset({Step.L2}))
    tasks = tuple(
        dataclasses.replace(task, state=TaskState.FAILED, error=TaskError("SwitchError", "no"))
        if task.name == "apply-security-groups"
        else task
        for task in report().tasks
    )
    assert outcome(port(), report(tasks=tasks), only_l2) == ("ACTIVE", "OUT_OF_SYNC")


def test_without_a_required_step_there_is_no_gate() -> None:
    with pytest.raises(ValueError, match="required_steps"):
        Settings(frozenset())


# For any reports.

MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
names = st.sampled_from([*WIRE, "other"])
tasks = st.lists(
    st.builds(
        lambda name, step, state: TaskOutcome(
            name,
            step,
            state,
            error=TaskError("SwitchError", "no") if state is TaskState.FAILED else None,
        ),
        names,
        st.sampled_from(Step),
        st.sampled_from(TaskState),
    ),
    min_size=1,
    max_size=7,
    unique_by=lambda task: task.name,
)
small = st.integers(1, 4)
reports = st.builds(
    lambda flow, revision, group, sequence, host, tasks: FlowReport(
        id=new_id(),
        host=host,
        resource_id=PORT,
        flow=flow,
        revision=revision,
        attempt=1,
        sequence=sequence,
        started_at=MOMENT,
        finished_at=MOMENT,
        tasks=tuple(tasks),
        security_group_revisions={GROUP: group},
    ),
    st.sampled_from(FlowName),
    small,
    small,
    small,
    st.sampled_from(["host-a", "host-b"]),
    tasks,
)
ports = st.builds(
    lambda revision, group, sequence, status, sync_state, proven, up: port(
        revision=revision,
        security_group_revisions={GROUP: group},
        sequence=sequence,
        status=status,
        sync_state=sync_state,
        proven_revision=proven,
        admin_state_up=up,
    ),
    small,
    small,
    small,
    st.sampled_from(PortStatus),
    st.sampled_from(SyncState),
    st.none() | small,
    st.booleans(),
)
settings = st.builds(Settings, st.frozensets(st.sampled_from(Step), min_size=1), st.booleans())


@given(ports, reports, settings)
def test_invariant_2_active_means_proven(
    before: PortState, sent: FlowReport, chosen: Settings
) -> None:
    decision = decide(before, sent, chosen)
    if decision.port.status is PortStatus.ACTIVE and before.status is not PortStatus.ACTIVE:
        assert sent.host == before.host
        assert sent.sequence > before.sequence
        assert sent.revision == before.revision
        assert sent.security_group_revisions == before.security_group_revisions
        assert before.admin_state_up
        for step in chosen.required_steps:
            wired_before = sent.flow is FlowName.REFRESH and before.proven_revision == sent.revision
            assert sent.proves(step) or (step is Step.L2 and wired_before)
    if decision.port.sync_state is SyncState.IN_SYNC and decision.ruling is not Ruling.STALE:
        assert decision.ruling is Ruling.PROVEN or before.sync_state is SyncState.IN_SYNC


@given(ports, st.lists(reports, max_size=6), settings)
def test_invariant_4_old_never_overwrites_new(
    before: PortState, received: list[FlowReport], chosen: Settings
) -> None:
    state = before
    for sent in received:
        decision = decide(state, sent, chosen)
        after = decision.port
        if sent.host != state.host or sent.sequence <= state.sequence:
            assert after == state
        else:
            assert after.sequence == sent.sequence
        state = after


@given(ports, reports, settings)
def test_invariant_3_a_report_that_arrives_twice_counts_once(
    before: PortState, sent: FlowReport, chosen: Settings
) -> None:
    once = decide(before, sent, chosen).port
    assert decide(once, sent, chosen).port == once


# The revision number also rises for changes that do not concern the wiring.

RENAMED = dataclasses.replace(ACTIVE, revision=5, latest_revision=8)


@pytest.mark.parametrize("revision", [5, 6, 8])
def test_revision_without_a_change_of_the_wiring_proves_the_port(revision: int) -> None:
    before = dataclasses.replace(RENAMED, status=PortStatus.DOWN, proven_revision=None)
    assert outcome(before, report(revision=revision)) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize("revision", [4, 9])
def test_revision_before_or_after_these_proves_nothing(revision: int) -> None:
    before = dataclasses.replace(RENAMED, status=PortStatus.DOWN, proven_revision=None)
    assert outcome(before, report(revision=revision)) == ("DOWN", "SYNCING")


def test_refresh_relies_on_a_wiring_proven_at_any_of_these_revisions() -> None:
    sent = report(revision=8, flow=FlowName.REFRESH)
    assert outcome(RENAMED, sent) == ("ACTIVE", "IN_SYNC")
    older = dataclasses.replace(RENAMED, proven_revision=4)
    assert outcome(older, sent) == ("DOWN", "OUT_OF_SYNC")


# While gating is off.


def ungated(before: PortState, sent: FlowReport, source: StatusFrom) -> tuple[str, str]:
    decision = without_gating(before, decide(before, sent, SETTINGS), source)
    return decision.port.status.value, decision.port.sync_state.value


@pytest.mark.parametrize(
    ("before", "sent", "by_reports", "as_neutron"),
    [
        (port(), report(), ("ACTIVE", "IN_SYNC"), ("ACTIVE", "IN_SYNC")),
        (port(), report(fails="bind-vlan"), ("ACTIVE", "OUT_OF_SYNC"), ("DOWN", "OUT_OF_SYNC")),
        (ACTIVE, report(fails="bind-vlan"), ("ACTIVE", "OUT_OF_SYNC"), ("ACTIVE", "OUT_OF_SYNC")),
        (port(), report(revision=4), ("ACTIVE", "SYNCING"), ("DOWN", "SYNCING")),
        (ACTIVE, report(flow=FlowName.UNWIRE), ("DOWN", "ABSENT"), ("ACTIVE", "ABSENT")),
        (port(admin_state_up=False), report(), ("DOWN", "IN_SYNC"), ("DOWN", "IN_SYNC")),
        (port(), report(sequence=1), ("DOWN", "SYNCING"), ("DOWN", "SYNCING")),
        (port(), report(host="host-b"), ("DOWN", "SYNCING"), ("DOWN", "SYNCING")),
    ],
)
def test_while_gating_is_off_the_sync_state_stays_true_and_the_status_needs_no_proof(
    before: PortState, sent: FlowReport, by_reports: tuple[str, str], as_neutron: tuple[str, str]
) -> None:
    assert ungated(before, sent, StatusFrom.REPORTS) == by_reports
    assert ungated(before, sent, StatusFrom.NEUTRON) == as_neutron
