"""A process that goes on after the command that started it, until another command ends it."""

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from lab.process import Terminated, orderly_signals, wait_until

_LOCKS = Path("/run/lock")
_STOP_SECONDS = 60

_INTERRUPTED = 130

Work = Callable[[], contextlib.AbstractContextManager[int]]


def until_signalled(work: Callable[[], int]) -> int:
    """The exit code of ``work``; 130 if a signal ended it."""
    try:
        with orderly_signals():
            return work()
    except Terminated as terminated:
        print(f"ended by {terminated}; everything is removed", file=sys.stderr)
        return _INTERRUPTED


class Background:
    """One process at a time; it holds a lock while it runs, and its id is in the lock's file.

    ``end_by`` is the command that ends it.
    """

    def __init__(self, name: str, end_by: str) -> None:
        self._lock = _LOCKS / f"agent-flows-{name}"
        self.end_by = end_by

    def refuses(self) -> bool:
        """Whether one is running; prints how to end it."""
        if self._running() is None:
            return False
        print(f"one is running already; end it by: {self.end_by}", file=sys.stderr)
        return True

    def _running(self) -> int | None:
        """Its process id."""
        if not self._lock.exists():
            return None
        with self._lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read())
        return None

    def keep(self, work: Work) -> int:
        """Enter ``work`` in a process of its own and leave it there; the exit code it gives.

        Call it within :func:`until_signalled`. A signal before ``work`` is
        entered ends it too, and is waited for.
        """
        entered, report = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(entered)
            os._exit(self._stay(work, report))
        os.close(report)
        try:
            code = os.read(entered, 1)
        except Terminated:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
        finally:
            os.close(entered)
        return code[0] if code else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1

    def _stay(self, work: Work, report: int) -> int:
        os.setsid()  # the terminal may close
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                with work() as code:
                    os.write(report, bytes([code]))
                    _detach(report)
                    signal.pause()
            except Terminated:
                return 0
            finally:
                self._lock.unlink(missing_ok=True)
        return 0

    def stop(self) -> int:
        """End it and wait until everything is removed; the exit code."""
        process = self._running()
        if process is not None:
            os.kill(process, signal.SIGTERM)
            wait_until(lambda: self._running() is None, _STOP_SECONDS, "it has ended", poll=0.1)
        print("nothing to stop" if process is None else "stopped; nothing is left", file=sys.stderr)
        return 0


def _detach(report: int) -> None:
    os.close(report)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
