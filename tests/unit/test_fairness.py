"""Long loops let other threads run where these are eventlet's, and cost nothing elsewhere."""

import subprocess
import sys
from pathlib import Path

from agent_flows.fairness import fair

ROOT = Path(__file__).parents[2]
# Another green thread counts how often it runs while the loop computes.
GREEN = """
import eventlet
eventlet.monkey_patch()
import time
from agent_flows.fairness import fair

runs = 0

def other():
    global runs
    while True:
        runs += 1
        time.sleep(0)

eventlet.spawn(other)

def computed(items):
    before = runs
    for _ in items:
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass
    return runs - before

assert computed(range(10)) == 0
assert computed(fair(range(10))) >= 9
assert list(fair(iter("abc"))) == list("abc")
"""


def test_the_items_are_passed_on_as_they_are_where_threads_are_the_systems() -> None:
    items = [1, 2, 3]
    assert fair(items) is items


def test_other_green_threads_run_while_a_long_loop_computes() -> None:
    argv = [sys.executable, "-W", "ignore", "-c", GREEN]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
