"""One process at a time uses a state directory."""

import fcntl
import os
import pathlib
from typing import TextIO

_FILE = "lock"


class StateDirTaken(OSError):
    """Another process uses the state directory."""


def take(state_dir: pathlib.Path) -> TextIO:
    """Create ``state_dir`` if it is missing, and lock it for this process.

    The lock ends with the returned file or with the process. Raises
    :class:`StateDirTaken`, or another OSError if the directory cannot be used.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    lock = (state_dir / _FILE).open("a+", encoding="ascii", errors="replace")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read(20).strip()
        lock.close()
        who = f" (process {pid})" if pid.isdecimal() else ""
        raise StateDirTaken(f"{state_dir} is used by another agent{who}") from None
    except OSError:
        lock.close()
        raise
    try:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    except OSError:
        # On a full disk the lock works, only the process id is missing.
        pass
    return lock
