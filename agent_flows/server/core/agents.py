"""What is known of the agents: which process speaks for a host, and whether it lives."""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.report import SyncState, TaskError
from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.server.core import clock, condition, unknown
from agent_flows.server.core.casts import Casts, to_hosts
from agent_flows.server.core.condition import Condition
from agent_flows.server.core.directory import CLAIMED, PortDirectory
from agent_flows.server.core.errors import NotFound
from agent_flows.server.core.metrics import AGENT_NUMBERS, AgentGauges
from agent_flows.server.core.models import Agent
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

# A report that failed since the trouble began is newer knowledge than the trouble.
_UNTRUE_LATER = frozenset({SyncState.IN_SYNC, SyncState.SYNCING, SyncState.ABSENT})


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
    """Another process wants to speak for the host: its boot id (None for an agent of a release
    without identities), and when it was last heard."""

    boot_id: str | None
    heard_at: datetime.datetime


@dataclass(frozen=True)
class Sign:
    """A sign of life from the agent of ``host``: which process it is, and what it says.

    ``vouched``: it is the word of somebody else, who knows no identities.
    """

    host: str
    agent: Identity | None
    at: datetime.datetime
    state: Condition | None = None
    vouched: bool = False


@dataclass(frozen=True)
class Admitted:
    """The host's row, locked, and what its agent is to be told; or who has the host.

    With ``taken`` nothing may be done for the caller but to tell it, after the commit.
    """

    row: Agent
    casts: Casts = field(default_factory=Casts)
    taken: HostTaken | None = None


def admit(
    session: Session,
    directory: PortDirectory,
    rules: Rules,
    sign: Sign,
) -> Admitted:
    """An agent gave a sign of life, and wants to speak for its host.

    The ports of an agent that was taken for dead, or whose trouble made its
    claims untrue, are SYNCING again, and it is asked to wire them anew.
    Raises :class:`agent_flows.validation.Invalid` if no further host without
    ports is kept.
    """
    host, agent, now, vouched = sign.host, sign.agent, sign.at, sign.vouched
    row = session.get(Agent, host, with_for_update=True)
    new = row is None
    if row is None:
        if not vouched:
            _make_room(session, directory, host, rules)
        row = Agent(
            host=host,
            sequence=0,
            heartbeat_at=now,
            declared_dead=False,
            state=Condition().to_text(),
        )
        session.add(row)
    elif not vouched and not _may_speak(row, agent, now, rules):
        taken = _note_contender(row, agent, now, rules)
        session.flush()
        return Admitted(row, taken=taken)
    if not vouched:
        row.boot_id = agent.boot_id if agent else None
        row.spoke_at = now
        if row.contender == row.boot_id or conflict(row, now, rules) is None:
            row.contender = row.contended_at = None
    before = condition.of_text(row.state)
    after = before if sign.state is None else sign.state
    returned = new or row.declared_dead or bool(before.untrue)
    row.declared_dead = False
    row.heartbeat_at = now
    row.state = after.to_text()
    session.flush()
    if after.untrue:
        _doubt(session, directory, sign, before, after)
        return Admitted(row)
    return Admitted(row, _ask_again(session, directory, host, now) if returned else Casts())


def speaks(session: Session, host: str, agent: Identity | None) -> bool:
    """Whether this process is the one that speaks for the host already."""
    row = session.get(Agent, host)
    return row is not None and row.boot_id == (agent.boot_id if agent else None)


def _may_speak(row: Agent, agent: Identity | None, now: datetime.datetime, rules: Rules) -> bool:
    if (agent.boot_id if agent else None) == row.boot_id:
        return True
    # An agent that was upgraded, and one that was started again, go on at once.
    if agent is not None and (row.boot_id is None or row.boot_id in agent.predecessors):
        return True
    return row.declared_dead or (row.spoke_at or row.heartbeat_at) < now - rules.down


def _note_contender(
    row: Agent, agent: Identity | None, now: datetime.datetime, rules: Rules
) -> HostTaken:
    boot_id = agent.boot_id if agent else None
    heard = (row.spoke_at or row.heartbeat_at).isoformat(timespec="seconds")
    taken = HostTaken(
        row.host,
        f"the agent with boot id {row.boot_id or 'unknown'} speaks for it, last heard {heard}",
    )
    if conflict(row, now, rules) is None:
        LOG.warning(
            "Two agents report as host %s: nothing is taken from the one with boot id %s while "
            "the one with boot id %s lives",
            row.host,
            boot_id or "unknown",
            row.boot_id or "unknown",
        )
    row.contender, row.contended_at = boot_id, now
    return taken


def conflict(row: Agent, now: datetime.datetime, rules: Rules) -> Conflict | None:
    """Who else wants to speak for the host; None once it was silent for ``down_time``."""
    if row.contended_at is None or not now - rules.down <= row.contended_at <= now + rules.down:
        return None
    return Conflict(row.contender, row.contended_at)


def is_alive(row: Agent, now: datetime.datetime, rules: Rules) -> bool:
    return not row.declared_dead and row.heartbeat_at >= now - rules.down


def _doubt(
    session: Session, directory: PortDirectory, sign: Sign, before: Condition, after: Condition
) -> None:
    """A trouble of the host makes untrue what is said of its ports."""
    states = _UNTRUE_LATER if before.untrue else CLAIMED
    ports = directory.in_states(session, [sign.host], states)
    reason = unknown.untrue(sign.host, after.untrue)
    unknown.give_up(session, directory, [(port, reason) for port in ports], sign.at)


