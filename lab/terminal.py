"""Programs on a pseudo-terminal, as a person has them."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from lab.lifetime import Lifetime

# ECMA-48: control sequences, which move the cursor or change colours.
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\r")
_ROWS = 30
_END_SECONDS = 20


class Terminal(Lifetime):
    """``argv`` on a terminal of its own, which is its controlling one: Ctrl-C interrupts it."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, columns: int = 120
    ) -> None:
        super().__init__()
        self._argv, self._columns = argv, columns
        self._env = {**os.environ, "TERM": "xterm", **(env or {})}
        self.written = ""
        """Everything that the program has written, control sequences included."""

    @property
    def text(self) -> str:
        """The same without control sequences."""
        return _CONTROLS.sub("", self.written)

    def _start(self) -> None:
        self._ours, theirs = pty.openpty()
        self._stack.callback(os.close, self._ours)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, self._columns, 0, 0))
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *self._argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self._env,
        )
        os.close(theirs)
        self._stack.callback(self._end)

    def _end(self) -> None:
        if self._process.poll() is None:
            # The terminal hangs up, which ends what runs on it.
            self._process.kill()
        self._process.wait(_END_SECONDS)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def shows(self, words: str, seconds: float, after: int = 0) -> str:
        """Wait until the text beyond ``after`` characters has these words; raises TimeoutError."""
        ends = time.monotonic() + seconds
        while words not in self.text[after:]:
            if not self._read(ends - time.monotonic()):
                raise TimeoutError(f"{words!r} is not shown: {self.text[-2000:]!r}")
        return self.text

    def ends(self, seconds: float = _END_SECONDS) -> int:
        """Wait until the program ends; its exit code."""
        ends = time.monotonic() + seconds
        while self._read(ends - time.monotonic()):
            pass
        return self._process.wait(max(0.1, ends - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        if seconds <= 0 or not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            block = os.read(self._ours, 1 << 16)
        except OSError:
            return False  # Nobody has the other end any more (pty(7)).
        self.written += block.decode(errors="replace")
        return bool(block)
