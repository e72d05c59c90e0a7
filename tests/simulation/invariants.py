"""What must hold after every step, and what once nothing is disturbed any more.

The numbers are those of doc/contributor/architecture.md. Nothing here asks the code that it checks:
what was stored, sent and taken was noted on its way, and what a switch lets through is read from
its flows.
"""

import collections
import datetime
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agent_flows.engine.port_life import Phase
from agent_flows.report import FlowName, FlowReport, PortStatus, ResourceType, SyncState
from agent_flows.server.core import models as core
from agent_flows.server.core.models import table_of
from agent_flows.server.standalone import models, port_state
from tests.simulation.server import RULES, rows
from tests.simulation.switch import Allowed

if TYPE_CHECKING:
    from tests.simulation.agent import Agent
    from tests.simulation.world import Delivered, World

_PORT, _GROUP = table_of(models.Port).c, table_of(models.SecurityGroup).c
_MEMBERSHIP, _AT_HOST = table_of(models.Membership).c, table_of(models.SecurityGroupHost).c
_AGENT, _ATTEMPT = table_of(core.Agent).c, table_of(core.Attempt).c
_PORTS, _GROUPS = sa.select(*_PORT), sa.select(*_GROUP)
_MEMBERSHIPS = sa.select(_MEMBERSHIP.port_id, _MEMBERSHIP.security_group_id)
_AGENTS = sa.select(_AGENT.host, _AGENT.sequence, _AGENT.boot_id, _AGENT.spoke_at, _AGENT.host_key)
_FAILURES = sa.select(_ATTEMPT.id).where(_ATTEMPT.failed)
_SHOWN = sa.select(*_PORT, port_state.SYNC_STATE.label("shown")).select_from(models.Port)
_WIRING = (FlowName.WIRE, FlowName.RESYNC, FlowName.REFRESH)


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class _Port:
    """A port's row, and since which report (of all that were taken) it is bound to its host."""

    row: Any
    since: int


