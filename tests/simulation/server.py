"""A process of the standalone server, as far as agents, the database and time concern it."""

import collections
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import FlowReport
from agent_flows.rpc.answers import Receipt
from agent_flows.rpc.dispatch import dispatcher_of
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from agent_flows.server.core import database
from agent_flows.server.core import models as core
from agent_flows.server.core.casts import Caster, Casts
from agent_flows.server.core.gate import Settings
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.metrics import Metrics
from agent_flows.server.core.store import Store
from agent_flows.server.core.sweeper import Limits, Sweeper
from agent_flows.server.standalone import models, schema
from agent_flows.server.standalone.directory import OwnDirectory
from agent_flows.supervision import Troubles
from lab.server_parts import configuration
from tests.simulation.bus import Incoming, Message, Outside
from tests.simulation.steps import Crashed, Every, Process

_AGENT = core.table_of(core.Agent).c
_PORT = core.table_of(models.Port).c
_AT_HOST = core.table_of(models.SecurityGroupHost).c
_PORTS = sa.select(_PORT.id, _PORT.host, _PORT.sequence)
_GROUPS = sa.select(_AT_HOST.security_group_id, _AT_HOST.host, _AT_HOST.sequence)
_SPEAKERS = sa.select(_AGENT.host, _AGENT.boot_id)
RULES = Rules(down_time=35.0)
REPORT_TIMEOUT = 60.0
_LIMITS = Limits(
    interval=30.0,
    report_timeout=REPORT_TIMEOUT,
    history_attempts=1000,
    history_failures=1000,
    history_after_delete=100_000.0,
)


@functools.cache
def the_database() -> database.Database:
    """SQLite in memory; made once, for that takes longer than a history."""
    made = database.Database(configuration("sqlite://"))
    schema.upgrade(made)
    return made


@functools.cache
def _metrics() -> Metrics:
    return Metrics()


class Content:
    """What the database has now: a copy of SQLite's memory. To delete the rows of a history, and to
    write those of its beginning again, takes ten times as long."""

    def __init__(self) -> None:
        self._copy = sqlite3.connect(":memory:")
        _raw().backup(self._copy)

    def restore(self) -> None:
        self._copy.backup(_raw())


@functools.cache
def empty() -> Content:
    return Content()


def rows(query: sa.Select[Any]) -> list[Any]:
    """What the query finds, with the values as SQLite has them. The checks ask after every step,
    and SQLAlchemy takes five times as long."""
    text, make = _prepared(query)
    return [make(row) for row in _raw().execute(text)]


@functools.cache
def _prepared(query: sa.Select[Any]) -> tuple[str, Callable[[Sequence[Any]], Any]]:
    text = query.compile(the_database().engine, compile_kwargs={"literal_binds": True})
    row = collections.namedtuple("row", query.selected_columns.keys())
    return str(text), row._make


@functools.cache
def _raw() -> sqlite3.Connection:
    """There is one connection: the database is in its memory."""
    with the_database().engine.connect() as connection:
        raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


class Later(Executor):
    """Runs what was submitted when the world calls it."""

    def __init__(self) -> None:
        self._works: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        self._works.append((done, functools.partial(fn, *args, **kwargs)))
        return done

    def run(self) -> bool:
        """False if there is nothing to run."""
        works, self._works = self._works, []
        for done, work in works:
            done.set_result(work())
        return bool(works)


class Guarded:
    """The database as one process uses it, which may end before or after each commit.

    ``committed`` is called after each commit, whether or not the process lives on.
    """

    def __init__(self, process: Process, committed: Callable[[], None]) -> None:
        self._database = the_database()
        self._process, self._committed = process, committed

    @contextlib.contextmanager
    def reader(self) -> Iterator[Session]:
        with self._database.reader() as session:
            yield session

    @contextlib.contextmanager
    def writer(self) -> Iterator[Session]:
        with self._database.writer() as session:
            yield session
            self._process.point("before the commit", free=False)
        self._committed()
        self._process.point("after the commit", free=False)


class Server(Process):
    """``taken`` gets what was committed of each message of reports: the host, its reports, those
    that failed and are news, and who sent them."""

    def __init__(
        self,
        name: str,
        outside: Outside,
        taken: Callable[[Sequence[FlowReport], Sequence[FlowReport], Identity | None], None],
    ) -> None:
        super().__init__(name, outside.say)
        self._bus, self._clock, self._taken = outside.bus, outside.clock, taken
        self.commits = 0
        self.start()

    def start(self) -> None:
        self.alive = True
        self.forget_plans()
        self.database = Guarded(self, self._note_commit)
        self.pool = Later()
        self.caster = Caster(AgentClient(self._bus.of(self)), _metrics(), self.pool)
        directory = OwnDirectory()
        store = Store(self.database, directory, self.caster, _metrics(), Settings(), rules=RULES)
        self.sweeper = Sweeper(
            self.database,
            directory,
            self.caster,
            _metrics(),
            _LIMITS,
            rules=RULES,
            troubles=Troubles(),
        )
        self._sweeps = Every(_LIMITS.interval, self._clock)
        endpoint = ServerEndpoint(_Watched(self, store), clock=self._clock.microseconds)
        self._dispatcher = dispatcher_of(endpoint)

    def _note_commit(self) -> None:
        self.commits += 1

    def answer(self, message: Message) -> Any:
        """Raises ExpectedException as the dispatcher does."""
        return self._dispatcher.dispatch(Incoming(message))

    def sweep(self) -> bool:
        if self._sweeps.is_due():
            self.sweeper.sweep()
        return False

    def write(self, change: Callable[[Session], Casts]) -> None:
        """What the API does: one transaction, and then its casts."""
        with self.database.writer() as session:
            casts = change(session)
        self.caster.cast(casts)

    def note_taken(
        self, reports: Sequence[FlowReport], failures: Sequence[FlowReport], agent: Identity | None
    ) -> None:
        self._taken(reports, failures, agent)


class _Watched:
    """The store; what was committed is noted, even if the process ends after that."""

    def __init__(self, server: Server, store: Store) -> None:
        self._server, self._store = server, store

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        before = self._server.commits
        failures = _new_failures(reports)
        try:
            answer = self._store.take_reports(host, reports, agent)
        except Crashed:
            if self._server.commits > before and self._reports_for(host, agent):
                self._server.note_taken(reports, failures, agent)
            raise
        self._server.note_taken(reports, failures, agent)
        return answer

    @staticmethod
    def _reports_for(host: str, agent: Identity | None) -> bool:
        """Whether the process had its message taken, and was not refused."""
        speaker = {row.host: row.boot_id for row in rows(_SPEAKERS)}.get(host)
        return agent is not None and speaker == agent.boot_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _new_failures(reports: Sequence[FlowReport]) -> list[FlowReport]:
    """Those that failed and are newer than what the server has of the port or group there."""
    held = {(id_, host): sequence for id_, host, sequence in [*rows(_PORTS), *rows(_GROUPS)]}
    return [
        report
        for report in reports
        if report.failed is not None
        and report.sequence > held.get((report.resource_id, report.host), report.sequence)
    ]
