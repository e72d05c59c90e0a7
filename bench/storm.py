"""Every agent of a cloud starts at once, after an outage in which all their ports became UNKNOWN.

The agents have no switch; the server, its workers, RabbitMQ and PostgreSQL are real.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from agent_flows import conf as options_of_ours
from agent_flows.rpc import transport
from agent_flows.server.core.history import AWAIT_REPORT
from agent_flows.server.core.models import Attempt, Task
from agent_flows.server.standalone.models import Port
from bench.runner import Bench, Command, Figures, positive
from lab.bus_agent import BusAgent
from lab.databases import PostgreSQL
from lab.model import egress_to_anywhere, ingress, new_id
from lab.process import wait_until
from lab.rabbit import Rabbit
from lab.rest import Api
from lab.standalone_server import StandaloneServer

_PROCESSES = 4
_CLIENTS = 4
# Hosts whose ports are in one group, as those of a project.
_HOSTS_OF_A_GROUP = 5
_SECONDS = 900
_POLL = 0.1


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agents", type=positive, default=500, metavar="N", help="hosts (500)")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (1)")


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """``options.ports`` is the number of ports of each agent. All were IN_SYNC once."""
    with contextlib.ExitStack() as stack:
        rabbit = stack.enter_context(Rabbit())
        databases = stack.enter_context(PostgreSQL())
        server = stack.enter_context(StandaloneServer(rabbit, databases, options.workers))
        outboxes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-storm-")))
        storm = _Storm(rabbit, server, _make_ports(server, options.agents, options.ports), outboxes)
        stack.callback(storm.end)
        storm.start()
        yield Bench(measure=storm.restart)


COMMAND = Command("storm", "all agents of a cloud start at once", prepare, arguments, 20, 1)


@dataclass(frozen=True)
class _Record:
    """What the agents of one process did; ``beats`` of each agent as in RecordingClient."""

    made: frozenset[str]
    acknowledged: frozenset[str]
    rejected: int
    failures: int
    unsent: int
    beats: Sequence[Sequence[tuple[float, float | None]]]


class _Storm:
    def __init__(
        self,
        rabbit: Rabbit,
        server: StandaloneServer,
        ports: Mapping[str, Sequence[str]],
        outboxes: Path,
    ) -> None:
        self._server, self._url, self._outboxes = server, rabbit.url, outboxes
        hosts = sorted(ports)
        self._shares = [
            {host: ports[host] for host in hosts[at::_PROCESSES]} for at in range(_PROCESSES)
        ]
        self._total = sum(map(len, ports.values()))
        self._agents: list[_Agents] = []
        self._engine = sa.create_engine(server.database_url)
        # Any to mypy: kombu has no types.
        connect: Any = importlib.import_module("kombu").Connection
        self._bus = connect(rabbit.url.replace("rabbit://", "amqp://"))

    def start(self) -> Figures:
        """Start every agent, and wait until every port is IN_SYNC."""
        self._agents = [
            _Agents(self._url, share, self._outboxes) for share in self._shares if share
        ]
        for agents in self._agents:
            agents.receive()
        channel = self._bus.channel()
        deepest = 0
        began = time.perf_counter()
        for agents in self._agents:
            agents.send("start")
        while self._number("IN_SYNC") < self._total:
            queue = channel.queue_declare(transport.SERVER_TOPIC, passive=True)
            deepest = max(deepest, queue.message_count)
            if time.perf_counter() - began > _SECONDS:
                raise TimeoutError(f"{self._number('IN_SYNC')} of {self._total} ports are IN_SYNC")
            time.sleep(_POLL)
        seconds = time.perf_counter() - began
        channel.close()
        return {"seconds": seconds, "queue_depth": deepest, **self._records()}

    def restart(self) -> Figures:
        """All agents are killed, and start again when all their ports are UNKNOWN."""
        self.end_agents()
        wait_until(
            lambda: self._number("UNKNOWN") == self._total, _SECONDS, "all are UNKNOWN", poll=1
        )
        return self.start()

    def _records(self) -> Figures:
        def all_sent() -> list[_Record] | None:
            for agents in self._agents:
                agents.send("record")
            records = [agents.receive() for agents in self._agents]
            return records if not any(record.unsent for record in records) else None

        records = wait_until(all_sent, _SECONDS, "all reports are acknowledged", poll=1)
        made = frozenset[str]().union(*(record.made for record in records))
        known = self._history()
        acknowledged = frozenset[str]().union(*(record.acknowledged for record in records))
        beats = [beats for record in records for beats in record.beats]
        answered = [seconds for each in beats for _, seconds in each if seconds is not None]
        unanswered = sum(seconds is None for each in beats for _, seconds in each)
        return {
            "reports": len(made),
            "lost": len(made - acknowledged - set(known)),
            "stored_twice": len(known) - len(set(known)),
            "rejected": sum(record.rejected for record in records),
            "messages_again": sum(record.failures for record in records),
            "heartbeats": len(answered),
            "heartbeats_unanswered": unanswered,
            "longest_heartbeat_seconds": max(answered, default=0.0),
            "largest_worker_mib": max(map(_peak_mib, self._server.workers())),
        }

    def _history(self) -> list[str]:
        noted = sa.select(Task.ordinal).where(Task.name == AWAIT_REPORT)
        with self._engine.connect() as connection:
            found = connection.scalars(sa.select(Attempt.id).where(Attempt.ordinal.not_in(noted)))
            return list(found)

    def _number(self, state: str) -> int:
        query = sa.select(sa.func.count()).select_from(Port).where(Port.sync_state == state)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def end_agents(self) -> None:
        for agents in self._agents:
            agents.kill()
        self._agents = []

    def end(self) -> None:
        self.end_agents()
        self._engine.dispose()
        self._bus.release()


class _Agents:
    """A process with the agents of many hosts, each with threads of its own."""

    def __init__(self, url: str, ports: Mapping[str, Sequence[str]], outboxes: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(theirs, url, ports, outboxes), daemon=True
        )
        self._process.start()
        theirs.close()

    def send(self, what: str) -> None:
        self._pipe.send(what)

    def receive(self) -> Any:
        if not self._pipe.poll(_SECONDS):
            raise TimeoutError("a process with agents does not answer")
        return self._pipe.recv()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _run(
    pipe: "Connection[Any, Any]", url: str, ports: Mapping[str, Sequence[str]], outboxes: Path
) -> None:
    conf = options_of_ours.register(cfg.CONF)
    # Each agent is to have what a process of its own would have.
    config = outboxes / "agents.conf"
    config.write_text(f"[oslo_messaging_rabbit]\nrpc_conn_pool_size = {4 * len(ports)}\n")
    conf(["--config-file", str(config)], default_config_files=[])
    bus = transport.get_transport(conf, url)
    agents = [BusAgent(bus, host, mine, outboxes) for host, mine in ports.items()]
    pipe.send("ready")
    with contextlib.suppress(EOFError):  # The bench has ended.
        while True:
            if pipe.recv() == "start":
                for agent in agents:
                    agent.start()
            else:
                pipe.send(_record(agents))


def _record(agents: Sequence[BusAgent]) -> _Record:
    return _Record(
        frozenset[str]().union(*(agent.made for agent in agents)),
        frozenset[str]().union(*(agent.client.acknowledged for agent in agents)),
        sum(len(agent.client.rejected) for agent in agents),
        sum(agent.client.failures for agent in agents),
        sum(len(agent.outbox) for agent in agents),
        [list(agent.client.beats) for agent in agents],
    )


def _make_ports(server: StandaloneServer, agents: int, ports: int) -> dict[str, list[str]]:
    """By host; the ports of a few hosts are in one group that admits its own members."""
    made: dict[str, list[str]] = {}
    network = new_id()
    server.api.put("networks", network, {"network_type": "local"})
    bodies: list[tuple[str, dict[str, Any]]] = []
    for host in range(agents):
        if host % _HOSTS_OF_A_GROUP == 0:
            group = new_id()
            server.api.put("security-groups", group, {"name": f"group-{host}"})
            rules = [*egress_to_anywhere(), ingress(remote_group_id=group)]
            server.api.put("security-groups", group, {"security_group_rules": rules})
        for _ in range(ports):
            port, number = new_id(), len(bodies)
            made.setdefault(f"host-{host:05}", []).append(port)
            digits = f"{number:06x}"
            body = {
                "network_id": network,
                "mac_address": f"fa:16:3e:{digits[:2]}:{digits[2:4]}:{digits[4:]}",
                "fixed_ips": [
                    {"ip_address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}
                ],
                "security_groups": [group],
                "binding:host_id": f"host-{host:05}",
            }
            bodies.append((port, body))

    def put(mine: Sequence[tuple[str, dict[str, Any]]]) -> None:
        with contextlib.closing(Api(port=server.port)) as api:
            for port, body in mine:
                api.put("ports", port, body)

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(put, (bodies[at::_CLIENTS] for at in range(_CLIENTS))))
    return made


def _peak_mib(pid: int) -> float:
    """The largest resident memory that the process had (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
