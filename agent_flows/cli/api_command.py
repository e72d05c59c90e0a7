"""What every command that calls the API has: the client, and help with examples."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cliff.command import Command
from cliff.lister import Lister
from cliff.show import ShowOne

from agent_flows.cli.failure import EXIT_CODES, CommandFailed
from agent_flows.printable import printable

if TYPE_CHECKING:  # the client takes a while to import, and --help needs none
    from agent_flows.cli.client import Client


class ApiCommand(Command):
    """A command whose app has a ``client_manager`` with the client as ``agent_flows``.

    That is how an OpenStackClient plugin offers its client to its commands, so
    these commands can be registered there with another client.
    """

    examples: ClassVar[str] = ""

    @property
    def api(self) -> "Client":
        client: Client = self.app.client_manager.agent_flows  # type: ignore[attr-defined]
        return client

    def say(self, line: str) -> None:
        """Write a line to standard error."""
        self.app.stderr.write(printable(line) + "\n")

    def for_each(self, names: Sequence[str], do: Callable[[str], None], done: str) -> None:
        """``do`` it for each name and write each result to standard error.

        A failure does not stop the others. Raises :class:`CommandFailed` if any
        failed; with one name alone, its own.
        """
        failed = []
        for name in names:
            try:
                do(name)
            except CommandFailed as exc:
                if len(names) == 1:
                    raise
                failed.append(name)
                self.say(f"{name}: {exc}")
            else:
                self.say(f"{name}: {done}")
        if failed:
            raise CommandFailed(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def get_epilog(self) -> str:
        lines = [line.strip() for line in self.examples.strip().splitlines()]
        return "examples:\n" + "".join(f"  {line}\n" for line in lines) + "\n" + EXIT_CODES


# Formats for programs: they keep every character and escape what is not printable.
_FOR_PROGRAMS = ("json", "yaml")


class ListCommand(ApiCommand, Lister):
    """A command that lists resources; it escapes control characters for a terminal."""

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
    ) -> int:
        if parsed_args.formatter not in _FOR_PROGRAMS:
            data = [_escaped(row) for row in data]
        return super().produce_output(parsed_args, column_names, data)


class ShowCommand(ApiCommand, ShowOne):
    """A command that shows one resource; it escapes control characters for a terminal."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]
    ) -> int:
        if parsed_args.formatter not in _FOR_PROGRAMS:
            column_names, data = _escaped(column_names), _escaped(data)
        return super().produce_output(parsed_args, column_names, data)


def _escaped(values: Sequence[Any]) -> tuple[Any, ...]:
    """The columns in :mod:`agent_flows.cli.columns` do it themselves."""
    return tuple(printable(value) if isinstance(value, str) else value for value in values)
