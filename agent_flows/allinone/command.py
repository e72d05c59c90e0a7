"""agent-flows all-in-one: server and agent in one process."""

import argparse
import logging
from pathlib import Path

from cliff.command import Command

from agent_flows.cli.failure import CommandFailed


class AllInOne(Command):
    """Run server and agent in one process: SQLite, an in-process bus, the API on loopback.

    Needs only root and a running Open vSwitch. Options are read from
    --config-file, or else from agent_flows.conf in ~/.agent_flows, ~,
    /etc/agent_flows or /etc. Ctrl-C or SIGTERM stops both; the flows stay in
    the switch, so wired ports keep working and stay filtered.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument(
            "--config-file",
            action="append",
            default=[],
            metavar="FILE",
            help="Configuration file, as etc/agent_flows.conf.sample; may be repeated.",
        )
        parser.add_argument(
            "--config-dir",
            action="append",
            default=[],
            metavar="DIR",
            help="Directory of *.conf files to read.",
        )
        parser.add_argument(
            "--state-dir",
            metavar="DIR",
            help="Directory of database and outbox (default [agent_flows] state_dir).",
        )
        return parser

    def get_epilog(self) -> str:
        return (
            "examples:\n"
            "  agent-flows all-in-one --state-dir /tmp/agent-flows\n"
            "  agent-flows all-in-one --config-file /etc/agent_flows/agent_flows.conf\n"
            "  OS_AGENT_FLOWS__INTEGRATION_BRIDGE=br-test agent-flows all-in-one\n"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from agent_flows import process, threads

        if not self.app.options.debug:
            # Until oslo.log is set up: some libraries log when they are imported.
            logging.getLogger().setLevel(logging.WARNING)
        process.do_without_unused()
        threads.use("agent-flows all-in-one")
        self._say("loading server and agent")
        # It loads TaskFlow, SQLAlchemy and others that no other command needs.
        from agent_flows.allinone import embedded

        words = [f"--config-file={name}" for name in parsed_args.config_file]
        words += [f"--config-dir={name}" for name in parsed_args.config_dir]
        if self.app.options.debug:
            words.append("--debug")
        if self.app.options.log_file:
            words.append(f"--log-file={Path(self.app.options.log_file).absolute()}")
        try:
            return embedded.run(words, parsed_args.state_dir, self._say)
        except CommandFailed as exc:
            # Not by cliff, which would now write it to the log.
            self._say(f"agent-flows all-in-one: {exc}")
            return exc.exit_code

    def _say(self, line: str) -> None:
        self.app.stderr.write(line + "\n")
        self.app.stderr.flush()
