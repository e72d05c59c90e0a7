"""What a process of the lab has left on this machine, should it have left anything."""

import os
import tempfile
from pathlib import Path

from lab.namespace import mark


def left_behind(pid: int | None = None) -> list[str]:
    """Namespaces, directories and running programs that process ``pid`` (default: this) made.

    Everything the lab makes carries its maker's mark in its name, and every
    program it starts names such a directory on its command line or in its
    environment.
    """
    name = mark(pid)
    found = [f"namespace {p.name}" for p in Path("/run/netns").glob(f"{name}*")]
    found += [f"directory {p}" for p in Path(tempfile.gettempdir()).glob(f"{name}*")]
    return sorted(found) + _programs(name.encode())


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
            continue  # it ended meanwhile, or is closed even to root, as none of ours is
    return found
