"""What is behind the server's endpoint, and reports for it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agent_flows.report import FlowReport
from agent_flows.rpc.answers import Receipt
from agent_flows.rpc.identity import Identity
from agent_flows.spec import Spec
from lab import model

HOST = "compute-1"
PORT = model.numbered_id(1, 1)
GROUP = model.group(model.ingress(protocol="tcp"), revision=4)


class Consumer:
    """Accepts all reports but those of the ports in ``rejects``, or fails with ``error``."""

    def __init__(self, rejects: Mapping[str, str] | None = None) -> None:
        self.rejects = rejects or {}
        self.error: Exception | None = None
        self.accepted: list[FlowReport] = []
        self.heartbeats: list[tuple[str, Mapping[str, Any]]] = []
        self.requests: list[tuple[str, Collection[str] | None]] = []

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        self._fail()
        accepted = [report for report in reports if report.resource_id not in self.rejects]
        self.accepted += accepted
        return Receipt(
            max((report.sequence for report in accepted), default=0),
            accepted=[report.id for report in accepted],
            rejected={
                report.id: self.rejects[report.resource_id]
                for report in reports
                if report.resource_id in self.rejects
            },
        )

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]:
        self.requests.append((host, port_ids))
        return [model.port(GROUP, id=PORT, host=host), GROUP]

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> int:
        self._fail()
        self.heartbeats.append((host, state))
        return 42

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def report(number: int, **fields: Any) -> FlowReport:
    """A report with this sequence, and an id made of it."""
    values = {"host": HOST, "resource_id": PORT, **fields}
    return model.flow_report(id=model.numbered_id(9, number), sequence=number, **values)
