"""The database: an engine of oslo.db, and transactions that read or write.

SQLite is the embedded default: one file in WAL mode, so that readers never
wait, and one writer at a time (``BEGIN IMMEDIATE`` between processes, a lock
inside one, which is fair where SQLite's own waiting is a lottery).
"""

import contextlib
import math
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import sqlalchemy
from oslo_config import cfg
from oslo_db import api, exception, options
from oslo_db.sqlalchemy import engines
from oslo_log import log
from sqlalchemy import event, orm
from sqlalchemy.engine import URL, make_url

LOG = log.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL = "sqlite:////var/lib/agent-flows/server.sqlite"
_BUSY_MS = 20_000
_WRITER = "agent_flows_writer"
# Seconds we wait longer than the database itself is to.
_GRACE = 5.0
_NO_ANSWER = "the database did not answer within"
# A call that hung is not repeated at once: by us, PyMySQL, PostgreSQL and MariaDB.
_TOO_LONG = (_NO_ANSWER, "timed out", "due to statement timeout", "Lock wait timeout")
_MYSQL = ("mysql", "mariadb")

# How a transaction can fail: oslo.db does not translate every error of SQLAlchemy,
# as for a PostgreSQL that is away.
ERRORS = (exception.DBError, sqlalchemy.exc.SQLAlchemyError)
UNREACHABLE = (exception.DBConnectionError, exception.DBDeadlock, sqlalchemy.exc.OperationalError)

# Another worker was faster: the transaction runs again and sees what that one wrote.
_RACES = (exception.DBDuplicateEntry, exception.DBReferenceError)


def register(conf: cfg.ConfigOpts) -> None:
    """Register oslo.db's options, section ``[database]``, with our default."""
    options.set_defaults(conf, connection=DEFAULT_URL)


