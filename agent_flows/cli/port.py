"""agent-flows port list, show, resync and wait."""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agent_flows.cli import columns, refs
from agent_flows.cli.api_command import ApiCommand, ListCommand, ShowCommand
from agent_flows.cli.failure import CommandFailed, ExitCode
from agent_flows.errors import ErrorType, remedy
from agent_flows.report import PortStatus, SyncState

_STATUSES = [status.value for status in PortStatus]
_SYNC_STATES = [state.value for state in SyncState]
_PORT = "The port: its name, its id, or the beginning of its id."
# As many tasks as the attempts have that are kept of a port, several times over.
_HISTORY = 300
_FIRST_POLL, _LONGEST_POLL = 0.1, 2.0


class ListPorts(ListCommand):
    """List ports with status and sync state."""

    shown = ("id", "name", "status", "sync_state", "host", "fixed_ips", "reason")
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
        parser.add_argument("--network", help="Only ports of this network: its name or id.")
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
        if parsed_args.network is not None:
            given["network_id"] = refs.resolve(self.api, "networks", parsed_args.network)
        limit = None if parsed_args.problems else parsed_args.limit
        ports = self.api.find("ports", given, limit)
        if not ports and parsed_args.host is not None:
            self._say_nothing_found(parsed_args.host)
        names = (
            "id",
            "name",
            "status",
            "sync_state",
            "host",
            "mac_address",
            "fixed_ips",
            "network_id",
        )
        rows = [
            (
                port["id"],
                port.get("name", ""),
                port["status"],
                port["sync_state"],
                port.get("binding:host_id"),
                port.get("mac_address"),
                columns.Addresses(port.get("fixed_ips")),
                port.get("network_id"),
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
    """Show a port: why it does not work and what to do, its last attempt as a timeline.

    The bars of a timeline show when each task ran, from the start of the attempt to its end.
    """

    examples = """
        agent-flows port show web1
        agent-flows port show 4e8e5957
        agent-flows port show 4e8e5957-649f-477b-9e5b-f1f75b21c03c -f json -c tasks
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="PORT", help=_PORT)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        port_id = refs.resolve(self.api, "ports", parsed_args.id)
        port = self.api.show("ports", port_id)
        history = self.api.find("tasks", {"resource_id": port_id}, limit=_HISTORY)
        last, earlier = _split(history)
        network, groups = port.get("network_id"), port.get("security_groups") or []
        shown = {
            "id": port["id"],
            "name": port.get("name", ""),
            "status": port["status"],
            "sync_state": port["sync_state"],
            "reason": _why(port),
            "host": port.get("binding:host_id"),
            "last_attempt": columns.attempt(last),
            "tasks": columns.Tasks(last),
            "earlier": columns.Attempts(earlier),
            # A server of an earlier release has none of these.
            **{name: show(port[name]) for name, show in SYNC.items() if name in port},
            "network_id": self.named(parsed_args, "networks", network),
            "mac_address": port.get("mac_address"),
            "fixed_ips": columns.Addresses(port.get("fixed_ips")),
            "allowed_address_pairs": columns.Addresses(port.get("allowed_address_pairs")),
            "security_groups": self.named(parsed_args, "security-groups", groups),
            "port_security_enabled": port.get("port_security_enabled"),
            "admin_state_up": port.get("admin_state_up"),
            "device_owner": port.get("device_owner"),
            "revision_number": port.get("revision_number"),
            "updated_at": port.get("updated_at"),
        }
        return tuple(shown), tuple(shown.values())


def _why(port: Mapping[str, Any]) -> str | None:
    """Why a port does not work, and what to do; Neutron's API has no ``reason``."""
    if "reason" in port:
        reason: str | None = port["reason"]
        return reason
    error = port.get("sync_reason")
    if not error:
        return None
    return f"{columns.error_in_words(error)}. To do: {remedy(error['type'])}."


def _split(tasks: Sequence[columns.Task]) -> tuple[list[columns.Task], list[columns.Task]]:
    """The tasks of the newest attempt, and those of earlier ones that are there as a whole."""
    if not tasks:
        return [], []
    whole = list(tasks)
    if len(tasks) == _HISTORY and tasks[0]["flow_id"] != tasks[-1]["flow_id"]:
        whole = [task for task in tasks if task["flow_id"] != tasks[-1]["flow_id"]]
    last = [task for task in whole if task["flow_id"] == whole[0]["flow_id"]]
    return last, whole[len(last) :]


class ResyncPorts(ApiCommand):
    """Request that the agents wire these ports again.

    For a port whose host has no live agent this is an error.
    """

    examples = """
        agent-flows port resync web1
        agent-flows port resync $(agent-flows port list --sync-state OUT_OF_SYNC -f value -c id)
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("ids", metavar="PORT", nargs="+", help=_PORT)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        def resync(port: str) -> None:
            self.api.resync(refs.resolve(self.api, "ports", port))

        self.for_each(parsed_args.ids, resync, "resync requested")


class WaitForPort(ApiCommand):
    """Wait until a port has a status or sync state; standard error shows each change."""

    examples = """
        agent-flows port wait 4e8e5957-649f-477b-9e5b-f1f75b21c03c --status ACTIVE --timeout 30
        agent-flows port wait 4e8e5957-649f-477b-9e5b-f1f75b21c03c --sync-state IN_SYNC
        agent-flows port wait $PORT --status ACTIVE || echo "not wired: exit code $?"
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="PORT", help=_PORT)
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
        port_id = refs.resolve(self.api, "ports", parsed_args.id)
        began = time.monotonic()
        pause, shown, reason = _FIRST_POLL, "", None
        while True:
            port = self.api.show("ports", port_id)
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
                    f"{parsed_args.timeout:g} seconds. {reason or self._why(port_id)}",
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


SYNC: Mapping[str, Callable[[Any], Any]] = {
    "sync_revision": lambda revision: revision,
    "sync_since": columns.Since,
    "sync_reason": columns.Error,
}
"""How the fields beside ``sync_state`` are shown."""


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
