"""agent-flows port list, show, resync and wait."""

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent_flows.cli import columns
from agent_flows.cli.api_command import ApiCommand, ListCommand, ShowCommand
from agent_flows.cli.failure import CommandFailed, ExitCode
from agent_flows.errors import ErrorType
from agent_flows.report import PortStatus, SyncState

_STATUSES = [status.value for status in PortStatus]
_SYNC_STATES = [state.value for state in SyncState]
_FIRST_POLL, _LONGEST_POLL = 0.1, 2.0


class ListPorts(ListCommand):
    """List ports with status and sync state."""

    examples = """
        agent-flows port list
        agent-flows port list --sync-state OUT_OF_SYNC
        agent-flows port list --problems
        agent-flows port list --host compute-7 -f value -c id
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--host", help="Only ports bound to this host.")
        parser.add_argument("--name", help="Only ports with this name.")
        parser.add_argument("--status", choices=_STATUSES, help="Only ports in this status.")
        parser.add_argument(
            "--sync-state", choices=_SYNC_STATES, help="Only ports in this sync state."
        )
        parser.add_argument("--limit", type=int, metavar="N", help="At most N ports.")
        parser.add_argument(
            "--problems",
            action="store_true",
            help="Only ports with a problem, each with the reason.",
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        filters = {
            "binding:host_id": parsed_args.host,
            "name": parsed_args.name,
            "status": parsed_args.status,
            "sync_state": parsed_args.sync_state,
        }
        given = {name: value for name, value in filters.items() if value is not None}
        limit = None if parsed_args.problems else parsed_args.limit
        ports = self.api.find("ports", given, limit)
        if not ports and parsed_args.host is not None:
            self._say_nothing_found(parsed_args.host)
        names = ("id", "name", "status", "sync_state", "host", "mac_address", "fixed_ips")
        rows = [
            (
                port["id"],
                port.get("name", ""),
                port["status"],
                port["sync_state"],
                port.get("binding:host_id"),
                port.get("mac_address"),
                columns.Addresses(port.get("fixed_ips")),
            )
            for port in ports
        ]
        if parsed_args.problems:
            reasons = [_reason(port) for port in ports]
            found = [(*row, reason) for row, reason in zip(rows, reasons, strict=True) if reason]
            return (*names, "reason"), found[: parsed_args.limit]
        return names, rows

    def _say_nothing_found(self, host: str) -> None:
        seen = self.api.agent_was_seen(host)
        unknown = ", and no agent ever reported from it" if seen is False else ""
        self.say(f"no such port on host {host}{unknown}")


class ShowPort(ShowCommand):
    """Show a port, the reason if it does not work, and the tasks of its last attempt in order."""

    examples = """
        agent-flows port show 4e8e5957-649f-477b-9e5b-f1f75b21c03c
        agent-flows port show 4e8e5957-649f-477b-9e5b-f1f75b21c03c -f json -c tasks
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="The port's UUID.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        port = self.api.show("ports", parsed_args.id)
        tasks = last_attempt(self.api, parsed_args.id)
        shown = {
            "id": port["id"],
            "name": port.get("name", ""),
            "status": port["status"],
            "sync_state": port["sync_state"],
            # Neutron's API has no reason.
            **({"reason": port["reason"]} if "reason" in port else {}),
            "host": port.get("binding:host_id"),
            "network_id": port.get("network_id"),
            "mac_address": port.get("mac_address"),
            "fixed_ips": columns.Addresses(port.get("fixed_ips")),
            "allowed_address_pairs": columns.Addresses(port.get("allowed_address_pairs")),
            "security_groups": columns.Words(port.get("security_groups")),
            "port_security_enabled": port.get("port_security_enabled"),
            "admin_state_up": port.get("admin_state_up"),
            "device_owner": port.get("device_owner"),
            "revision_number": port.get("revision_number"),
            "updated_at": port.get("updated_at"),
            "last_attempt": columns.attempt(tasks),
            "tasks": columns.Tasks(tasks),
        }
        return tuple(shown), tuple(shown.values())


