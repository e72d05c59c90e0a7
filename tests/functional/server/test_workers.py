"""agent-flows-server in several processes, on a real RabbitMQ and a real PostgreSQL."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import oslo_messaging
import pytest
import sqlalchemy as sa
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.rpc import transport
from agent_flows.server.core.history import AWAIT_REPORT
from agent_flows.server.core.models import Attempt, Task
from lab.bus_agent import BusAgent
from lab.databases import DatabaseServer
from lab.model import new_id
from lab.process import held, wait_until
from lab.product import BIN
from lab.rabbit import Rabbit
from lab.standalone_server import StandaloneServer

SECONDS = 60
HOSTS = ("host-a", "host-b", "host-c")
PORTS = 10


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    with Rabbit() as running:
        yield running


@pytest.fixture
def server(rabbit: Rabbit, postgresql: DatabaseServer) -> Iterator[StandaloneServer]:
    with StandaloneServer(rabbit, postgresql, workers=2) as running:
        wait_until(lambda: rabbit.consumers("agent_flows") == 2, SECONDS, "both workers listen")
        yield running


@pytest.fixture
def bus(rabbit: Rabbit) -> Iterator[oslo_messaging.Transport]:
    # The global one: oslo.messaging reads its tracing options nowhere else.
    made = transport.get_transport(options.register(cfg.CONF), rabbit.url)
    yield made
    made.cleanup()


def make_ports(server: StandaloneServer) -> Mapping[str, list[str]]:
    """Ports of one group, by host."""
    network, group = new_id(), new_id()
    server.api.put("networks", network, {"network_type": "local"})
    server.api.put("security-groups", group, {})
    ports: dict[str, list[str]] = {}
    for at, host in enumerate(HOSTS):
        for number in range(PORTS):
            port = new_id()
            body = {
                "network_id": network,
                "mac_address": f"fa:16:3e:00:{at:02x}:{number:02x}",
                "security_groups": [group],
                "binding:host_id": host,
            }
            server.api.put("ports", port, body)
            ports.setdefault(host, []).append(port)
    return ports


@contextlib.contextmanager
def agents(
    bus: oslo_messaging.Transport, ports: Mapping[str, list[str]], directory: Path
) -> Iterator[list[BusAgent]]:
    running = [
        BusAgent(bus, host, mine, directory, interval=1, timeout=5) for host, mine in ports.items()
    ]
    for agent in running:
        agent.start()
    try:
        yield running
    finally:
        for agent in running:
            agent.stop()


def states(server: StandaloneServer) -> set[tuple[str, str]]:
    found = server.api.find("ports", limit=1000)
    return {(port["status"], port["sync_state"]) for port in found}


def attempts(server: StandaloneServer) -> list[str]:
    """The ids of all reports in the history, without what the sweeper notes of ports that no agent
    had reported yet."""
    noted = sa.select(Task.ordinal).where(Task.name == AWAIT_REPORT)
    engine = sa.create_engine(server.database_url)
    with engine.connect() as connection:
        found = list(connection.scalars(sa.select(Attempt.id).where(Attempt.ordinal.not_in(noted))))
    engine.dispose()
    return found


def counted(server: StandaloneServer) -> float:
    """How many reports the server has counted as new, in all its workers."""
    lines = server.api.request("GET", "/metrics").splitlines()
    of_reports = [line for line in lines if line.startswith("agent_flows_reports_total{")]
    return sum(float(line.split()[-1]) for line in of_reports if "stale" not in line)


def is_over(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_killed_worker_is_replaced_and_no_report_is_lost_or_counted_twice(
    server: StandaloneServer, bus: oslo_messaging.Transport, tmp_path: Path
) -> None:
    ports = make_ports(server)
    before = server.workers()
    assert len(before) == 2
    with agents(bus, ports, tmp_path) as running:
        # Reports are made all the time, while one worker after the other is killed.
        for killed in before:
            for _ in range(10):
                for agent in running:
                    agent.resync()
                time.sleep(0.02)
            os.kill(killed, signal.SIGKILL)
            wait_until(is_over([killed]), SECONDS, "the worker is gone")
            wait_until(lambda: len(server.workers()) == 2, SECONDS, "another took its place")
        wait_until(lambda: states(server) == {("ACTIVE", "IN_SYNC")}, SECONDS, "all are in sync")
        wait_until(lambda: not any(len(a.outbox) for a in running), SECONDS, "all is delivered")
    made = {report for agent in running for report in agent.made}
    stored = attempts(server)
    assert len(stored) == len(set(stored))
    assert not any(agent.client.rejected for agent in running)
    # What is older than a report that was stored first is acknowledged and not kept.
    acknowledged = {report for agent in running for report in agent.client.acknowledged}
    assert made <= acknowledged | set(stored)
    assert set(stored) <= made
    assert not set(before) & set(server.workers())


def test_the_metrics_are_the_sum_of_all_workers(
    server: StandaloneServer, bus: oslo_messaging.Transport, tmp_path: Path
) -> None:
    ports = make_ports(server)
    with agents(bus, ports, tmp_path) as running:
        wait_until(lambda: states(server) == {("ACTIVE", "IN_SYNC")}, SECONDS, "all are in sync")
        wait_until(lambda: not any(len(a.outbox) for a in running), SECONDS, "all is delivered")
    # Whichever worker answers.
    answers = {counted(server) for _ in range(8) if server.api.close() is None}
    assert answers == {float(len(attempts(server)))}


def test_both_workers_answer_the_api(server: StandaloneServer) -> None:
    wait_until(lambda: _every_worker_answered(server), SECONDS, "each worker answers requests")


def _every_worker_answered(server: StandaloneServer) -> bool:
    """Only one of two works: each request is answered, by the other."""
    for stopped in server.workers():
        with held(stopped):
            server.api.close()
            server.api.find("ports")
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_first_process_ends_all(
    server: StandaloneServer, number: signal.Signals
) -> None:
    workers = server.workers()
    assert server.interrupt(number) == 0
    wait_until(is_over(workers), SECONDS, "the workers have ended")


def test_workers_end_with_a_first_process_that_was_killed(server: StandaloneServer) -> None:
    workers = server.workers()
    server.interrupt(signal.SIGKILL)
    wait_until(is_over(workers), SECONDS, "the workers have ended")


def test_sighup_starts_every_worker_again_with_the_configuration_of_now(
    server: StandaloneServer,
) -> None:
    for _ in range(3):
        server.api.put("networks", new_id(), {"network_type": "local"})
    assert len(server.api.find("networks", limit=10)) == 3
    before = server.workers()
    text = server.config_file.read_text()
    server.config_file.write_text(f"{text}\n[agent_flows_api]\nmax_limit = 2\n")
    os.kill(server.daemon.pid, signal.SIGHUP)
    wait_until(
        lambda: len(server.workers()) == 2 and not set(before) & set(server.workers()),
        SECONDS,
        "both are new",
    )
    server.api.close()
    assert len(server.api.find("networks", limit=10)) == 2


def test_sqlite_is_refused_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "agent_flows.conf"
    config.write_text(
        f"[database]\nconnection = sqlite:///{tmp_path}/server.sqlite\n"
        "[agent_flows_server]\nworkers = 2\n"
    )
    ran = subprocess.run(
        [BIN / "agent-flows-server", "--config-file", config],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "workers = 2 needs PostgreSQL or MariaDB" in ran.stderr
