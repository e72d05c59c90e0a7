"""What is recorded of each agent: which process reports for a host, heartbeats, sequence."""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.rpc.revisions import NOT_COMPARED
from agent_flows.rpc.signing import fingerprint
from agent_flows.server.core import clock, condition, in_step, unknown
from agent_flows.server.core.casts import Casts, to_hosts
from agent_flows.server.core.condition import Condition
from agent_flows.server.core.directory import CLAIMED, PortDirectory
from agent_flows.server.core.errors import NotFound
from agent_flows.server.core.liveness import (
    Liveness,
    Rules,
    follows,
    is_strange,
    key_of,
    last_call,
    owns,
    speaks,
)
from agent_flows.server.core.models import Agent
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

# A report that failed after the trouble began is newer knowledge than the trouble.
_UNTRUE_LATER = frozenset({SyncState.IN_SYNC, SyncState.SYNCING, SyncState.ABSENT})


@dataclass(frozen=True)
class Heartbeat:
    """A call from the agent of ``host``: which process it is, and the condition it reports.

    ``desired`` is the digest of the desired state it has; it has a meaning only with a ``state``.
    ``vouched``: another service, which knows no identities, reports that the agent is alive.
    """

    host: str
    agent: Identity | None
    at: datetime.datetime
    state: Condition | None = None
    vouched: bool = False
    desired: str = NOT_COMPARED


@dataclass(frozen=True)
class Admitted:
    """The host's row, locked, and the casts to its agent; or who has the host.

    ``desired`` is the digest of what is desired of the host. With ``taken`` the
    call is refused, after the commit. One that is not ``counted`` is no sign of life: it is not
    younger than the last one that the host's key signed.
    """

    row: Agent
    casts: Casts = field(default_factory=Casts)
    desired: str = NOT_COMPARED
    taken: HostTaken | None = None
    counted: bool = True


def record_heartbeat(
    session: Session, directory: PortDirectory, rules: Rules, beat: Heartbeat
) -> Admitted:
    """Record that the agent is alive, unless another process reports for its host.

    If the agent was declared dead, or its trouble made its claims untrue, its
    ports are SYNCING again and it is asked to wire them again; not if it has just started and
    will do that anyway. So are all ports of a host for which another process has reported.
    Raises :class:`agent_flows.validation.Invalid` if no further host without
    ports is kept.
    """
    host, agent, now, vouched = beat.host, beat.agent, beat.at, beat.vouched
    liveness = Liveness(rules, now)
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
    elif not vouched and not liveness.admits(row, agent):
        taken = _note_contender(row, agent, liveness)
        session.flush()
        return Admitted(row, taken=taken)
    elif not vouched and _is_replayed(row, agent, liveness):
        # A heartbeat is answered with the number to go on from.
        answered = beat.state is not None or speaks(row, agent)
        late = None if answered else HostTaken(host, "a later call of the host was received")
        return Admitted(row, taken=late, counted=False)
    # One that the API forgot may run for long.
    started = not new and not vouched and agent is not None and row.boot_id != agent.boot_id
    taken_over = not new and not vouched and not follows(row, agent)
    if not vouched:
        _speak(row, agent, now)
        if row.contender == row.boot_id or liveness.conflict(row) is None:
            row.contender = row.contended_at = None
    before = condition.of_text(row.state)
    after = before if beat.state is None else beat.state
    returned = new or row.declared_dead or bool(before.untrue)
    row.declared_dead = False
    row.heartbeat_at = now
    row.state = after.to_text()
    if new or returned or taken_over or after.untrue:
        # What follows reads it. Otherwise it is written once, with the sequence of the message.
        session.flush()
    casts = _ask_for_reports(
        session,
        directory,
        beat,
        taken_over=taken_over,
        returned=returned and not after.untrue,
        started=started,
    )
    if after.untrue:
        _doubt(session, directory, beat, before, after)
        if beat.state is not None:
            in_step.compare(row, NOT_COMPARED, None, now)
        return Admitted(row)
    if beat.state is None or vouched:
        return Admitted(row, casts)
    ours = directory.desired(session, host)
    in_step.compare(row, beat.desired, ours, now)
    casts |= in_step.doubt(session, directory, row, rules, now)
    return Admitted(row, casts, NOT_COMPARED if ours is None else ours.digest())


def reports_for(session: Session, host: str, agent: Identity | None) -> bool:
    """Whether this process is already the one that reports for the host."""
    row = session.get(Agent, host)
    return row is not None and speaks(row, agent)


def _is_replayed(row: Agent, agent: Identity | None, liveness: Liveness) -> bool:
    """Whether the host's key signed the call, and it is not younger than the last one."""
    proof = agent.proof if agent else None
    return proof is not None and owns(row, agent) and not liveness.is_recent(row, proof)


def _speak(row: Agent, agent: Identity | None, now: datetime.datetime) -> None:
    """From now on this process, and its key, reports for the host."""
    key, strange = key_of(agent), is_strange(row)
    row.boot_id = agent.boot_id if agent else None
    row.speaker_key, row.spoke_at = key, now
    if agent is not None and agent.proof is not None and (row.host_key is None or owns(row, agent)):
        if row.host_key != key:
            LOG.info("Host %s has the key %s", row.host, fingerprint(agent.proof.key))
        row.host_key = key
        number = agent.proof.number
        row.call_number = number if number <= clock.highest_sequence(now) else None
    elif is_strange(row) and not strange:
        LOG.warning(
            "Host %s was silent, and now reports with %s, not with its key %s",
            row.host,
            _key_shown(key),
            _key_shown(row.host_key),
        )