def _passes(exc: Exception) -> bool:
    """Whether it may be gone at the next attempt."""
    # The driver's own message: what wraps it repeats the statement and its values.
    cause = getattr(exc, "inner_exception", None) or exc
    message = str(getattr(cause, "orig", None) or cause)
    if any(words in message for words in _TOO_LONG):
        return False
    locked = isinstance(exc, exception.DBError) and "is locked" in str(exc.inner_exception)
    return locked or isinstance(exc, (*_RACES, *UNREACHABLE))


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Run a whole transaction again after a deadlock, a lost race or a lost connection.

    For functions that do nothing but one transaction, so that running them
    twice is running them once.
    """
    retry = api.wrap_db_retry(
        max_retries=12,
        retry_interval=0.02,
        max_retry_interval=1.0,
        inc_retry_interval=True,
        jitter=True,
        exception_checker=_passes,
    )
    wrapped: Callable[P, T] = retry(function)
    return wrapped


class Transactions(Protocol):
    """The two kinds of transaction, on any database."""

    def reader(self) -> contextlib.AbstractContextManager[orm.Session]: ...

    def writer(self) -> contextlib.AbstractContextManager[orm.Session]: ...


class Database:
    """One engine and the two kinds of transaction.

    ``timeout`` is how many seconds a PostgreSQL or MariaDB may take for a
    statement, None for any time. Raises one of :data:`ERRORS` if the database
    cannot be reached within the configured retries.
    """

    def __init__(self, conf: cfg.ConfigOpts, timeout: float | None = None) -> None:
        settings = conf.database
        url = make_url(settings.connection)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._in_memory = self.is_sqlite and url.database in (None, "", ":memory:")
        if self.is_sqlite and not self._in_memory:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        self.engine: sqlalchemy.Engine = engines.create_engine(
            url,
            sqlite_fk=True,
            mysql_sql_mode=settings.mysql_sql_mode,
            connection_recycle_time=settings.connection_recycle_time,
            connection_debug=settings.connection_debug,
            max_pool_size=settings.max_pool_size,
            max_overflow=settings.max_overflow,
            pool_timeout=settings.pool_timeout,
            sqlite_synchronous=settings.sqlite_synchronous,
            max_retries=0,
            # It is for eventlet's threads: ours would give way after every transaction.
            thread_checkin=False,
            connection_parameters=_parameters(url, timeout),
        )
        if timeout is not None:
            _bound(self.engine, timeout)
        if self.is_sqlite:
            self._prepare_sqlite()
        elif self.engine.dialect.name in _MYSQL:
            # Under MariaDB's default (REPEATABLE READ) a transaction that waited for
            # a lock would go on reading the state before it waited.
            self.engine = self.engine.execution_options(isolation_level="READ COMMITTED")
            _group_once(self.engine)
        self._wait_for_it(settings.max_retries, settings.retry_interval)
        self._sessions = orm.sessionmaker(self.engine, expire_on_commit=False)
        self._lock = threading.RLock()
        # oslo.db opens SQLite again for every transaction; without a connection
        # that stays, each close would check the whole WAL in.
        self._anchor = self.engine.connect() if self.is_sqlite and not self._in_memory else None

    def _wait_for_it(self, retries: int, interval: float) -> None:
        """As oslo.db would, which knows the messages of older clients of PostgreSQL only."""
        while True:
            try:
                self.engine.connect().close()
                return
            except UNREACHABLE as exc:
                if retries == 0:
                    raise
                LOG.warning("The database cannot be reached: %s", " ".join(str(exc).split()))
            retries -= 1
            time.sleep(interval)

    def _prepare_sqlite(self) -> None:
        @event.listens_for(self.engine, "connect")
        def connect(connection: Any, record: object) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")

        @event.listens_for(self.engine, "begin")
        def begin(connection: sqlalchemy.Connection) -> None:
            # A transaction that starts by reading and then writes cannot wait
            # for another writer (SQLITE_BUSY_SNAPSHOT); one that begins as a writer
            # can. oslo.db's own listener, which runs first, has begun one that reads.
            if connection.get_execution_options().get(_WRITER):
                connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql("BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def reader(self) -> Iterator[orm.Session]:
        """A transaction that only reads."""
        with self._alone(self._in_memory), self._sessions() as session:
            yield session

    @contextlib.contextmanager
    def writer(self) -> Iterator[orm.Session]:
        """A transaction that commits at the end of the block, or rolls back if it raises."""
        with self._alone(self.is_sqlite), self._sessions() as session, session.begin():
            if self.is_sqlite:
                session.connection(execution_options={_WRITER: True})
            yield session

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlalchemy.Connection]:
        """A bare connection in a writing transaction, for migrations."""
        with self._alone(self.is_sqlite), self.engine.connect() as connection:
            writing = connection.execution_options(**{_WRITER: True})
            with writing.begin():
                yield writing

    def _alone(self, wanted: bool) -> contextlib.AbstractContextManager[Any]:
        return self._lock if wanted else contextlib.nullcontext()

    def close(self) -> None:
        if self._anchor is not None:
            self._anchor.close()
        self.engine.dispose()


def _parameters(url: URL, timeout: float | None) -> str:
    """Parameters for MariaDB's driver that the operator's URL does not set."""
    if url.get_backend_name() not in _MYSQL:
        return ""
    # Its ``utf8`` holds three bytes of four; the output of a tool may need all.
    wanted = {"charset": "utf8mb4"}
    if timeout is not None:
        seconds = str(math.ceil(timeout))
        late = str(math.ceil(timeout + _GRACE))
        wanted |= {"connect_timeout": seconds, "read_timeout": late, "write_timeout": late}
    return "&".join(f"{name}={value}" for name, value in wanted.items() if name not in url.query)


def _bound(engine: sqlalchemy.Engine, timeout: float) -> None:
    """A statement ends after ``timeout`` seconds, by the database; or by us if that hangs."""
    if engine.dialect.name == "postgresql":
        limit = f"SET statement_timeout = {math.ceil(timeout * 1000)}"
        if engine.dialect.driver == "psycopg2":
            _bound_psycopg2(timeout + _GRACE)
    elif engine.dialect.name in _MYSQL:
        limit = f"SET SESSION innodb_lock_wait_timeout = {math.ceil(timeout)}"
    else:
        return

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(limit)
        connection.commit()


def _group_once(engine: sqlalchemy.Engine) -> None:
    """MariaDB would compute a grouped subquery again for every row that joins it, over all of a
    group's history: with a group that failed on 100 hosts, 23 s for a list of 1,000 ports."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        with connection.cursor() as cursor:
            # MySQL takes what follows for a comment: it has no such switch.
            cursor.execute("SET @_ = 0 /*M! , SESSION optimizer_switch='split_materialized=off' */")
        connection.commit()


def _bound_psycopg2(seconds: float) -> None:
    """libpq waits for ever for a server that is stopped; psycopg2 lets us do the waiting."""
    import psycopg2  # only where it is the driver
    from psycopg2 import extensions

    def wait(connection: Any) -> None:
        until = time.monotonic() + seconds
        while (state := connection.poll()) != extensions.POLL_OK:
            poll = select.poll()
            poll.register(
                connection.fileno(),
                select.POLLIN if state == extensions.POLL_READ else select.POLLOUT,
            )
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise psycopg2.OperationalError(f"{_NO_ANSWER} {seconds:g} s")

    extensions.set_wait_callback(wait)
