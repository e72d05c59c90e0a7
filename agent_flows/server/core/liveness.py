"""Which agents are alive, and which hosts two agents claim: what an agent's row means now. Pure."""

import datetime
from dataclasses import dataclass

from agent_flows.rpc.identity import Identity
from agent_flows.server.core.models import Agent


@dataclass(frozen=True)
class Rules:
    """``down_time`` is after how many seconds of silence an agent is dead, ``most_idle`` how many
    hosts without ports are kept, ``forget_after`` after how many seconds such a host is forgotten.
    """

    down_time: float = 35.0
    most_idle: int = 1000
    forget_after: float = 7 * 24 * 3600.0

    @property
    def down(self) -> datetime.timedelta:
        return datetime.timedelta(seconds=self.down_time)


@dataclass(frozen=True)
class Conflict:
    """Another process that claims the host: its boot id (None for an agent of a release without
    identities), and when it last called."""

    boot_id: str | None
    heard_at: datetime.datetime


@dataclass(frozen=True)
class Liveness:
    rules: Rules
    now: datetime.datetime

    def alive(self, row: Agent) -> bool:
        return not row.declared_dead and row.heartbeat_at >= self.now - self.rules.down

    def conflict(self, row: Agent) -> Conflict | None:
        """Who else claims the host; None once it was silent for ``down_time``."""
        at, down = row.contended_at, self.rules.down
        if at is None or not self.now - down <= at <= self.now + down:
            return None
        return Conflict(row.contender, at)

    def admits(self, row: Agent, agent: Identity | None) -> bool:
        """Whether this process may report for the host of ``row``."""
        if (agent.boot_id if agent else None) == row.boot_id:
            return True
        # An agent that was upgraded or restarted goes on at once.
        if agent is not None and (row.boot_id is None or row.boot_id in agent.predecessors):
            return True
        return row.declared_dead or last_call(row) < self.now - self.rules.down


def last_call(row: Agent) -> datetime.datetime:
    """When the agent itself last called."""
    return row.spoke_at or row.heartbeat_at
