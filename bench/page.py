"""Pages of the status page over HTTP, on PostgreSQL; and a bare SELECT of the rows they show."""

import argparse
import contextlib
import functools
import http.client
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import sqlalchemy as sa

from agent_flows.report import SyncState, TaskState
from agent_flows.server.core.models import Attempt, Task, table_of
from agent_flows.server.standalone import models
from agent_flows.server.standalone.api.wsgi import WsgiServer
from bench.runner import Bench, Command, Figures, positive
from lab.databases import PostgreSQL
from lab.model import new_id
from lab.server_parts import FakeAgent, Server, running

_HOSTS, _GROUPS = 100, 20
_IN_ONE_REQUEST = 2500
# Of each page in a round: a median of one would be that of the machine's other work.
_TIMES = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out-of-sync", type=positive, default=50, metavar="N", help="ports that failed (50)"
    )


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """A server whose ports, on 100 hosts, were all wired once; some failed after that."""
    with PostgreSQL() as database, running(database.new_url(), api={"bind_port": 0}) as server:
        ports = _ports(server, options.ports)
        failed = ports[: options.out_of_sync]
        _report(server, ports, failed)
        # As autovacuum does it within a minute.
        with server.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE")
        serving = WsgiServer(server.rest.app, server.conf)
        serving.start()
        paths = {
            "first_page_ms": "/",
            "port_page_ms": f"/page/ports/{failed[0]}",
            "ports_page_ms": "/page/ports?sync_state=NOT_IN_SYNC",
            "hosts_page_ms": "/page/hosts",
            "host_page_ms": "/page/hosts/host-0",
        }
        try:
            browser = _Browser(serving.port)
            yield Bench(
                measure=lambda: {name: browser.ms(path) for name, path in paths.items()},
                floor=lambda: _bare(server, failed[0]),
            )
        finally:
            serving.stop()


COMMAND = Command(
    "page", "the status page with many ports, on PostgreSQL", prepare, arguments, ports=10_000
)


def _ports(server: Server, number: int) -> Sequence[str]:
    network = new_id()
    server.put("networks", network, network_type="local")
    groups = [new_id() for _ in range(_GROUPS)]
    for group in groups:
        server.put("security-groups", group, name="web")
    ids = [new_id() for _ in range(number)]
    bodies = [
        {
            "id": port,
            "name": f"vm-{place}",
            "network_id": network,
            "mac_address": f"fa:16:3e:{place.to_bytes(3).hex(':')}",
            "security_groups": [groups[place % _GROUPS]],
            "binding:host_id": f"host-{place % _HOSTS}",
        }
        for place, port in enumerate(ids)
    ]
    for start in range(0, number, _IN_ONE_REQUEST):
        answer = server.rest.simulate_post(
            "/ports", json={"ports": bodies[start : start + _IN_ONE_REQUEST]}
        )
        if answer.status_code != http.HTTPStatus.CREATED:
            raise ValueError(f"the server refused the ports: {answer.text}")
    return ids


def _report(server: Server, ports: Sequence[str], failed: Sequence[str]) -> None:
    agents = [FakeAgent(server, f"host-{number}") for number in range(_HOSTS)]
    for number, agent in enumerate(agents):
        agent.wire(*ports[number::_HOSTS])
    for place, port in enumerate(failed):
        agent = agents[place % _HOSTS]
        agent.send(agent.report(port, fails="bind-vlan"))


class _Browser:
    """Loads pages over one connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ms(self, path: str) -> float:
        """Milliseconds until the page has arrived whole; raises ValueError if it is none."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port)) as connection:
            return _median(lambda: _load(connection, path))


def _load(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    answer = connection.getresponse()
    if answer.status != http.HTTPStatus.OK or not answer.read().startswith(b"<!DOCTYPE html>"):
        raise ValueError(f"{path} is HTTP {answer.status}")


def _bare(server: Server, port_id: str) -> Figures:
    """The rows that the pages are about, each page's by one statement, as the driver gives them:
    the ports out of sync with the tasks that failed, and a port with all its tasks."""
    port, attempt, task = map(table_of, (models.Port, Attempt, Task))
    whole = (
        sa.select(port, attempt, task)
        .join(attempt, attempt.c.resource_id == port.c.id)
        .join(task, task.c.ordinal == attempt.c.ordinal)
    )
    wanted: Mapping[str, sa.Select[*tuple[object, ...]]] = {
        "first_page_ms": whole.where(
            port.c.sync_state == SyncState.OUT_OF_SYNC.value,
            task.c.task_state == TaskState.FAILED.value,
        ),
        "port_page_ms": whole.where(port.c.id == port_id),
    }
    engine = server.database.engine
    texts = {
        name: str(query.compile(engine, compile_kwargs={"literal_binds": True}))
        for name, query in wanted.items()
    }
    with engine.connect() as connection:

        def read(text: str) -> None:
            connection.exec_driver_sql(text).all()

        return {name: _median(functools.partial(read, text)) for name, text in texts.items()}


def _median(work: Callable[[], object]) -> float:
    """Milliseconds of one of several times."""
    taken = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)