class Invariants:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._commits = -1
        self._found: Broken | None = None
        # How many reports were taken before the step.
        self._before = 0
        self._ports: dict[str, _Port] = {}
        self._revisions: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        # By process: the revisions at which it has stored that a port is as desired.
        self._claims: dict[tuple[int, str], set[int]] = {}
        self._stored: dict[str, set[str]] = {}
        self._speakers: dict[str, Any] = {}

    # While a step runs.

    def stored(self, agent: "Agent", reports: Sequence[FlowReport]) -> None:
        """2, 14: what is claimed is true when it is stored."""
        for report in reports:
            self._stored.setdefault(agent.disk.path, set()).add(report.id)
            if report.failed is not None or report.resource_type is not ResourceType.PORT:
                continue
            if report.flow in _WIRING:
                key = id(agent.outbox), report.resource_id
                self._claims.setdefault(key, set()).add(report.revision)
                if not self._world.tampered:
                    self._check_rules(agent, report)

    def _check_rules(self, agent: "Agent", report: FlowReport) -> None:
        named = report.security_group_revisions.items()
        wanted = self._allowed(named)
        found = agent.switch.allowed(report.resource_id)
        if found != wanted:
            self._broken(2, f"reported as proven with {wanted}, the switch has {found}")

    def _allowed(self, groups: Iterable[tuple[str, int]]) -> Allowed:
        return functools.reduce(
            operator.or_, (self._world.allowed[each] for each in groups), Allowed()
        )

    def taken(self) -> None:
        """After the commit of reports: later in the step more may change. Who calls this would
        catch what is raised, so :meth:`after_step` raises it."""
        try:
            self._check_database()
        except Broken as exc:
            self._found = self._found or exc

    # After a step.

    def after_step(self) -> None:
        if self._found is not None:
            raise self._found
        for agent in self._world.agents:
            if agent.has_defect:
                raise Broken(f"{agent.has_defect}\n{self._world.story_text()}")
            if agent.alive:
                self._check_memory(agent)
        commits = sum(server.commits for server in self._world.servers)
        if commits != self._commits:
            self._commits = commits
            self._check_database()
            self._check_history()
        self._check_outboxes()
        self._world.tampered = False

    def _check_memory(self, agent: "Agent") -> None:
        """14: what counts as proven was stored before."""
        for port_id, life in agent.reconciler.table.lives().items():
            if life.phase is Phase.PROVEN and port_id in agent.outbox.lost:
                self._broken(14, f"{port_id} counts as proven, and its report was not stored")
            if life.phase is Phase.PROVEN and life.proven and life.applied is not None:
                claimed = self._claims.get((id(agent.outbox), port_id), set())
                if life.applied.wiring.revision not in claimed:
                    self._broken(14, f"{port_id} counts as proven, and no report of it was stored")

    def _check_outboxes(self) -> None:
        """3: a report leaves the outbox only after the server has taken it."""
        taken = {each.report.id for each in self._world.delivered}
        for agent in self._world.agents:
            stored = self._stored.get(agent.disk.path, set())
            missing = stored - taken - agent.disk.ids()
            if missing:
                self._broken(3, f"reports {missing} left the outbox, and no server has taken them")

    def _check_history(self) -> None:
        """3, 9: every failure that the server took as news is in the history, once."""
        kept = collections.Counter(row.id for row in rows(_FAILURES))
        for id_ in self._world.failures:
            if kept[id_] != 1:
                self._broken(3, f"the failure {id_[:4]} is {kept[id_]} times in the history")

    def _check_database(self) -> None:
        ports = {row.id: row for row in rows(_PORTS)}
        groups = {row.id: row for row in rows(_GROUPS)}
        members = _members()
        agents = rows(_AGENTS)
        now = len(self._world.delivered)
        for port_id, row in ports.items():
            before = self._ports.get(port_id)
            self._check_port(before, row, groups, members.get(port_id, ()))
            rebound = before is None or before.row.host != row.host
            since = self._before if rebound else before.since  # type: ignore[union-attr]
            self._ports[port_id] = _Port(row, since)
        for port_id in self._ports.keys() - ports.keys():
            del self._ports[port_id]
        for row in agents:
            self._check_speaker(row)
            if row.sequence < self._sequences.get(row.host, 0):
                self._broken(4, f"the sequence of {row.host} fell")
            self._sequences[row.host] = row.sequence
        self._check_senders(agents)
        self._before = now

    def _check_speaker(self, row: Any) -> None:
        """10: while the agent of a host is alive, no other one reports for it but with its key."""
        before = self._speakers.get(row.host)
        self._speakers[row.host] = row
        if before is None or before.boot_id == row.boot_id or before.spoke_at is None:
            return
        of_boot = {each.boot_id: agent for agent in self._world.agents for each in agent.boots}
        was, now = of_boot[before.boot_id], of_boot[row.boot_id]
        spoke_at = datetime.datetime.fromisoformat(before.spoke_at).replace(tzinfo=datetime.UTC)
        silent = (self._world.clock.now() - spoke_at).total_seconds()
        if was is not now and silent < RULES.down_time and row.host_key != now.disk.public_key:
            self._broken(10, f"{now.name} reports, and {was.name} called {silent:.0f} s ago")

    def _check_senders(self, agents: Iterable[Any]) -> None:
        """10: reports are taken of the process that reports for the host."""
        speakers = {row.host: row.boot_id for row in agents}
        for each in self._world.delivered[self._before :]:
            if each.boot_id != speakers.get(each.report.host):
                self._broken(10, f"a report for {each.report.host} of another process was taken")

    def _check_port(
        self, before: _Port | None, row: Any, groups: Mapping[str, Any], members: Sequence[str]
    ) -> None:
        if row.revision_number < self._revisions.get(row.id, 0):
            self._broken(4, f"the revision of {row.id} fell")
        self._revisions[row.id] = row.revision_number
        if before is not None and before.row.host == row.host:
            if row.sequence < before.row.sequence:
                self._broken(4, f"the sequence of {row.id} fell")
            # A port that was deleted and made again has a later one from the start.
            same = row.revision_number == before.row.revision_number
            reported = {
                each.report.sequence
                for each in self._world.delivered[self._before :]
                if (each.report.resource_id, each.report.host) == (row.id, row.host)
            }
            if same and row.sequence > before.row.sequence and row.sequence not in reported:
                self._broken(4, f"{row.id} is as another host than {row.host} reported it")
            was_active = before.row.status == PortStatus.ACTIVE
        else:
            was_active = False
        if row.status != PortStatus.ACTIVE:
            return
        since = self._before if before is None or before.row.host != row.host else before.since
        own = [
            each
            for each in self._world.delivered[since:]
            if each.report.resource_id == row.id and each.report.host == row.host
        ]
        newest = max(own, key=lambda each: each.made, default=None)
        if newest is None:
            self._broken(2, f"{row.id} is ACTIVE without a report from {row.host}")
        if was_active:
            self._check_failure(row, newest.report, groups, members)
        else:
            self._check_proof(row, own, newest.report, groups, members)

    def _check_failure(
        self, row: Any, report: FlowReport, groups: Mapping[str, Any], members: Sequence[str]
    ) -> None:
        """2: a port that was ACTIVE is so no longer once what is desired now has failed."""
        current = {group: groups[group].revision for group in members}
        if (
            report.failed is not None
            and report.flow in _WIRING
            and report.revision == row.revision_number
            and report.security_group_revisions == current
        ):
            self._broken(2, f"{row.id} is still ACTIVE, and its newest report failed")

    def _check_proof(
        self,
        row: Any,
        own: Sequence["Delivered"],
        report: FlowReport,
        groups: Mapping[str, Any],
        members: Sequence[str],
    ) -> None:
        """2, 4, 10: a port that has become ACTIVE is proven by its newest report."""
        if report.failed is not None or report.flow not in _WIRING:
            self._broken(4, f"{row.id} is ACTIVE, and its newest report is {report.flow}, failed")
        proofs = [each for each in own if each.report.failed is None]
        if not any(
            each.report.revision == row.revision_number
            and each.report.flow in (FlowName.WIRE, FlowName.RESYNC)
            for each in proofs
        ):
            self._broken(2, f"{row.id} is ACTIVE, and its revision was not wired")
        for group in members:
            of_group = [
                each.report.revision
                for each in self._world.delivered
                if each.report.resource_id == group
                and each.report.host == row.host
                and each.report.failed is None
            ]
            named = [each.report.security_group_revisions.get(group, 0) for each in proofs]
            if max([*of_group, *named], default=0) < groups[group].rules_revision:
                self._broken(2, f"{row.id} is ACTIVE with older rules of {group}")

    # Once nothing is disturbed.

    def not_converged(self) -> list[str]:
        """12, 11: what is not yet as it is desired to be."""
        revisions = {row.id: row.revision for row in rows(_GROUPS)}
        members = _members()
        wrong = []
        bound = {row.id: row for row in rows(_SHOWN)}
        for agent in self._world.agents:
            if not agent.alive:
                continue
            if left := agent.disk.ids():
                wrong.append(f"{len(left)} reports of {agent.host} were not taken")
            for port_id, plug in agent.switch.plugs.items():
                port = bound.get(port_id)
                if port is not None and port.host == agent.host:
                    continue
                if plug.vlan is not None or agent.switch.has_flows_of(plug.ofport):
                    wrong.append(f"{port_id} is open on {agent.host}, and not bound to it")
        for row in bound.values():
            agent = self._of(row.host)
            if agent is None:
                continue
            if row.id not in agent.switch.plugs:
                if (row.status, row.shown) != (PortStatus.DOWN, SyncState.ABSENT):
                    wrong.append(f"{row.id} is {row.status} and {row.shown}, and not plugged in")
                continue
            if (row.status, row.shown) != (PortStatus.ACTIVE, SyncState.IN_SYNC):
                wrong.append(f"{row.id} is {row.status} and {row.shown}")
                continue
            wanted = self._allowed((group, revisions[group]) for group in members.get(row.id, ()))
            found = agent.switch.allowed(row.id)
            if found != wanted:
                wrong.append(f"{row.id} has {found} in the switch, and {wanted} is desired")
        return wrong

    def _of(self, host: str | None) -> "Agent | None":
        """The agent that reports for the host."""
        return next((agent for agent in self._world.agents if agent.host == host), None)

    def _broken(self, number: int, what: str) -> None:
        raise Broken(f"invariant {number}: {what}\n{self._world.story_text()}")


def _members() -> Mapping[str, Sequence[str]]:
    """The groups that each port is in."""
    found: dict[str, list[str]] = {}
    for row in rows(_MEMBERSHIPS):
        found.setdefault(row.port_id, []).append(row.security_group_id)
    return found
