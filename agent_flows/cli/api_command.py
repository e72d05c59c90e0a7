"""What every command has that speaks to the API: the client, and a help that teaches."""

import argparse
from typing import TYPE_CHECKING, ClassVar

from cliff.command import Command

from agent_flows.cli.failure import EXIT_CODES

if TYPE_CHECKING:  # the client takes a while to import, and --help needs none
    from agent_flows.cli.client import Api


class ApiCommand(Command):
    """A command whose app has a ``client_manager`` with the client as ``agent_flows``.

    That is how an OpenStackClient plugin offers its client to its commands, so
    these commands can be registered there with another client.
    """

    examples: ClassVar[str] = ""

    @property
    def api(self) -> "Api":
        client: Api = self.app.client_manager.agent_flows  # type: ignore[attr-defined]
        return client

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def get_epilog(self) -> str:
        lines = [line.strip() for line in self.examples.strip().splitlines()]
        return "examples:\n" + "".join(f"  {line}\n" for line in lines) + "\n" + EXIT_CODES
