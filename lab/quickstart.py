"""``tools/quickstart``: runs the story, prints it, and leaves nothing behind (or keeps it)."""

import argparse
import dataclasses
import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

from lab.process import Terminated, orderly_signals, wait_until
from lab.story import Story
from lab.traces import sweep

# Held by the process that keeps a quickstart alive; its process id is inside.
_LOCK = Path("/run/lock/agent-flows-quickstart")
_STOP_SECONDS = 60
_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/quickstart", description=__doc__)
    parser.add_argument("--json", action="store_true")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--keep", action="store_true")
    ending.add_argument("--stop", action="store_true")
    options = parser.parse_args()
    if options.stop:
        return stop()
    try:
        with orderly_signals():
            return keep(options.json) if options.keep else play(options.json)
    except Terminated as terminated:
        print(f"ended by {terminated}; everything is put away", file=sys.stderr)
        return _INTERRUPTED


def play(as_json: bool) -> int:
    """Tell the story and put everything away; the exit code."""
    sweep()
    story = _story(as_json)
    with story.stage():
        story.run()
    return _conclude(story, as_json)


def _story(as_json: bool) -> Story:
    out = sys.stderr if as_json else sys.stdout
    return Story(lambda line: print(line, file=out, flush=True))


def _conclude(story: Story, as_json: bool) -> int:
    if as_json:
        print(json.dumps(dataclasses.asdict(story.document)), flush=True)
    return 1 if story.problems else 0


def keep(as_json: bool) -> int:
    """Tell the story in a process that stays behind with everything, until :func:`stop`."""
    if _keeper() is not None:
        print("one is running already; end it by: tools/quickstart --stop", file=sys.stderr)
        return 1
    done, tell_done = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(done)
        os._exit(_stay(as_json, tell_done))
    os.close(tell_done)
    try:
        code = os.read(done, 1)
    except Terminated:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    return code[0] if code else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1


def _stay(as_json: bool, tell_done: int) -> int:
    """The keeper's life: in a session of its own, so that the terminal may close."""
    os.setsid()
    lock = _LOCK.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(str(os.getpid()))
    lock.flush()
    story = _story(as_json)
    try:
        with story.stage():
            story.run()
            code = _conclude(story, as_json)
            _say_how_to_look(story, sys.stderr if as_json else sys.stdout)
            os.write(tell_done, bytes([code]))
            _let_go_of_the_terminal(tell_done)
            signal.pause()
    except Terminated:
        return 0
    finally:
        _LOCK.unlink(missing_ok=True)
    return 0


def _say_how_to_look(story: Story, out: TextIO) -> None:
    lines = ["", "It is still running. To look at it:"]
    lines += [f"  {command}" for command in story.how_to_look()]
    lines += ["To end it:", "  tools/quickstart --stop"]
    print("\n".join(lines), file=out, flush=True)


def _let_go_of_the_terminal(tell_done: int) -> None:
    os.close(tell_done)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _keeper() -> int | None:
    """The process that keeps a quickstart alive, if there is one."""
    if not _LOCK.exists():
        return None
    with _LOCK.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read())
    return None


def stop() -> int:
    """End what an earlier ``--keep`` left running, and wait until it is gone."""
    keeper = _keeper()
    if keeper is None:
        print("nothing to stop", file=sys.stderr)
        return 0
    os.kill(keeper, signal.SIGTERM)
    wait_until(lambda: _keeper() is None, _STOP_SECONDS, "the quickstart is put away", poll=0.1)
    print("stopped; nothing is left", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