class ResyncPorts(ApiCommand):
    """Request that the agents wire these ports again.

    For a port whose host has no live agent this is an error.
    """

    examples = """
        agent-flows port resync 4e8e5957-649f-477b-9e5b-f1f75b21c03c
        agent-flows port resync $(agent-flows port list --sync-state OUT_OF_SYNC -f value -c id)
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("ids", metavar="ID", nargs="+", help="A port's UUID.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.for_each(parsed_args.ids, self.api.resync, "resync requested")


class WaitForPort(ApiCommand):
    """Wait until a port has a status or sync state; standard error shows each change."""

    examples = """
        agent-flows port wait 4e8e5957-649f-477b-9e5b-f1f75b21c03c --status ACTIVE --timeout 30
        agent-flows port wait 4e8e5957-649f-477b-9e5b-f1f75b21c03c --sync-state IN_SYNC
        agent-flows port wait $PORT --status ACTIVE || echo "not wired: exit code $?"
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="The port's UUID.")
        parser.add_argument(
            "--status", choices=_STATUSES, help="Status to wait for (default ACTIVE)."
        )
        parser.add_argument("--sync-state", choices=_SYNC_STATES, help="Sync state to wait for.")
        parser.add_argument(
            "--timeout",
            type=_positive,
            default=60.0,
            metavar="N",
            help="Longest time to wait in seconds (default %(default).0f).",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        status, sync_state = parsed_args.status, parsed_args.sync_state
        if status is None and sync_state is None:
            status = PortStatus.ACTIVE.value
        wanted = " ".join(filter(None, (status, sync_state)))
        began = time.monotonic()
        pause, shown, reason = _FIRST_POLL, "", None
        while True:
            port = self.api.show("ports", parsed_args.id)
            waited = time.monotonic() - began
            state = f"{port['status']} {port['sync_state']}"
            if state != shown:
                self.say(f"{waited:6.1f} s  {state}")
                shown = state
            if status in (None, port["status"]) and sync_state in (None, port["sync_state"]):
                return
            if port.get("reason") not in (None, reason):
                reason = port["reason"]
                self.say(f"{'':10}{reason}")
            left = parsed_args.timeout - waited
            if left <= 0:
                raise CommandFailed(
                    f"{parsed_args.id} is {state}, not {wanted}, after "
                    f"{parsed_args.timeout:g} seconds. {reason or self._why(parsed_args.id)}",
                    ExitCode.TIMEOUT,
                )
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_POLL)

    def _why(self, port_id: str) -> str:
        tasks = last_attempt(self.api, port_id)
        errors = [task for task in tasks if task["error"]]
        # The cause comes before a failed revert.
        errors.sort(key=lambda task: task["error"]["type"] == ErrorType.REVERT_FAILED)
        failed = errors[0] if errors else None
        if failed is None:
            return f"Last attempt: {columns.attempt(tasks)}."
        return f"{failed['name']} failed: {columns.error_in_words(failed['error'])}"


def _reason(port: Mapping[str, Any]) -> str | None:
    """Why a port does not work, None if it works; Neutron's API has no such field."""
    if "reason" in port:
        reason: str | None = port["reason"]
        return reason
    works = port["sync_state"] in (None, SyncState.IN_SYNC.value)
    return None if works else "see the last attempt in port show"


def last_attempt(api: Any, port_id: str) -> list[dict[str, Any]]:
    """The tasks of a port's newest report, in the order they run."""
    newest = api.find("tasks", {"resource_id": port_id}, limit=_MOST_TASKS)
    return [task for task in newest if task["flow_id"] == newest[0]["flow_id"]]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return value


# A report has at most this many tasks (agent_flows.report.FlowReport).
_MOST_TASKS = 64
