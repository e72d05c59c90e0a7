"""What is behind the endpoints of server and agent, and reports."""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agent_flows.report import FlowReport
from agent_flows.rpc.answers import Held, Receipt
from agent_flows.rpc.desired import GroupChange, Known, MembersChange, Update
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.revisions import Revisions
from agent_flows.spec import Spec
from lab import model

HOST = "compute-1"
PORT = model.numbered_id(1, 1)
GROUP = model.group(model.ingress(protocol="tcp"), revision=4)

REVISIONS = Revisions({PORT: 3}, {GROUP.id: 4}, (PORT,), {GROUP.id: 5}, {PORT: 6})
MEMBERS = {GROUP.id: {PORT: 7}}


LONGEST = 20  # seconds until a test gives up; it waits only as long as it must


class Agent:
    """Records the casts of the server."""

    def __init__(self) -> None:
        self.casts: list[tuple[str, Collection[str] | None]] = []
        self.changes: list[Update | None] = []
        self.arrived = threading.Semaphore(0)

    def ports_changed(self, port_ids: Collection[str]) -> None:
        self._note("ports_changed", port_ids)

    def security_groups_changed(self, ids: Collection[str], change: Update | None) -> None:
        self.changes.append(change)
        self._note("security_groups_changed", ids)

    def resync(self, port_ids: Collection[str] | None) -> None:
        self._note("resync", port_ids)

    def _note(self, what: str, ids: Collection[str] | None) -> None:
        self.casts.append((what, ids))
        self.arrived.release()

    def next(self) -> tuple[str, Collection[str] | None]:
        assert self.arrived.acquire(timeout=LONGEST)
        return self.casts[-1]


class Consumer:
    """Accepts all reports but those of the ports in ``rejects``, or fails with ``error``."""

    def __init__(self, rejects: Mapping[str, str] | None = None) -> None:
        self.rejects = rejects or {}
        self.error: Exception | None = None
        self.accepted: list[FlowReport] = []
        self.heartbeats: list[tuple[str, Mapping[str, Any]]] = []
        self.known: list[Known] = []
        self.requests: list[tuple[str, Collection[str] | None]] = []
        self.senders: list[Identity | None] = []

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        self.senders.append(agent)
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
        self.senders.append(agent)
        self.requests.append((host, port_ids))
        return [model.port(GROUP, id=PORT, host=host), GROUP]

    def get_desired(
        self, host: str, port_ids: Collection[str], known: Known, agent: Identity | None = None
    ) -> Update:
        self.senders.append(agent)
        self._fail()
        self.known.append(known)
        return Update(
            ports=[model.port(GROUP, id=PORT, host=host)],
            security_groups=[GroupChange(GROUP.id, GROUP.revision, rules=GROUP.rules)],
            members=[MembersChange(GROUP.id, 2, 1, {PORT: ()})],
        )

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> Held:
        self.senders.append(agent)
        self._fail()
        self.heartbeats.append((host, state))
        return Held(42, desired=REVISIONS.digest())

    def get_revisions(self, host: str, agent: Identity | None = None) -> Revisions:
        self.senders.append(agent)
        self._fail()
        return REVISIONS

    def get_members(
        self, host: str, security_group: str, agent: Identity | None = None
    ) -> Mapping[str, int]:
        self.senders.append(agent)
        self._fail()
        return MEMBERS.get(security_group, {})

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def report(number: int, **fields: Any) -> FlowReport:
    """A report with this sequence, and an id made of it."""
    values = {"host": HOST, "resource_id": PORT, **fields}
    return model.flow_report(id=model.numbered_id(9, number), sequence=number, **values)
