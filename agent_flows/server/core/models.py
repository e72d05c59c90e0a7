"""The tables that the standalone server and Neutron's server share: agents, and the history.

In Neutron's database they stand among Neutron's own, so their names begin with
``agent_flows_``. Times are UTC.
"""

import datetime
import functools
from collections.abc import Callable
from typing import Any, ClassVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


# Names of hosts differ by case, so MariaDB must not compare without it.
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


class UtcDateTime(sa.types.TypeDecorator[datetime.datetime]):
    """An aware time, stored in UTC to the microsecond."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
        # The reports of a batch share their times: 4 us saved on each of a thousand.
        processor = super().bind_processor(dialect)
        return processor and functools.lru_cache(maxsize=64)(processor)

    def process_bind_param(
        self, value: datetime.datetime | None, dialect: sa.Dialect
    ) -> datetime.datetime | None:
        return None if value is None else value.astimezone(datetime.UTC).replace(tzinfo=None)

    def process_result_value(
        self, value: datetime.datetime | None, dialect: sa.Dialect
    ) -> datetime.datetime | None:
        return None if value is None else value.replace(tzinfo=datetime.UTC)


# Long values need more than MariaDB's 64 KiB of TEXT.
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


class Base(DeclarativeBase):
    metadata = sa.MetaData(naming_convention=_NAMES)
    __table_args__: Any = OPTIONS
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: sa.BigInteger(),
        datetime.datetime: UtcDateTime(),
    }


def table_of(model: type[DeclarativeBase]) -> sa.Table:
    """The table of the model, for statements about rows: these cost less than half of the ORM's."""
    return cast(sa.Table, model.__table__)


Uuid = sa.String(36)
Host = sa.String(255)
PublicKey = sa.String(44)


class PortRow:
    """The columns that every table of ports has: what is known of each port's wiring.

    ``sequence`` is that of the last report taken for the port on its present host,
    ``proven_revision`` the revision at which its last wiring was proven complete,
    ``sync_since`` is since when the port has its ``sync_state``; a change of what is desired starts
    it again while the port is SYNCING, and with it ``report_timeout``. None of a port that has not
    changed since a release before this; its column has the name of the only state it was for.
    """

    host: Mapped[str | None] = mapped_column(Host)
    admin_state_up: Mapped[bool] = mapped_column(sa.Boolean())
    status: Mapped[str] = mapped_column(sa.String(16))
    sync_state: Mapped[str] = mapped_column(sa.String(16))
    sequence: Mapped[int] = mapped_column(sa.BigInteger())
    proven_revision: Mapped[int | None] = mapped_column(sa.BigInteger())
    sync_since: Mapped[datetime.datetime | None] = mapped_column(
        "syncing_since", UtcDateTime(), key="sync_since"
    )
    updated_at: Mapped[datetime.datetime] = mapped_column(UtcDateTime())


class DeletedPort(Base):
    """The revision a deleted port had.

    A port created again under the same id goes on from there, so that a late
    report about the old one cannot prove the new one.
    """

    __tablename__ = "agent_flows_deleted_ports"

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    revision_number: Mapped[int]
    deleted_at: Mapped[datetime.datetime] = mapped_column(index=True)


class Agent(Base):
    """The agent of a host: ``sequence`` is the highest of its reports.

    ``boot_id`` is the process that reports for the host, None for an agent of a
    release without identities, ``spoke_at`` its own last call (in Neutron a state
    report of the OVS agent is a heartbeat too). ``contender`` is the last other
    process that claimed the host, ``contended_at`` its last call, None without one.
    ``desired`` is the digest of the desired state that the agent has, as of its last heartbeat,
    None if that is not compared; ``differs_since`` is since when it has that and no other
    although the server's differs, None while they are equal.
    ``host_key`` is the public key that speaks for the host, None if none was seen, and
    ``call_number`` the highest number of a call that it signed; ``speaker_key`` is the key of the
    process that reports now, None if its calls are not signed.
    """

    __tablename__ = "agent_flows_agents"

    host: Mapped[str] = mapped_column(Host, primary_key=True)
    sequence: Mapped[int]
    heartbeat_at: Mapped[datetime.datetime] = mapped_column(index=True)
    declared_dead: Mapped[bool]
    state: Mapped[str] = mapped_column(LongText)
    boot_id: Mapped[str | None] = mapped_column(Uuid)
    spoke_at: Mapped[datetime.datetime | None]
    contender: Mapped[str | None] = mapped_column(Uuid)
    contended_at: Mapped[datetime.datetime | None]
    desired: Mapped[str | None] = mapped_column(sa.String(32))
    differs_since: Mapped[datetime.datetime | None]
    host_key: Mapped[str | None] = mapped_column(PublicKey)
    speaker_key: Mapped[str | None] = mapped_column(PublicKey)
    call_number: Mapped[int | None]


class GatingSuspension(Base):
    """A time for which gating is or was off; ``ended_at`` is None unless it was turned on again
    before ``until``. ``host`` is None for all hosts."""

    __tablename__ = "agent_flows_gating_suspensions"

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    host: Mapped[str | None] = mapped_column(Host)
    reason: Mapped[str] = mapped_column(sa.Text())
    by: Mapped[str] = mapped_column("suspended_by", sa.String(255))
    since: Mapped[datetime.datetime] = mapped_column("suspended_at", index=True)
    until: Mapped[datetime.datetime] = mapped_column("suspended_until", index=True)
    ended_at: Mapped[datetime.datetime | None]
    ended_by: Mapped[str | None] = mapped_column(sa.String(255))


class Attempt(Base):
    """One attempt of one flow for one port; ``id`` is the report's.

    ``ordinal`` orders them by arrival: microseconds since the epoch times 64,
    made unique and rising.
    """

    __tablename__ = "agent_flows_attempts"
    __table_args__ = (
        sa.Index(None, "resource_id", "ordinal"),
        sa.Index(None, "host", "ordinal"),
        OPTIONS,
    )

    ordinal: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(Uuid, unique=True)
    resource_type: Mapped[str] = mapped_column(sa.String(16))
    resource_id: Mapped[str] = mapped_column(Uuid)
    host: Mapped[str] = mapped_column(Host)
    flow: Mapped[str] = mapped_column(sa.String(16))
    attempt: Mapped[int]
    revision: Mapped[int]
    sequence: Mapped[int]
    failed: Mapped[bool]
    started_at: Mapped[datetime.datetime]
    finished_at: Mapped[datetime.datetime]


class Task(Base):
    """How one task of an attempt ended; ``duration`` in seconds."""

    __tablename__ = "agent_flows_tasks"
    __table_args__ = (sa.Index(None, "task_state", "ordinal"), OPTIONS)

    ordinal: Mapped[int] = mapped_column(
        sa.ForeignKey("agent_flows_attempts.ordinal", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(64))
    step: Mapped[str] = mapped_column(sa.String(32))
    task_state: Mapped[str] = mapped_column(sa.String(16))
    started_at: Mapped[datetime.datetime | None]
    duration: Mapped[float | None] = mapped_column(sa.Double())
    error_type: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(sa.Text())
    error_detail: Mapped[str | None] = mapped_column(LongText)
