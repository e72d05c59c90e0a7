"""A call that may never return, with a limit on the wait."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """Calls ``ask`` in a thread of its own and waits ``seconds`` for the answer.

    While one call runs there is no second: callers in between get its answer, so
    a call that hangs takes one thread and no more.
    """

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked: Future[T] | None = None

    def __call__(self) -> T:
        """Raises TimeoutError if the answer does not come in time, and what ``ask`` raises."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                work = threading.Thread(target=self._answer, args=(self._asked,), daemon=True)
                work.start()
            asked = self._asked
        return asked.result(self._seconds)

    def _answer(self, asked: "Future[T]") -> None:
        try:
            asked.set_result(self._ask())
        # Raised where it was asked.
        except Exception as exc:  # noqa: BLE001
            asked.set_exception(exc)
