"""agent-flows port verify: whether this host's switch holds what the server desires of a port."""

import argparse
import errno
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agent_flows.cli import refs
from agent_flows.cli.api_command import ListCommand
from agent_flows.cli.failure import CommandFailed

if TYPE_CHECKING:
    from oslo_config import cfg

    from agent_flows.cli.client import RestClient
    from agent_flows.spec import DesiredState
    from agent_flows.verification.host import Check

# Seconds. A change may be under way: what is wrong counts if it still is after so long.
_PATIENCE = 1.0


class VerifyPort(ListCommand):
    """Verify a port on its host: compare what the switch holds with what the server desires.

    Run it on the host that the port is bound to, as root or with the agent's group. It reads the
    agent's configuration, compiles the port's flows as the agent does and compares them one by one,
    and the port's interface, tag and link. Then it has the switch trace a handful of packets
    (ofproto/trace), and compares each verdict with what the security groups say. It changes
    nothing. One line for each check; exit code 1 if one is wrong.
    """

    examples = """
        agent-flows port verify web1
        agent-flows --url https://controller:9797 port verify 4e8e5957
        agent-flows port verify web1 -f json
        agent-flows port verify web1 | grep ^wrong
    """

    @property
    def formatter_default(self) -> str:
        return "value"

    @property
    def need_sort_by_cliff(self) -> bool:
        return False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "id", metavar="PORT", help="The port: its name, its id, or the beginning of its id."
        )
        parser.add_argument(
            "--config-file",
            action="append",
            default=[],
            metavar="FILE",
            help="Configuration file of the agent; may be repeated.",
        )
        parser.add_argument(
            "--config-dir",
            action="append",
            default=[],
            metavar="DIR",
            help="Directory of *.conf files to read.",
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._checks: list[Check] = []
        super().run(parsed_args)
        wrong = sum(not check.is_right for check in self._checks)
        if wrong:
            raise CommandFailed(
                f"{wrong} of {len(self._checks)} checks of port {parsed_args.id} are wrong; "
                "agent-flows port resync has the agent wire it again"
            )
        return 0

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        # They load TaskFlow, the library of OVSDB and others that no other command needs.
        from oslo_config import cfg

        from agent_flows import process
        from agent_flows.engine.task import TaskFailed
        from agent_flows.l2.ovsdb import OvsdbUnreachable
        from agent_flows.openflow.ofctl import SwitchError, Timeout
        from agent_flows.verification.comparison import CannotCompile

        words = [f"--config-file={name}" for name in parsed_args.config_file]
        words += [f"--config-dir={name}" for name in parsed_args.config_dir]
        conf = process.read(words, "agent-flows-agent", cfg.ConfigOpts())
        try:
            self._checks = self._look(refs.resolve(self.api, "ports", parsed_args.id), conf)
        except (OvsdbUnreachable, SwitchError, Timeout, TaskFailed) as exc:
            raise _away(exc) from exc
        except CannotCompile as exc:
            raise CommandFailed(f"The port cannot be wired: {exc.error.message}") from None
        rows = [
            ("ok" if each.is_right else "wrong", each.what, each.found) for each in self._checks
        ]
        return ("result", "check", "found"), rows

    def _look(self, port_id: str, conf: "cfg.ConfigOpts") -> "list[Check]":
        from agent_flows.verification.host import Host

        host = Host(conf)
        checks: list[Check] = []
        for attempt in range(2):
            if attempt:
                time.sleep(_PATIENCE)
            state = self._desired(port_id, host.name)
            with host:
                checks = host.checks(state.ports[port_id], state)
            if all(check.is_right for check in checks):
                break
        return checks

    def _desired(self, port_id: str, host: str) -> "DesiredState":
        """What the server desires of the port, which is bound to ``host``."""
        from agent_flows.rpc import codec
        from agent_flows.validation import Invalid

        client: RestClient = self.app.client_manager.agent_flows  # type: ignore[attr-defined]
        try:
            state = codec.state_from_wire(client.specs(port_id))
        except Invalid as exc:
            raise CommandFailed(f"The server's answer is not valid: {exc}") from None
        for id_, refused in state.refused.items():
            raise CommandFailed(f"The desired state of {id_} is not valid: {refused.reason}")
        port = state.ports.get(port_id)
        if port is None:
            raise CommandFailed("The server's answer is not valid: the port is not in it.")
        if port.host != host:
            raise CommandFailed(
                f"The port is bound to host {port.host}, and this is {host}: run this there, "
                "or with the configuration file of that agent."
            )
        return state


def _away(exc: Exception) -> CommandFailed:
    """What keeps the command from reading the switch."""
    error = getattr(exc, "task_error", None) or getattr(exc, "error", None)
    if os.strerror(errno.EACCES) in (f"{error.message}{error.detail}" if error else str(exc)):
        return CommandFailed(
            "This user may not use the sockets of Open vSwitch: run this as root, or with the "
            "agent's group."
        )
    return CommandFailed(f"The switch cannot be read: {error.message if error else exc}")
