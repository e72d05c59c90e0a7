"""Tasks of an attempt as bars of a timeline."""

from typing import Any

from agent_flows.page.timeline import WIDTH, attempts


def task(name: str, flow_id: str = "f", **fields: Any) -> dict[str, Any]:
    values = {
        "name": name,
        "flow_id": flow_id,
        "flow": "wire",
        "task_state": "SUCCEEDED",
        "started_at": "2026-01-01T12:00:00.000000+00:00",
        "duration": 1.0,
    }
    return {**values, **fields}


def test_bars_begin_and_end_where_the_tasks_did() -> None:
    first = task("first", started_at="2026-01-01T12:00:00+00:00", duration=1.0)
    second = task("second", started_at="2026-01-01T12:00:01+00:00", duration=3.0)
    (attempt,) = attempts([first, second])
    assert attempt.seconds == 4.0
    assert [(bar.start, bar.width) for bar in attempt.bars] == [
        (0.0, WIDTH / 4),
        (WIDTH / 4, 3 * WIDTH / 4),
    ]


def test_a_task_that_never_ran_has_no_bar() -> None:
    pending = task("second", task_state="PENDING", started_at=None, duration=None)
    (attempt,) = attempts([task("first"), pending])
    assert [bar.width for bar in attempt.bars] == [WIDTH, None]
    (never,) = attempts([pending])
    assert (never.seconds, never.started_at, never.bars[0].width) == (0.0, None, None)


def test_a_task_that_took_no_time_is_seen_and_stays_within_the_timeline() -> None:
    last = task("last", started_at="2026-01-01T12:00:01+00:00", duration=0.0)
    (attempt,) = attempts([task("first"), last])
    bar = attempt.bars[1]
    assert bar.width
    assert bar.start
    assert bar.start + bar.width == WIDTH
    (alone,) = attempts([task("only", duration=0.0)])
    assert alone.bars[0].width


def test_attempts_keep_their_order_and_know_whether_they_failed() -> None:
    failed = task("bind-vlan", "new", task_state="FAILED")
    drift = task("compare-switch", "drift", flow="audit", task_state="FAILED")
    found = attempts([task("first", "new"), failed, drift, task("first", "old")])
    assert [(each.first["flow_id"], each.failed, each.drift) for each in found] == [
        ("new", True, False),
        ("drift", True, True),
        ("old", False, False),
    ]
