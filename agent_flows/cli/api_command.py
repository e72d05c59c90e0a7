"""What every command has that speaks to the API: the client, and a help that teaches."""

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cliff.command import Command
from cliff.lister import Lister
from cliff.show import ShowOne

from agent_flows.cli.failure import EXIT_CODES
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
        """A line for whoever waits, on standard error."""
        self.app.stderr.write(printable(line) + "\n")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def get_epilog(self) -> str:
        lines = [line.strip() for line in self.examples.strip().splitlines()]
        return "examples:\n" + "".join(f"  {line}\n" for line in lines) + "\n" + EXIT_CODES


# These write for programs that read every character, and escape what is none.
_FOR_PROGRAMS = ("json", "yaml")


class ListCommand(ApiCommand, Lister):
    """A command that lists resources; on a terminal their texts are harmless."""

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
    ) -> int:
        if parsed_args.formatter not in _FOR_PROGRAMS:
            data = [_harmless(row) for row in data]
        return super().produce_output(parsed_args, column_names, data)


class ShowCommand(ApiCommand, ShowOne):
    """A command that shows one resource; on a terminal its texts are harmless."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]
    ) -> int:
        if parsed_args.formatter not in _FOR_PROGRAMS:
            column_names, data = _harmless(column_names), _harmless(data)
        return super().produce_output(parsed_args, column_names, data)


def _harmless(values: Sequence[Any]) -> tuple[Any, ...]:
    """Columns of our own are shown harmless by themselves."""
    return tuple(printable(value) if isinstance(value, str) else value for value in values)
