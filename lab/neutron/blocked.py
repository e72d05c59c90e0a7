"""Neutron's Open vSwitch agent with a record of what kept its one thread for how long.

    python -m lab.neutron.blocked RECORD PROGRAM ARGUMENTS...

Only for the agent of Neutron 26, whose threads are eventlet's: while one of them runs, none of the
others does. RECORD gets a line of JSON for every time that no other thread could run for
``LEAST_MS`` or longer.
"""

import collections
import contextlib
import importlib.metadata
import json
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

    def beat() -> None:
        nonlocal last
        with record.open("w", buffering=1) as file:
            while True:
                last, cpu = time.perf_counter(), time.thread_time()
                seen.clear()
                eventlet.sleep(_BEAT_SECONDS)
                ms = (time.perf_counter() - last - _BEAT_SECONDS) * 1000
                if ms >= LEAST_MS:
                    cpu_ms = (time.thread_time() - cpu) * 1000
                    line = {"ms": round(ms, 1), "cpu_ms": round(cpu_ms, 1)}
                    file.write(json.dumps({**line, "at": seen.most_common(12)}) + "\n")

    def sample() -> None:
        while True:
            sleep(_SAMPLE_SECONDS)
            if time.perf_counter() - last > _BEAT_SECONDS + _SAMPLE_SECONDS:
                with contextlib.suppress(RuntimeError):  # It has just been cleared.
                    seen[place_of(sys._current_frames().get(main))] += 1

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