def _ask_again(
    session: Session, directory: PortDirectory, host: str, now: datetime.datetime
) -> Casts:
    ports = directory.in_states(session, [host], [SyncState.UNKNOWN])
    unknown.wait_for(session, directory, ports, now)
    return Casts(resyncs=to_hosts([host], {port.state.id for port in ports}))


def absence(session: Session, hosts: Collection[str]) -> dict[str, TaskError]:
    """Of ``hosts`` those whose agent does not live, each with why nothing is known there."""
    found = session.scalars(sa.select(Agent).where(Agent.host.in_(list(hosts))))
    rows = {row.host: row for row in found}
    missing = {host: unknown.never_seen(host) for host in hosts if host not in rows}
    dead = (row for row in rows.values() if row.declared_dead)
    return missing | {row.host: unknown.silent(row.host, row.heartbeat_at) for row in dead}


def lock_silent(
    session: Session, hosts: Collection[str], now: datetime.datetime, rules: Rules
) -> dict[str, TaskError]:
    """Of ``hosts``, whose rows are locked, those whose agent does not live any more, with why."""
    rows = session.scalars(
        sa.select(Agent).where(Agent.host.in_(list(hosts))).order_by(Agent.host).with_for_update()
    ).all()
    for row in rows:
        if row.heartbeat_at > now + rules.down:
            # The server's clock was set back: silence is measured from now.
            row.heartbeat_at = now
            row.spoke_at = now
        row.declared_dead = row.declared_dead or row.heartbeat_at < now - rules.down
    session.flush()
    return absence(session, hosts)


def newly_silent(session: Session, now: datetime.datetime, rules: Rules) -> set[str]:
    """Hosts to look at: silent and not yet declared dead, or heard in the future."""
    heard = Agent.heartbeat_at
    silent = sa.or_(
        sa.and_(heard < now - rules.down, sa.not_(Agent.declared_dead)), heard > now + rules.down
    )
    return set(session.scalars(sa.select(Agent.host).where(silent)))


def not_living(session: Session, hosts: Collection[str]) -> set[str]:
    """Of ``hosts`` those whose agent was never seen or is declared dead."""
    living = set(session.scalars(sa.select(Agent.host).where(sa.not_(Agent.declared_dead))))
    return set(hosts) - living


def gauges(session: Session, now: datetime.datetime, rules: Rules) -> list[AgentGauges]:
    """Of every agent that is known."""
    found = []
    for row in session.scalars(sa.select(Agent).order_by(Agent.host)):
        said = condition.of_text(row.state)
        found.append(
            AgentGauges(
                host=row.host,
                alive=is_alive(row, now, rules),
                age=max((now - row.heartbeat_at).total_seconds(), 0.0),
                conflict=conflict(row, now, rules) is not None,
                troubles=frozenset(said.troubles),
                numbers={name: said.facts[name] for name in AGENT_NUMBERS if name in said.facts},
            )
        )
    return found


def hold(row: Agent, sequence: int, now: datetime.datetime) -> int:
    """Remember ``sequence`` for the host if it is its highest; answers the highest."""
    row.sequence = max(clock.credible(row.sequence, now), sequence)
    return row.sequence


def held(session: Session, host: str, now: datetime.datetime) -> int:
    """The highest sequence held for the host, 0 if none is."""
    found = session.scalar(sa.select(Agent.sequence).where(Agent.host == host))
    return clock.credible(found or 0, now)


def forget(session: Session, host: str) -> None:
    """Delete what is known of the agent; raises NotFound. One that lives simply comes back."""
    row = session.get(Agent, host, with_for_update=True)
    if row is None:
        raise NotFound("agent", host)
    session.delete(row)
    session.flush()


def forget_gone(
    session: Session, directory: PortDirectory, now: datetime.datetime, rules: Rules
) -> list[str]:
    """Forget the agents that are silent for ``forget_after`` and have no ports; answers whose."""
    since = now - datetime.timedelta(seconds=max(rules.forget_after, rules.down_time))
    silent = Agent.heartbeat_at < since
    return _remove(session, _without_ports(session, directory, silent), silent)


def _make_room(session: Session, directory: PortDirectory, host: str, rules: Rules) -> None:
    """For a host that was never seen: whoever may publish on the bus may name any number."""
    number = session.scalar(sa.select(sa.func.count()).select_from(Agent)) or 0
    if number < rules.most_idle or directory.with_ports(session, [host]):
        return
    idle = _without_ports(session, directory, sa.true())
    if len(idle) < rules.most_idle:
        return
    dead = _without_ports(session, directory, Agent.declared_dead.is_(True))
    if not dead:
        raise Invalid(
            "host",
            host,
            f"{rules.most_idle} hosts without a port are known, and no more are kept "
            "(max_idle_agents); bind a port to it first, or delete agents that are gone",
        )
    _remove(session, dead, Agent.declared_dead.is_(True))
    LOG.warning(
        "More than %d hosts without a port: forgot %d that are silent", rules.most_idle, len(dead)
    )


def _without_ports(
    session: Session, directory: PortDirectory, condition_: sa.ColumnElement[bool]
) -> list[str]:
    hosts = session.scalars(sa.select(Agent.host).where(condition_).order_by(Agent.host)).all()
    return sorted(set(hosts) - directory.with_ports(session, hosts)) if hosts else []


def _remove(session: Session, hosts: Sequence[str], still: sa.ColumnElement[bool]) -> list[str]:
    if not hosts:
        return []
    session.execute(
        sa.delete(Agent)
        .where(Agent.host.in_(hosts), still)
        .execution_options(synchronize_session=False)
    )
    return list(hosts)
