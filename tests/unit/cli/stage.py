"""For the tests of the commands: a server, a cloud of one port, the result of a command."""

import datetime
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from agent_flows.report import Step, TaskError, TaskOutcome, TaskState
from lab import server_parts
from lab.model import ingress

HOST = "compute-1"
MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
REFUSED = TaskError("SwitchError", "the switch refused a flow", "OFPFMFC_TABLE_FULL\ncookie:0xaf10")


def identity(number: int) -> str:
    return str(uuid.UUID(int=number))


PORT, NETWORK, GROUP = identity(1), identity(2), identity(3)
CLOUD = {
    "networks": [{"id": NETWORK, "network_type": "local"}],
    "security_groups": [
        {
            "id": GROUP,
            "name": "web",
            "security_group_rules": [ingress(protocol="tcp", port=80)],
        }
    ],
    "ports": [
        {
            "id": PORT,
            "name": "web1",
            "network_id": NETWORK,
            "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"ip_address": "10.0.0.11"}],
            "security_groups": [GROUP],
            "binding:host_id": HOST,
        }
    ],
}


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None: ...


class Server:
    """The server at ``url``, and the agent of HOST, which sends no heartbeats by itself.

    While ``outage`` is set every request is refused.
    """

    def __init__(self, url: str, parts: server_parts.Server, outage: threading.Event) -> None:
        self.url = url
        self.store = parts.store
        self.outage = outage
        self._parts = parts
        self._agent = server_parts.FakeAgent(parts, HOST, alive=False)

    def wire(self, error: TaskError | None = None) -> None:
        """The agent wires PORT, or fails with ``error``."""
        failed = TaskState.FAILED if error else TaskState.SUCCEEDED
        last = TaskState.PENDING if error else TaskState.SUCCEEDED
        groups = Step.SECURITY_GROUPS
        tasks = (
            TaskOutcome("locate-interface", Step.L2, TaskState.SUCCEEDED, MOMENT, 0.002),
            TaskOutcome("apply-security-groups", groups, failed, MOMENT, 0.031, error),
            TaskOutcome("bind-vlan", Step.L2, last),
        )
        attempt = self._agent.sequence + 1
        report = self._agent.report(PORT, tasks=tasks, attempt=attempt, started_at=MOMENT)
        assert self._agent.send(report).accepted == [report.id]

    @property
    def resynced(self) -> set[str]:
        """The ports that agents were requested to resync."""
        requests = [ids for _, what, ids in self._parts.recorder.casts if what == "resync"]
        return set().union(*requests)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def cells(self) -> list[str]:
        """The lines of the last column of a table, without its header."""
        rows = [line for line in self.out.splitlines() if line.startswith("|")]
        return [row.strip("|").split(" | ")[-1].rstrip() for row in rows[1:]]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]
