"""Starting programs and ending exactly those."""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Self, TypeVar

T = TypeVar("T")
_POLL = 0.01


class CommandFailed(Exception):
    """A tool ended with an error; the text is the command and its output."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit {code}: {output.strip()}")
        self.code = code
        self.output = output


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> str:
    """Standard output of ``argv``; raises :class:`CommandFailed`."""
    done = subprocess.run(
        list(argv),
        input=stdin,
        env=None if env is None else {**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def wait_until(check: Callable[[], T | None], seconds: float, what: str, poll: float = _POLL) -> T:
    """The first true value ``check`` returns; raises TimeoutError naming ``what``."""
    deadline = time.monotonic() + seconds
    while True:
        if value := check():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(poll)


class Ended(Exception):
    """A program that should run has ended; the text is the end of its log."""


class Daemon:
    """A program that runs in the foreground of a session of its own.

    Its output goes to ``log``. The kernel ends it should we be killed, so not
    even ``kill -9`` of a test run leaves it behind.
    """

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ready(self, check: Callable[[], T | None], seconds: float) -> T:
        """Wait until ``check`` is true; raises :class:`Ended` or TimeoutError."""

        def alive_and_ready() -> T | None:
            value = check()
            if not value and not self.running:
                raise Ended(f"{self.name} ended while starting:\n{self.last_words()}")
            return value

        try:
            return wait_until(alive_and_ready, seconds, f"{self.name} is ready")
        except TimeoutError as late:
            raise TimeoutError(f"{late}\n{self.last_words()}") from None

    def last_words(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, seconds: float = 15) -> None:
        """SIGTERM; what is left of its session after ``seconds`` is killed."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        self.kill()

    def end(self, number: signal.Signals, seconds: float) -> int:
        """Send a signal to the process alone; its exit code. Raises TimeoutExpired."""
        process = self._process
        if process is None:
            raise RuntimeError(f"{self.name} was not started")
        process.send_signal(number)
        return process.wait(seconds)

    def kill(self) -> None:
        """``kill -9``, the whole session: nothing it started may outlive it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def held(*pids: int) -> Iterator[None]:
    """These processes run, and do nothing (SIGSTOP) until the block is left.

    The signal is sent before it is obeyed: until every thread has stopped, one may still answer.
    """
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            wait_until(functools.partial(_is_stopped, pid), 10, f"process {pid} has stopped")
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def slowed(
    hold: Callable[[], contextlib.AbstractContextManager[None]], turn: float, share: float
) -> Iterator[None]:
    """What ``hold`` holds works this ``share`` of every ``turn``, in seconds: what comes at
    another time waits."""
    enough = threading.Event()

    def run() -> None:
        while not enough.wait(turn * share):
            with hold():
                enough.wait(turn * (1 - share))

    with ThreadPoolExecutor(1) as beside:
        slowing = beside.submit(run)
        try:
            yield
        finally:
            enough.set()
            slowing.result()


def _is_stopped(pid: int) -> bool:
    """Whether every thread of the process is (proc(5))."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        # A thread has ended meanwhile.
        return False
    return bool(stats) and all(stat.rpartition(") ")[2][0] in "Tt" for stat in stats)


class Terminated(BaseException):
    """A signal asked us to end; the ``with`` blocks around unwind, as for Ctrl-C."""


@contextlib.contextmanager
def orderly_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into :class:`Terminated`.

    Only the first one counts: a second Ctrl-C must not interrupt the cleaning up.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(number: int, _frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(signal.Signals(number).name)

    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """A TCP port of loopback without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
