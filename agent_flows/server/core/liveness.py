"""Which agents are alive, which key speaks for a host, and which hosts two agents claim: what an
agent's row means now. Pure.

The first key that signs a call for a host is the host's from then on. Another one, or none, speaks
for the host only while the host's own agent is silent (not at all with ``strict_keys``), is shown
as a stranger, and gives way as soon as the host's key calls again.
"""

import datetime
from dataclasses import dataclass

from agent_flows.rpc.identity import Identity, Proof
from agent_flows.server.core import clock
from agent_flows.server.core.models import Agent


@dataclass(frozen=True)
class Rules:
    """``down_time`` is after how many seconds of silence an agent is dead, ``most_idle`` how many
    hosts without ports are kept, ``forget_after`` after how many seconds such a host is forgotten.
    With ``strict_keys`` no other key than the host's ever speaks for it.
    """

    down_time: float = 35.0
    most_idle: int = 1000
    forget_after: float = 7 * 24 * 3600.0
    strict_keys: bool = False

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
        if speaks(row, agent):
            return True
        silent = row.declared_dead or last_call(row) < self.now - self.rules.down
        if row.host_key is not None and not owns(row, agent):
            return silent and not self.rules.strict_keys
        if is_strange(row):
            return True
        # An agent that was upgraded or restarted goes on at once.
        return silent or (agent is not None and follows(row, agent))

    def is_recent(self, row: Agent, proof: Proof) -> bool:
        """Whether the call is younger than every other that the host's key signed."""
        highest = clock.highest_sequence(self.now)
        return clock.credible(row.call_number or 0, self.now) < proof.number <= highest


def speaks(row: Agent, agent: Identity | None) -> bool:
    """Whether this process is the one that reports for the host."""
    boot_id = agent.boot_id if agent else None
    return (boot_id, key_of(agent)) == (row.boot_id, row.speaker_key)


def follows(row: Agent, agent: Identity | None) -> bool:
    """Whether the process that reports for the host is this one, or one that ran before it with the
    same state directory. So is one that has no boot id, for all that is known."""
    return agent is None or row.boot_id in (None, agent.boot_id, *agent.predecessors)


def owns(row: Agent, agent: Identity | None) -> bool:
    """Whether the host's key, or one that it vouches for, signed the call."""
    proof = agent.proof if agent else None
    return proof is not None and row.host_key in (proof.key, proof.succeeds)


def is_strange(row: Agent) -> bool:
    """Whether the process that reports for the host has not the host's key."""
    return row.host_key is not None and row.speaker_key != row.host_key


def key_of(agent: Identity | None) -> str | None:
    """The key that signed a call; None for one that is not signed."""
    return agent.proof.key if agent is not None and agent.proof is not None else None


def last_call(row: Agent) -> datetime.datetime:
    """When the agent itself last called."""
    return row.spoke_at or row.heartbeat_at
