"""Reports into the store, without a bus; and the same rows with the database's driver alone."""

import argparse
import contextlib
import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from agent_flows.report import FlowName, FlowReport
from agent_flows.server.core import records
from agent_flows.server.core.models import Attempt, Task, table_of
from bench.runner import Bench, Command, positive
from lab.databases import DatabaseServer, MariaDB, PostgreSQL, SQLite
from lab.model import flow_report, group_revisions, ingress, new_id
from lab.server_parts import FakeAgent, Server, running

_TASKS = 7
_READY_SECONDS = 300


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database", choices=[*_SERVERS], default="sqlite")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (1)")
    parser.add_argument(
        "--reports", type=positive, default=500, metavar="N", help="reports in a message (500)"
    )
    parser.add_argument(
        "--messages", type=positive, default=10, metavar="N",
        help="messages that a worker takes in a round (10)",
    )  # fmt: skip


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """Every worker is a process that takes the reports of a host of its own."""
    with contextlib.ExitStack() as stack:
        databases = stack.enter_context(_SERVERS[options.database]())
        urls = _Urls(databases.new_url(), databases.new_url())
        for url in (urls.store, urls.floor):
            with running(url):
                pass  # It has the schema now.
        workers = [
            stack.enter_context(_Worker(f"host-{number}", urls, options.reports, options.messages))
            for number in range(options.workers)
        ]
        for worker in workers:
            worker.wait()
        total = options.workers * options.messages * options.reports

        def rate(what: str) -> float:
            with ThreadPoolExecutor(len(workers)) as pool:
                spans = list(pool.map(lambda worker: worker.do(what), workers))
            seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
            return float(total / seconds)

        yield Bench(
            measure=lambda: {"reports_per_second": rate("store")},
            floor=lambda: {"per_second": rate("floor")},
        )


COMMAND = Command("ingest", "reports into the store, without a bus", prepare, arguments)


@contextlib.contextmanager
def _sqlite() -> Iterator[DatabaseServer]:
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as directory:
        yield SQLite(Path(directory))


_SERVERS: Mapping[str, Callable[[], contextlib.AbstractContextManager[DatabaseServer]]] = {
    "sqlite": _sqlite,
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
}


@dataclasses.dataclass(frozen=True)
class _Urls:
    """Two databases of one server with the same schema."""

    store: str
    floor: str


class _Worker:
    """A process of its own; it does ``store`` or ``floor`` when asked."""

    def __init__(self, host: str, urls: _Urls, reports: int, messages: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, host, urls, reports, messages)
        self._process = context.Process(target=_work, args=arguments, daemon=True)

    def __enter__(self) -> "_Worker":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def wait(self) -> None:
        """Until its ports exist; raises EOFError if it has ended, or TimeoutError."""
        if not self._pipe.poll(_READY_SECONDS):
            raise TimeoutError("a worker of the bench is not ready")
        self._pipe.recv()

    def do(self, what: str) -> tuple[float, float]:
        """When it began and ended; all processes have the same clock (CLOCK_MONOTONIC)."""
        self._pipe.send(what)
        if not self._pipe.poll(_READY_SECONDS):
            raise TimeoutError("a worker of the bench does not answer")
        begin, end = self._pipe.recv()
        return begin, end


def _work(
    pipe: "Connection[Any, Any]", host: str, urls: _Urls, reports: int, messages: int
) -> None:
    with running(urls.store) as server, contextlib.closing(_Floor(urls.floor)) as floor:
        store = _Store(server, host, reports)
        pipe.send("ready")
        with contextlib.suppress(EOFError):  # The bench has ended.
            while True:
                if pipe.recv() == "store":
                    pipe.send(store.take(messages))
                else:
                    pipe.send(floor.insert(store.kept()))


class _Store:
    """The reports of one host, and the store that takes them."""

    def __init__(self, server: Server, host: str, ports: int) -> None:
        self._server = server
        self._agent = FakeAgent(server, host)
        network, group = new_id(), new_id()
        server.put("networks", network, network_type="local")
        server.put("security-groups", group, name=host, security_group_rules=[ingress()])
        self._ports = [new_id() for _ in range(ports)]
        for number, port in enumerate(self._ports):
            server.put(
                "ports", port,
                network_id=network,
                mac_address=f"fa:16:3e:00:{number >> 8 & 255:02x}:{number & 255:02x}",
                security_groups=[group],
                **{"binding:host_id": host},
            )  # fmt: skip
        desired = self._agent.specs(*self._ports)
        self._common: dict[str, dict[str, Any]] = {
            port: {
                "host": host,
                "resource_id": port,
                "revision": desired.ports[port].revision,
                "security_group_revisions": group_revisions(desired, desired.ports[port]),
            }
            for port in self._ports
        }
        self._kept: list[Sequence[FlowReport]] = []

    def take(self, messages: int) -> tuple[float, float]:
        """Raises ValueError if the store does not accept every report."""
        batches = [[self._report(port) for port in self._ports] for _ in range(messages)]
        begin = time.perf_counter()
        answers = [self._agent.send(*batch) for batch in batches]
        end = time.perf_counter()
        for answer in answers:
            if len(answer.accepted) != len(self._ports):
                raise ValueError(f"the store did not accept every report: {answer.rejected}")
        self._kept = [*batches]
        return begin, end

    def _report(self, port: str) -> FlowReport:
        self._agent.sequence += 1
        made = flow_report(**self._common[port], sequence=self._agent.sequence, flow=FlowName.WIRE)
        return dataclasses.replace(made, tasks=made.tasks[:_TASKS])

    def kept(self) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        """The rows that the last messages left in the history, by message: attempts, tasks."""
        with self._server.database.reader() as session:
            return [_rows(session.connection(), batch) for batch in self._kept]


def _rows(
    connection: sa.Connection, batch: Sequence[FlowReport]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    attempts, tasks = Attempt.__table__, Task.__table__
    wanted = sa.select(attempts).where(attempts.c.id.in_([report.id for report in batch]))
    found = [dict(row) for row in connection.execute(wanted).mappings()]
    ordinals = [row["ordinal"] for row in found]
    theirs = sa.select(tasks).where(tasks.c.ordinal.in_(ordinals))
    return found, [dict(row) for row in connection.execute(theirs).mappings()]


class _Floor:
    """The database with nothing but bulk inserts, a transaction for each message."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        with self._engine.connect():
            pass  # To connect is no part of the work.

    def insert(
        self, messages: Sequence[tuple[list[dict[str, Any]], list[dict[str, Any]]]]
    ) -> tuple[float, float]:
        begin = time.perf_counter()
        for attempts, tasks in messages:
            with self._engine.begin() as connection:
                records.insert(connection, table_of(Attempt), attempts)
                records.insert(connection, table_of(Task), tasks)
        return begin, time.perf_counter()

    def close(self) -> None:
        self._engine.dispose()
