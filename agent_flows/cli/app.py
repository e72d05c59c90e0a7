"""The command agent-flows: global options, the client for the commands, exit codes."""

import argparse
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cliff.app import App
from cliff.command import Command
from cliff.commandmanager import CommandManager

from agent_flows.cli.failure import CommandFailed

if TYPE_CHECKING:  # imported with the first request; --help does not need it
    from keystoneauth1.plugin import BaseAuthPlugin

    from agent_flows.cli.client import RestClient

DEFAULT_URL = "http://127.0.0.1:9797"
COMMANDS = {
    "port list": "cli.port:ListPorts",
    "port show": "cli.port:ShowPort",
    "port resync": "cli.port:ResyncPorts",
    "port wait": "cli.port:WaitForPort",
    "port verify": "verification.command:VerifyPort",
    "port create": "cli.port_write:CreatePort",
    "port delete": "cli.port_write:DeletePorts",
    "task list": "cli.task:ListTasks",
    "task show": "cli.task:ShowTask",
    "problem list": "cli.problem:ListProblems",
    "network list": "cli.rollup:ListNetworks",
    "network show": "cli.rollup:ShowNetwork",
    "security-group list": "cli.rollup:ListSecurityGroups",
    "security-group show": "cli.rollup:ShowSecurityGroup",
    "address-group list": "cli.rollup:ListAddressGroups",
    "address-group show": "cli.rollup:ShowAddressGroup",
    "agent list": "cli.agent:ListAgents",
    "agent show": "cli.agent:ShowAgent",
    "agent resync": "cli.agent:ResyncAgents",
    "agent delete": "cli.agent:DeleteAgents",
    "top": "cli.top:Top",
    "explain": "cli.explain:Explain",
    "apply": "cli.apply:Apply",
    "all-in-one": "allinone.command:AllInOne",
    "dashboard": "dashboard.command:Dashboard",
}
_GROUP = "agent_flows.cli"
_DESCRIPTION = (
    "Shows which ports are wired, what failed, where and why; applies desired state; runs server "
    "and agent in one process, or the status page of a cloud. Every command has help with "
    "examples: agent-flows port wait --help."
)


class ClientManager:
    """Makes the API client when a command first uses it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    @cached_property
    def agent_flows(self) -> "RestClient":
        from agent_flows.cli.client import RestClient

        verify = False if self._options.insecure else self._options.os_cacert or True
        return RestClient(self._options.url, self._auth(), verify)

    def _auth(self) -> "BaseAuthPlugin | None":
        if not self._options.os_auth_type:
            return None
        from keystoneauth1 import exceptions
        from keystoneauth1.loading import cli

        try:
            return cli.load_from_argparse_arguments(self._options)
        except exceptions.ClientException as exc:
            raise CommandFailed(f"Authentication: {exc}") from None


def _commands() -> CommandManager:
    """A command's module is imported when the command runs."""
    manager = CommandManager(_GROUP)  # nothing is registered there; cliff before 4.13 needs a name
    for name, target in COMMANDS.items():
        manager.commands[name] = importlib.metadata.EntryPoint(
            name=name, value=f"agent_flows.{target}", group=_GROUP
        )
    return manager


class AgentFlows(App):
    """The application; ``client_manager.agent_flows`` is the client of its commands."""

    NAME = "agent-flows"
    client_manager: ClientManager

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._failure: BaseException | None = None
        super().__init__(
            description=_DESCRIPTION,
            version=importlib.metadata.version("agent_flows"),
            command_manager=_commands(),
            deferred_help=True,
        )

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.add_argument(
            "--url",
            default=os.environ.get("AGENT_FLOWS_URL") or DEFAULT_URL,
            help="URL of the server's API (AGENT_FLOWS_URL; default %(default)s).",
        )
        parser.add_argument(
            "--os-cacert",
            metavar="FILE",
            default=os.environ.get("OS_CACERT"),
            help="CA certificates that verify the server's certificate (OS_CACERT).",
        )
        parser.add_argument(
            "--insecure", action="store_true", help="Do not verify the server's certificate."
        )
        self._add_auth_options(parser)
        return parser

    def _add_auth_options(self, parser: argparse.ArgumentParser) -> None:
        """keystoneauth's options, only if this call uses any: they take long to import."""
        named = any(word.startswith("--os-auth") for word in self._argv)
        if named or os.environ.get("OS_AUTH_TYPE") or os.environ.get("OS_AUTH_URL"):
            from keystoneauth1.loading import cli

            default = "password" if os.environ.get("OS_AUTH_URL") else None
            cli.register_argparse_arguments(parser, self._argv, default=default)
        else:
            parser.add_argument(
                "--os-auth-type",
                metavar="<name>",
                help="Authentication plugin of keystoneauth, as password or "
                "v3applicationcredential, with its --os-* options and OS_* variables; none by "
                "default.",
            )

    def configure_logging(self) -> None:
        super().configure_logging()
        if self.options.verbose_level <= self.DEFAULT_VERBOSE_LEVEL and not self.options.debug:
            # The error that ends the command contains its warnings.
            logging.getLogger("keystoneauth").setLevel(logging.ERROR)

    def initialize_app(self, argv: list[str]) -> None:
        self.client_manager = ClientManager(self.options)

    def clean_up(self, cmd: Command, result: int, err: BaseException | None) -> None:
        self._failure = err

    def run_subcommand(self, argv: list[str]) -> int:
        code = super().run_subcommand(argv)
        return self._failure.exit_code if isinstance(self._failure, CommandFailed) else code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code of :mod:`agent_flows.cli.failure`."""
    words = list(sys.argv[1:] if argv is None else argv)
    return AgentFlows(words).run(words or ["--help"])
