"""A command for several things: one that fails keeps none of the others from being done."""

from collections.abc import Callable, Sequence

from agent_flows.cli.api_command import ApiCommand
from agent_flows.cli.failure import CommandFailed


def each(command: ApiCommand, names: Sequence[str], do: Callable[[str], None], done: str) -> None:
    """``do`` it for each name, and say on standard error what became of each.

    Raises :class:`CommandFailed` if any failed: for one name alone its own.
    """
    failed = []
    for name in names:
        try:
            do(name)
        except CommandFailed as exc:
            if len(names) == 1:
                raise
            failed.append(name)
            command.say(f"{name}: {exc}")
        else:
            command.say(f"{name}: {done}")
    if failed:
        raise CommandFailed(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}")
