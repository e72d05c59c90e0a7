"""Something that goes on running after the command that started it, until another ends it."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

from lab.process import Terminated, wait_until

_LOCKS = Path("/run/lock")
_STOP_SECONDS = 60

Life = Callable[[], contextlib.AbstractContextManager[int]]


class Keeper:
    """A process that stays behind; while it lives it holds a lock, its process id is inside."""

    def __init__(self, name: str) -> None:
        self._lock = _LOCKS / f"agent-flows-{name}"

    def running(self) -> int | None:
        """The keeper's process id, if there is one."""
        if not self._lock.exists():
            return None
        with self._lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read())
        return None

    def keep(self, life: Life) -> int:
        """Enter ``life`` in a process of its own and leave it there; the exit code it gives.

        Call it within :func:`lab.process.orderly_signals`. A signal before
        ``life`` is entered ends it too, and is waited for.
        """
        entered, tell_entered = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(entered)
            os._exit(self._stay(life, tell_entered))
        os.close(tell_entered)
        try:
            code = os.read(entered, 1)
        except Terminated:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
        finally:
            os.close(entered)
        return code[0] if code else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1

    def _stay(self, life: Life, tell_entered: int) -> int:
        os.setsid()  # the terminal may close
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                with life() as code:
                    os.write(tell_entered, bytes([code]))
                    _let_go_of_the_terminal(tell_entered)
                    signal.pause()
            except Terminated:
                return 0
            finally:
                self._lock.unlink(missing_ok=True)
        return 0

    def stop(self) -> bool:
        """End it and wait until everything is put away; False if nothing was running."""
        keeper = self.running()
        if keeper is None:
            return False
        os.kill(keeper, signal.SIGTERM)
        wait_until(lambda: self.running() is None, _STOP_SECONDS, "it is put away", poll=0.1)
        return True


def _let_go_of_the_terminal(tell_entered: int) -> None:
    os.close(tell_entered)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
