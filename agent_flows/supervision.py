"""Keeps background threads running, and reports what keeps them from working."""

import dataclasses
import random
import threading
from collections.abc import Callable, Mapping

from oslo_log import log

LOG = log.getLogger(__name__)

_LONGEST_MESSAGE = 512


@dataclasses.dataclass(frozen=True)
class Backoff:
    """Exponential backoff: ``initial`` seconds, doubled up to ``maximum``, half of it jitter."""

    initial: float
    maximum: float

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the failed ``attempt`` (from 1)."""
        # 2**30 periods exceed any maximum; larger exponents overflow a float.
        full = min(self.maximum, self.initial * 2.0 ** min(attempt - 1, 30))
        return full * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing


class Troubles:
    """What keeps a process or its host from working: one line for each source.

    A source is a name from the code (:class:`agent_flows.report.Trouble`),
    never a text from outside. Safe from any thread. ``changed`` is called
    after every change, in the thread that made it, and must return at once.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self._lock = threading.Lock()
        self._current: dict[str, str] = {}

    def report(self, source: str, message: str) -> None:
        """``source`` has this trouble until :meth:`clear`; ``message`` becomes one line."""
        self._change(source, one_line(message))

    def clear(self, source: str) -> None:
        """``source`` works again."""
        self._change(source, None)

    def current(self) -> Mapping[str, str]:
        """Source to message, the oldest trouble first."""
        with self._lock:
            return dict(self._current)

    def _change(self, source: str, message: str | None) -> None:
        with self._lock:
            if self._current.get(source) == message:
                return
            if message is None:
                del self._current[source]
            else:
                self._current[source] = message
        self.changed()


class Loop:
    """A thread that calls ``step`` repeatedly and survives its exceptions.

    ``step`` waits for its work or for ``stopping``, acts once and returns. An
    exception is logged, is the trouble ``source`` until a step succeeds, and is
    followed by a pause (``backoff``). An ``expected`` one (a peer does not
    answer) is one line in the log; any other is a defect and is logged with its
    traceback, once.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], None],
        troubles: Troubles,
        source: str,
        backoff: Backoff = Backoff(0.5, 30.0),
        *,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        self.stopping = threading.Event()
        self._step = step
        self._troubles = troubles
        self._source = source
        self._backoff = backoff
        self._expected = expected
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop the loop, and wait for it at most ``timeout`` seconds."""
        self.stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        shown: set[str] = set()
        while not self.stopping.is_set():
            try:
                self._step()
            # The only handler that keeps the thread alive; every error becomes a trouble.
            except Exception as exc:
                failures += 1
                pause = self._backoff.delay(failures)
                reason = described(exc)
                self._troubles.report(self._source, reason)
                # By type: the message may differ each time, by a time or an id.
                kind = type(exc).__name__
                foreseen = isinstance(exc, self._expected) or kind in shown
                shown.add(kind)
                LOG.error(
                    "%s: %s; next try in %.1f s",
                    self._thread.name,
                    reason,
                    pause,
                    exc_info=None if foreseen else exc,
                )
                self.stopping.wait(pause)
            else:
                if failures:
                    failures = 0
                    shown.clear()
                    self._troubles.clear(self._source)


def described(exc: BaseException) -> str:
    """An exception in one line: its type and message."""
    return one_line(f"{type(exc).__name__}: {exc}")


def one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_MESSAGE]
