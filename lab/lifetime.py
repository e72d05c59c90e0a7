"""What is started together is ended together, also if starting it fails half-way."""

import abc
import contextlib
from typing import Self


class Lifetime(abc.ABC):
    """A context manager: entering it starts everything, leaving it closes ``_stack``."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    @abc.abstractmethod
    def _start(self) -> None:
        """Start everything; what is to be ended goes on ``_stack`` at once."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