def _key_shown(key: str | None) -> str:
    return "no key" if key is None else f"the key {fingerprint(key)}"


def _note_contender(row: Agent, agent: Identity | None, liveness: Liveness) -> HostTaken:
    boot_id = agent.boot_id if agent else None
    last = last_call(row).isoformat(timespec="seconds")
    reason = f"the agent with boot id {row.boot_id or 'unknown'} reports for it"
    if row.host_key is not None and not owns(row, agent):
        reason = (
            f"{_key_shown(row.host_key)} speaks for it, this call has {_key_shown(key_of(agent))} "
            f"(if the host was installed again: agent-flows-manage host-key forget {row.host})"
        )
    taken = HostTaken(row.host, f"{reason}, last heartbeat {last}")
    if liveness.conflict(row) is None:
        LOG.warning(
            "Two agents report as host %s: the one with boot id %s is refused while the one with "
            "boot id %s is alive",
            row.host,
            boot_id or "unknown",
            row.boot_id or "unknown",
        )
    row.contender, row.contended_at = boot_id, liveness.now
    return taken


def _doubt(
    session: Session, directory: PortDirectory, beat: Heartbeat, before: Condition, after: Condition
) -> None:
    """A trouble of the host makes the states of its ports untrue."""
    states = _UNTRUE_LATER if before.untrue else CLAIMED
    ports = directory.in_states(session, [beat.host], states)
    reason = unknown.untrue(beat.host, after.untrue)
    unknown.give_up(session, directory, [(port, reason) for port in ports], beat.at)


def _ask_for_reports(
    session: Session,
    directory: PortDirectory,
    beat: Heartbeat,
    *,
    taken_over: bool,
    returned: bool,
    started: bool,
) -> Casts:
    """``taken_over``: the process before this one may have reported of another machine's switch."""
    if not taken_over and not returned:
        return Casts()
    states = list(SyncState) if taken_over else [SyncState.UNKNOWN]
    ports = directory.in_states(session, [beat.host], states)
    unknown.await_reports(session, directory, ports, beat.at)
    if started and not taken_over and directory.agents_report_all_at_start:
        return Casts()
    return Casts(resyncs=to_hosts([beat.host], {port.id for port in ports}))


def hold(row: Agent, sequence: int, now: datetime.datetime) -> int:
    """Remember ``sequence`` for the host if it is its highest; answers the highest."""
    row.sequence = max(clock.credible(row.sequence, now), sequence)
    return row.sequence


def held(session: Session, hosts: Collection[str], now: datetime.datetime) -> dict[str, int]:
    """The highest sequence held for each of these hosts that has one."""
    query = sa.select(Agent.host, Agent.sequence).where(Agent.host.in_(list(hosts)))
    found = session.execute(query) if hosts else ()
    return {host: clock.credible(sequence, now) for host, sequence in found}


def forget(session: Session, host: str) -> None:
    """Delete what is known of the agent; raises NotFound. Its next heartbeat brings it back."""
    row = session.get(Agent, host, with_for_update=True)
    if row is None:
        raise NotFound("agent", host)
    session.delete(row)
    session.flush()


def forget_key(session: Session, host: str) -> str:
    """The next key that signs a call for the host is the host's; answers the fingerprint of the one
    that was. Raises NotFound if the host or its key is not known."""
    row = session.get(Agent, host, with_for_update=True)
    if row is None or row.host_key is None:
        raise NotFound("key of host", host)
    key = row.host_key
    row.host_key = row.speaker_key = row.call_number = None
    session.flush()
    return fingerprint(key)


def has_keys(engine: sa.Engine) -> bool:
    """Whether the database's schema has a place for the keys of hosts."""
    columns = sa.inspect(engine).get_columns(Agent.__tablename__)
    return any(column["name"] == Agent.host_key.key for column in columns)


def keys(session: Session) -> list[tuple[str, str, str | None]]:
    """Every host with a key: its name, the key's fingerprint, and that of another key or ``no key``
    if a stranger reports for it."""
    rows = session.scalars(sa.select(Agent).where(Agent.host_key.is_not(None)).order_by(Agent.host))
    return [
        (
            row.host,
            fingerprint(row.host_key or ""),
            _key_shown(row.speaker_key) if is_strange(row) else None,
        )
        for row in rows
    ]


def forget_gone(
    session: Session, directory: PortDirectory, now: datetime.datetime, rules: Rules
) -> list[str]:
    """Forget the agents that are silent for ``forget_after`` and have no ports; answers whose."""
    since = now - datetime.timedelta(seconds=max(rules.forget_after, rules.down_time))
    silent = Agent.heartbeat_at < since
    gone = _without_ports(session, directory, silent)
    _remove(session, gone, silent)
    return gone


def _make_room(session: Session, directory: PortDirectory, host: str, rules: Rules) -> None:
    """For a host that was never seen: any client of the bus could name any number of them."""
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


def _remove(session: Session, hosts: Sequence[str], still: sa.ColumnElement[bool]) -> None:
    if not hosts:
        return
    session.execute(
        sa.delete(Agent)
        .where(Agent.host.in_(hosts), still)
        .execution_options(synchronize_session=False)
    )
