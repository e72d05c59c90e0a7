"""Gives way to other threads where they are eventlet's: in Neutron 26's agent.

There all threads share one of the system, and each runs until it waits for
something. What computes for long without waiting would keep heartbeats and RPC.
"""

import gc
import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SLICE_SECONDS = 0.01


def fair(items: Iterable[T]) -> Iterable[T]:
    """``items``; where threads are eventlet's, others run between two of them every now and then.

    For a loop that may be long. Nothing may rest on no other thread running in
    it: where threads are the system's, they run at any time.
    """
    return _slices.between(items) if are_green() else items


def give_way() -> None:
    """Let others run if none has for a while: for what others call in a loop of theirs."""
    if are_green():
        _slices.give_way()


def at_once(number: int, green: int) -> int:
    """How many things to handle in one call that cannot give way: ``green`` of them where threads
    are eventlet's."""
    return green if are_green() else number


def apart(wait: Callable[[], T]) -> T:
    """The result of ``wait``, which waits for something that eventlet does not know of, as a disk.

    Where threads are eventlet's, a thread of the system calls it, while others run: it must use no
    lock, and log nothing.
    """
    if not are_green():
        return wait()
    result: T = importlib.import_module("eventlet.tpool").execute(wait)
    return result


def keep_loaded() -> None:
    """Where threads are eventlet's, look for no garbage any more in what the process has by now:
    of an agent with 500 ports that takes 0.25 s, in which no thread runs."""
    if are_green():
        gc.collect()
        gc.freeze()


def are_green() -> bool:
    """Whether threads are eventlet's."""
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and patcher.is_monkey_patched("time")


class _Slices:
    """Loops follow one another, so all count from the last time that one gave way."""

    def __init__(self) -> None:
        self._until = 0.0

    def give_way(self) -> None:
        if time.monotonic() >= self._until:
            # eventlet's, which runs whatever else could run.
            time.sleep(0)
            self._until = time.monotonic() + _SLICE_SECONDS

    def between(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self.give_way()
            yield item


_slices = _Slices()
