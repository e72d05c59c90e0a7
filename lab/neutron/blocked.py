"""Neutron's Open vSwitch agent with a record of what kept its one thread for how long.

    python -m lab.neutron.blocked RECORD PROGRAM ARGUMENTS...

Only for the agent of Neutron 26, whose threads are eventlet's: while one of them runs, none of the
others does. RECORD gets a line of JSON for every time that no other thread could run for
``LEAST_MS`` or longer.
"""

import collections
import contextlib
import gc
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

LEAST_MS = 10
_BEAT_SECONDS = 0.005
_SAMPLE_SECONDS = 0.004
_OURS = "agent_flows/"


def place_of(frame: FrameType | None) -> str:
    """Where a thread is: the innermost line of ours, else the innermost line of anyone."""
    innermost = _line(frame) if frame else "nowhere"
    while frame is not None:
        if _OURS in frame.f_code.co_filename:
            ours = _line(frame)
            return ours if ours == innermost else f"{ours} > {innermost}"
        frame = frame.f_back
    return innermost


def _line(frame: FrameType) -> str:
    file = frame.f_code.co_filename
    start = file.rfind("site-packages/")
    short = file[start + len("site-packages/") :] if start >= 0 else file
    if _OURS in short:
        short = short[short.rindex(_OURS) :]
    return f"{short}:{frame.f_lineno} {frame.f_code.co_name}"


def watch(record: Path) -> None:
    """Start a green thread that wants to run often, and a thread of the system that looks what
    keeps it from that."""
    eventlet: Any = sys.modules.get("eventlet")
    patcher: Any = sys.modules.get("eventlet.patcher")
    if not (eventlet and patcher and patcher.is_monkey_patched("thread")):
        raise SystemExit("this release's agent has threads of the system: none keeps the others")
    threads: Any = patcher.original("threading")
    sleep = patcher.original("time").sleep
    main = threads.get_ident()
    last = time.perf_counter()
    seen: collections.Counter[str] = collections.Counter()
    collecting = collected = 0.0
    # Of the main thread (proc(5)): time on a processor, and waiting for one, in nanoseconds.
    schedule = Path("/proc/self/schedstat")

    def kept_waiting() -> float:
        return int(schedule.read_text().split()[1]) / 1e9

    def note_collection(phase: str, _: object) -> None:
        nonlocal collecting, collected
        if phase == "start":
            collecting = time.thread_time()
        else:
            collected += time.thread_time() - collecting

    def beat() -> None:
        nonlocal last, collected
        with record.open("w", buffering=1) as file:
            while True:
                last, cpu, waited = time.perf_counter(), time.thread_time(), kept_waiting()
                collected = 0.0
                seen.clear()
                eventlet.sleep(_BEAT_SECONDS)
                seconds = {
                    "ms": time.perf_counter() - last - _BEAT_SECONDS,
                    "cpu_ms": time.thread_time() - cpu,
                    "waited_ms": kept_waiting() - waited,
                    "gc_ms": collected,
                }
                line = {name: round(value * 1000, 1) for name, value in seconds.items()}
                if line["ms"] >= LEAST_MS:
                    file.write(json.dumps({**line, "at": seen.most_common(12)}) + "\n")

    def sample() -> None:
        # Whatever else runs, for other threads wait while it has Python's lock.
        with contextlib.suppress(PermissionError):
            scheduler = os.SCHED_RR, os.sched_param(1)
            os.sched_setscheduler(threads.get_native_id(), *scheduler)
        while True:
            sleep(_SAMPLE_SECONDS)
            if time.perf_counter() - last > _BEAT_SECONDS + _SAMPLE_SECONDS:
                with contextlib.suppress(RuntimeError):  # It has just been cleared.
                    seen[place_of(sys._current_frames().get(main))] += 1

    gc.callbacks.append(note_collection)
    eventlet.spawn(beat)
    threads.Thread(target=sample, daemon=True).start()


def main(record: str, program: str, *arguments: str) -> None:
    [entry] = importlib.metadata.entry_points(group="console_scripts", name=Path(program).name)
    # Loading it makes all threads eventlet's.
    run = entry.load()
    sys.argv = [program, *arguments]
    watch(Path(record))
    run()


if __name__ == "__main__":
    main(*sys.argv[1:])
