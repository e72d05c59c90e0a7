"""Long loops let other threads run where these are eventlet's, and cost nothing elsewhere."""

import gc
import subprocess
import sys
from pathlib import Path

from agent_flows.fairness import apart, fair, keep_loaded

ROOT = Path(__file__).parents[2]
# Another green thread counts how often it runs.
COUNTS = """
import eventlet
eventlet.monkey_patch()
import gc
import sqlite3
import time
import uuid
from eventlet import patcher
from agent_flows.fairness import apart, fair, keep_loaded

runs = 0

def other():
    global runs
    while True:
        runs += 1
        time.sleep(0)

eventlet.spawn(other)
time.sleep(0)

def runs_during(work):
    before = runs
    work()
    return runs - before

# Of the system's: no green thread runs meanwhile.
def wait_for_a_disk():
    patcher.original("time").sleep(0.02)

def compute(items):
    for _ in items:
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass
"""
LOOP = """
assert runs_during(lambda: compute(range(10))) == 0
assert runs_during(lambda: compute(fair(range(10)))) >= 9
assert list(fair(iter("abc"))) == list("abc")
"""
WAIT = """
assert runs_during(wait_for_a_disk) == 0
assert runs_during(lambda: apart(wait_for_a_disk)) > 0
assert apart(lambda: 7) == 7
try:
    apart(lambda: 1 / 0)
except ZeroDivisionError:
    pass
else:
    raise AssertionError("it raised nothing")
"""
OUTBOX = """
from agent_flows.report import FlowName, FlowReport, Step, TaskOutcome, TaskState
from agent_flows.reporting.outbox import Outbox
from agent_flows.engine.transcript import utcnow

class Slow(sqlite3.Connection):
    def commit(self):
        wait_for_a_disk()
        super().commit()

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **named: connect(*arguments, factory=Slow, **named)
outbox = Outbox(":memory:", 10)
done = TaskOutcome("verify-wiring", Step.L2, TaskState.SUCCEEDED, utcnow(), 0.0)
report = FlowReport(
    id=str(uuid.uuid4()), host="compute-1", resource_id=str(uuid.uuid4()), flow=FlowName.WIRE,
    revision=1, security_group_revisions={}, attempt=1, started_at=utcnow(), finished_at=utcnow(),
    tasks=(done,),
)
assert runs_during(lambda: outbox.put([report])) > 0
assert [each.id for each in outbox.oldest(10, 10_000)] == [report.id]
assert runs_during(lambda: outbox.forget([report.id])) > 0
assert len(outbox) == 0
"""
LOADED = """
keep_loaded()
kept = gc.get_freeze_count()
assert kept > 10_000, kept
"""


def run_green(script: str) -> None:
    argv = [sys.executable, "-W", "ignore", "-c", COUNTS + script]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_changes_where_threads_are_the_systems() -> None:
    items = [1, 2, 3]
    assert fair(items) is items
    assert apart(lambda: items) is items
    keep_loaded()
    assert gc.get_freeze_count() == 0


def test_other_green_threads_run_while_a_long_loop_computes() -> None:
    run_green(LOOP)


def test_other_green_threads_run_while_one_waits_for_a_disk() -> None:
    run_green(WAIT)


def test_other_green_threads_run_while_a_report_is_written_to_a_slow_disk() -> None:
    run_green(OUTBOX)


def test_no_garbage_is_looked_for_in_what_a_process_with_green_threads_loaded() -> None:
    run_green(LOADED)
