"""Shows on a terminal that a command is still at work."""

import contextlib
import threading
from collections.abc import Iterator
from typing import IO

_PATIENCE = 1.0


@contextlib.contextmanager
def shown(stream: IO[str], what: str) -> Iterator[None]:
    """Shows ``what`` on ``stream`` if the block takes more than a second; nothing if ``stream`` is
    no terminal. It is gone when the block ends."""
    if not stream.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        if done.wait(_PATIENCE):
            return
        from rich.console import Console

        with Console(file=stream).status(what):
            done.wait()

    shower = threading.Thread(target=show, name="progress", daemon=True)
    shower.start()
    try:
        yield
    finally:
        done.set()
        shower.join(_PATIENCE)
