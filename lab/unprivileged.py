"""Programs as a user who is not root, with the capabilities that a unit of systemd would add."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.process import Daemon

_CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class User:
    """Nobody, with ``capabilities`` named as in linux/capability.h."""

    capabilities: tuple[str, ...] = ()
    id: int = 65534

    def argv(self, words: Sequence[str], kept: Path) -> list[str]:
        """``words`` such that this user runs them. ``kept`` is as in :func:`reachable`."""
        script = "\n".join([*reachable(kept), 'exec "$@"'])
        named = [name.removeprefix("CAP_").lower() for name in self.capabilities]
        these = ",".join(["-all", *(f"+{name}" for name in named)])
        return [
            *("unshare", "--mount", "sh", "-ec", script, "sh"),
            *("setpriv", "--no-new-privs", f"--reuid={self.id}", f"--regid={self.id}"),
            *("--clear-groups", f"--bounding-set={these}", f"--inh-caps={these}"),
            f"--ambient-caps={these}",
            # Changing the user clears the wish to end with one's parent.
            *("--pdeathsig", "TERM"),
            *words,
        ]

    def owns(self, directory: Path) -> None:
        """Give the directory to the user, and what is in it."""
        for path in (directory, *directory.rglob("*")):
            os.chown(path, self.id, self.id)


_UNIT = _CHECKOUT / "etc/systemd/agent-flows-agent.service"
AGENT = User(tuple(re.findall("^AmbientCapabilities=(.*)$", _UNIT.read_text(), re.MULTILINE)))
"""As the agent's unit has it."""


def helper_of(agent: Daemon) -> int:
    """The agent's privileged helper, which shares its program; what else it starts are tools."""
    program = Path(f"/proc/{agent.pid}/cmdline").read_bytes()
    (found,) = [
        int(child)
        for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        if Path(f"/proc/{child}/cmdline").read_bytes() == program
    ]
    return found


def reachable(kept: Path) -> list[str]:
    """Commands that open the way to Python, its packages and the checkout for everyone, where it
    leads through a directory that is closed to others, as root's home is.

    Of such a directory nothing else is left. They are for a mount namespace; ``kept`` is a
    directory for mounts, which need not exist.
    """
    behind: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(
        map(Path.resolve, (Path(sys.base_prefix), Path(sys.prefix), _CHECKOUT))
    ):
        closed = [above for above in path.parents if not above.stat().st_mode & 0o001]
        if closed:
            behind.setdefault(closed[-1], []).append(path)
    commands = []
    for closed_directory, inside in behind.items():
        saved = [(kept / str(number), path) for number, path in enumerate(inside)]
        for at, path in saved:
            commands += [f"mkdir -p {at}", f"mount --bind {path} {at}"]
        commands.append(f"mount -t tmpfs -o mode=755 tmpfs {closed_directory}")
        for at, path in saved:
            commands += [f"mkdir -p {path}", f"mount --bind {at} {path}"]
    return commands
