"""What the tests of the commands are about: a server, a cloud of one port, a command that ran."""

import datetime
import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from agent_flows.report import FlowName, FlowReport, Step, TaskError, TaskOutcome, TaskState
from agent_flows.server.core.store import Store

HOST = "compute-1"
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
            "security_group_rules": [
                {
                    "direction": "ingress",
                    "protocol": "tcp",
                    "port_range_min": 80,
                    "port_range_max": 80,
                }
            ],
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


class Agents:
    """Whom the server tells of changes."""

    def __init__(self) -> None:
        self.resynced: list[str] = []

    def ports_changed(self, host: str, port_ids: Collection[str]) -> None: ...

    def security_groups_changed(self, host: str, ids: Collection[str]) -> None: ...

    def resync(self, host: str, port_ids: Collection[str] | None = None) -> None:
        self.resynced += port_ids or []


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None: ...


@dataclass
class Server:
    url: str
    store: Store
    agents: Agents
    reports: int = 0

    def wire(self, port_id: str = PORT, error: TaskError | None = None) -> None:
        """The agent wires a port, or fails to."""
        self.store.get_ports(HOST, [port_id])
        self.reports += 1
        moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        failed = TaskState.FAILED if error else TaskState.SUCCEEDED
        behind = TaskState.PENDING if error else TaskState.SUCCEEDED
        tasks = (
            TaskOutcome("locate-interface", Step.L2, TaskState.SUCCEEDED, moment, 0.002),
            TaskOutcome(
                "apply-security-groups", Step.SECURITY_GROUPS, failed, moment, 0.031, error
            ),
            TaskOutcome("bind-vlan", Step.L2, behind),
        )
        report = FlowReport(
            id=str(uuid.uuid4()),
            host=HOST,
            resource_id=port_id,
            flow=FlowName.WIRE,
            revision=self.revision(port_id),
            attempt=self.reports,
            sequence=self.reports,
            started_at=moment,
            finished_at=moment,
            tasks=tasks,
            security_group_revisions=self.group_revisions(port_id),
        )
        assert self.store.take_reports(HOST, [report]).accepted == [report.id]

    def revision(self, port_id: str) -> int:
        return next(spec.revision for spec in self.specs(port_id) if spec.id == port_id)

    def group_revisions(self, port_id: str) -> dict[str, int]:
        return {spec.id: spec.revision for spec in self.specs(port_id) if spec.id == GROUP}

    def specs(self, port_id: str) -> Any:
        return self.store.get_ports(HOST, [port_id])


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
