"""Gating may be off for a time, on one host or on all: then ports need no proof to be ACTIVE.

An operator whose reports do not arrive turns it off, in the database, so that every server sees
it. Each such time is a row that is kept, with who turned it off, why, and until when.
"""

import datetime
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.server.core import clock
from agent_flows.server.core.models import GatingSuspension

LOG = log.getLogger(__name__)

DEFAULT_TIME = datetime.timedelta(hours=2)
LONGEST_TIME = datetime.timedelta(days=7)
_KEPT_FOR = datetime.timedelta(seconds=2)


class AlreadyOn(Exception):
    """Gating is not off for what it was to be turned on for."""


@dataclass(frozen=True)
class Suspension:
    """Gating is off from ``since`` until ``until``, unless it was turned on at ``ended_at``.

    For all hosts without a ``host``. ``by`` is who turned it off, ``ended_by`` who turned it on.
    """

    id: str
    host: str | None
    reason: str
    by: str
    since: datetime.datetime
    until: datetime.datetime
    ended_at: datetime.datetime | None = None
    ended_by: str | None = None

    def in_force(self, now: datetime.datetime) -> bool:
        return self.ended_at is None and now < self.until

    def covers(self, host: str | None) -> bool:
        return self.host is None or self.host == host


@dataclass(frozen=True)
class Gating:
    """The suspensions in force; without any, gating is on everywhere."""

    suspensions: tuple[Suspension, ...] = ()

    def off(self, host: str | None, now: datetime.datetime) -> Suspension | None:
        """The suspension for ``host`` that ends last; None if gating is on there."""
        theirs = (each for each in self.suspensions if each.in_force(now) and each.covers(host))
        return max(theirs, key=lambda each: each.until, default=None)

    def hosts_off(self, hosts: Iterable[str], now: datetime.datetime) -> set[str]:
        """Those of ``hosts`` where gating is off."""
        return {host for host in hosts if self.off(host, now) is not None}


ON = Gating()


def has_table(engine: sa.Engine) -> bool:
    """Whether the database's schema has a place for suspensions."""
    return sa.inspect(engine).has_table(GatingSuspension.__tablename__)


def read(session: Session, now: datetime.datetime) -> Gating:
    """As the database has it now."""
    row = GatingSuspension
    query = sa.select(row).where(row.ended_at.is_(None), row.until > now).order_by(row.since)
    return Gating(tuple(map(_value, session.scalars(query))))


class RecentGating:
    """Gating as the database had it at most 2 s ago, so that few reports cost a query."""

    def __init__(self) -> None:
        self._read_at: datetime.datetime | None = None
        self._gating = ON

    def current(self, session: Session, now: datetime.datetime) -> Gating:
        at = self._read_at
        if at is None or not at <= now < at + _KEPT_FOR:
            found = read(session, now)
            _log_changes(self._gating, found)
            self._gating, self._read_at = found, now
        return self._gating


def _log_changes(before: Gating, after: Gating) -> None:
    known = {each.id for each in before.suspensions}
    for each in after.suspensions:
        if each.id not in known:
            LOG.warning(
                "Gating is off for %s until %s, by %s: %s",
                each.host or "all hosts",
                clock.shown(each.until),
                each.by,
                each.reason,
            )
    left = {each.id for each in after.suspensions}
    for each in before.suspensions:
        if each.id not in left:
            LOG.warning("Gating is on again for %s", each.host or "all hosts")


def turn_off(
    session: Session,
    host: str | None,
    *,
    reason: str,
    by: str,
    now: datetime.datetime,
    time: datetime.timedelta = DEFAULT_TIME,
) -> Suspension:
    """Turn gating off for ``time``, for ``host`` or for all; what was in force for the same ends.

    Raises ValueError without a reason, or for a time that is not between a second and
    :data:`LONGEST_TIME`.
    """
    if not reason.strip():
        raise ValueError("a reason is needed: who reads the status later wants to know it")
    if not datetime.timedelta(seconds=1) <= time <= LONGEST_TIME:
        raise ValueError(f"gating can be off for 1 s to {LONGEST_TIME.days} days, not for {time}")
    _end(session, _of(read(session, now), host), by, now)
    row = GatingSuspension(
        id=str(uuid.uuid4()), host=host, reason=reason.strip(), by=by, since=now, until=now + time
    )
    session.add(row)
    session.flush()
    return _value(row)


def turn_on(
    session: Session, host: str | None, by: str, now: datetime.datetime
) -> Sequence[Suspension]:
    """End what is in force for ``host``; without one, everything. Answers what that was.

    Raises :class:`AlreadyOn` if there is nothing to end, or if gating is off for all hosts and is
    to be on for one.
    """
    current = read(session, now)
    ending = current.suspensions if host is None else _of(current, host)
    if not ending:
        others = " alone: it is off for all hosts" if current.off(host, now) else ""
        raise AlreadyOn(f"gating is not off for {host or 'any host'}{others}")
    _end(session, ending, by, now)
    return ending


def past(session: Session, limit: int) -> Sequence[Suspension]:
    """The ``limit`` newest suspensions, in force or not, the newest first."""
    row = GatingSuspension
    query = sa.select(row).order_by(row.since.desc(), row.id).limit(limit)
    return list(map(_value, session.scalars(query)))


def _of(gating: Gating, host: str | None) -> tuple[Suspension, ...]:
    return tuple(each for each in gating.suspensions if each.host == host)


def _end(
    session: Session, suspensions: Collection[Suspension], by: str, now: datetime.datetime
) -> None:
    if suspensions:
        session.execute(
            sa.update(GatingSuspension)
            .where(
                GatingSuspension.id.in_([each.id for each in suspensions]),
                GatingSuspension.ended_at.is_(None),
            )
            .values(ended_at=now, ended_by=by)
            .execution_options(synchronize_session=False)
        )


def _value(row: GatingSuspension) -> Suspension:
    return Suspension(
        row.id, row.host, row.reason, row.by, row.since, row.until, row.ended_at, row.ended_by
    )
