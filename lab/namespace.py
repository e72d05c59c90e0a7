"""Network namespaces with unique names."""

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pyroute2 import netns

from lab.process import run

NAMESPACES = Path("/run/netns")
_COUNT = itertools.count(1)


def mark(pid: int | str | None = None) -> str:
    """What the name of everything that process ``pid`` (default: this one) makes begins with."""
    return f"aflab-{os.getpid() if pid is None else pid}-"


class Namespace:
    """A network namespace, visible to ``ip netns``, whose loopback is up."""

    def __init__(self, label: str) -> None:
        # The random part keeps apart what an ended process with the same id may have left.
        self.name = f"{mark()}{secrets.token_hex(2)}-{next(_COUNT)}-{label}"

    @property
    def path(self) -> Path:
        return NAMESPACES / self.name

    def create(self) -> None:
        run(["ip", "netns", "add", self.name])
        self.ip("link", "set", "lo", "up")

    def delete(self) -> None:
        if self.path.exists():
            run(["ip", "netns", "delete", self.name])

    def argv(self, argv: Sequence[str]) -> list[str]:
        """``argv`` such that it runs inside."""
        return ["ip", "netns", "exec", self.name, *argv]

    def ip(self, *args: str) -> str:
        return run(["ip", "-n", self.name, *args])

    def ip_batch(self, lines: Sequence[str]) -> None:
        """Several ``ip`` commands, one process."""
        run(["ip", "-n", self.name, "-batch", "-"], stdin="\n".join(lines) + "\n")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside; a socket made here belongs here for good.

        setns(2) moves the calling thread only, so other threads notice nothing.
        """
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            netns.setns(str(self.path))
            try:
                yield
            finally:
                netns.setns(back)
        finally:
            os.close(back)

    def __enter__(self) -> Self:
        self.create()
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()
