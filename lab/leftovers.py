"""Left-overs of the lab's processes on this machine: found and removed."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.namespace import NAMESPACES, mark
from lab.process import CommandFailed, run

MEMORY = Path("/dev/shm")  # noqa: S108
"""A file system in memory, on every Linux; a run of the whole suite has its files there."""


def left_behind(pid: int | None = None) -> list[str]:
    """Namespaces, directories and running programs that process ``pid`` (default: this) made.

    Everything the lab makes carries its maker's mark in its name, and every
    program it starts names such a directory on its command line or in its
    environment.
    """
    name = mark(pid)
    found = [f"namespace {p.name}" for p in NAMESPACES.glob(f"{name}*")]
    found += [f"directory {p}" for p in Path(tempfile.gettempdir()).glob(f"{name}*")]
    return sorted(found) + _programs(name.encode())


def sweep() -> None:
    """Remove what processes that were killed (``kill -9``) could not; their programs have ended."""
    for namespace in _of_ended_processes(NAMESPACES):
        try:
            run(["ip", "netns", "delete", namespace.name])
        except CommandFailed:
            if namespace.exists():  # else somebody else was quicker
                raise
    for place in {Path(tempfile.gettempdir()), MEMORY}:
        for directory in _of_ended_processes(place):
            shutil.rmtree(directory, ignore_errors=True)


def _of_ended_processes(place: Path) -> Iterator[Path]:
    for path in list(place.glob(f"{mark('*')}*")):
        maker = re.match(mark(r"(\d+)"), path.name)
        if maker and not Path(f"/proc/{maker[1]}").exists():
            yield path


def _programs(name: bytes) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            words = (process / "cmdline").read_bytes()
            if name in words or name in (process / "environ").read_bytes():
                found.append(f"process {process.name}: {words.replace(bytes(1), b' ').decode()}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is closed even to root, as none of ours is
    return found
