"""Every agent of a cloud starts at once, after an outage in which all their ports became UNKNOWN.

The agents have no switch; the server, its workers, RabbitMQ and PostgreSQL are real. The ports
are written into the database as an outage leaves them: to make them one by one, to have them
proven, and to wait until they are UNKNOWN would take longer than all that is measured.
"""

import argparse
import contextlib
import datetime
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from agent_flows import conf as options_of_ours
from agent_flows.report import PortStatus, SyncState
from agent_flows.rpc import transport
from agent_flows.server.core.condition import Condition
from agent_flows.server.core.models import Agent, Attempt
from agent_flows.server.standalone.models import FixedIp, Membership, Port, SecurityGroupHost
from bench.runner import Bench, Command, Figures, positive, progress
from bench.site import cpu_seconds
from lab.bus_agent import BusAgent
from lab.databases import PostgreSQL
from lab.model import egress_to_anywhere, ingress, new_id
from lab.process import wait_until
from lab.rabbit import Rabbit
from lab.standalone_server import StandaloneServer

# More in one process would wait for each other: a process runs one thread of Python at a time.
_AGENTS_OF_A_PROCESS = 50
# Hosts whose ports are in one group, as those of a project.
_HOSTS_OF_A_GROUP = 5
_SECONDS = 900
_POLL = 0.25
_PROGRESS_SECONDS = 5.0
_SILENT = datetime.timedelta(hours=1)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agents", type=positive, default=500, metavar="N", help="hosts (500)")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (1)")


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """``options.ports`` is the number of ports of each agent. All were IN_SYNC once."""
    with contextlib.ExitStack() as stack:
        progress("starting RabbitMQ, PostgreSQL and the server")
        rabbit = stack.enter_context(Rabbit())
        databases = stack.enter_context(PostgreSQL())
        server = stack.enter_context(StandaloneServer(rabbit, databases, options.workers))
        outboxes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-storm-")))
        progress(f"writing {options.agents * options.ports} ports of {options.agents} hosts")
        ports = _make_ports(server, options.agents, options.ports)
        storm = _Storm(rabbit, server, ports, outboxes)
        stack.callback(storm.end)
        yield Bench(measure=storm.measure)


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
        self._rabbit, self._server, self._outboxes = rabbit, server, outboxes
        hosts = sorted(ports)
        self._shares = [
            {host: ports[host] for host in hosts[at : at + _AGENTS_OF_A_PROCESS]}
            for at in range(0, len(hosts), _AGENTS_OF_A_PROCESS)
        ]
        self._total = sum(map(len, ports.values()))
        self._agents: list[_Agents] = []
        self._engine = sa.create_engine(server.database_url)

    def measure(self) -> Figures:
        """Start every agent after an outage, and wait until every port is IN_SYNC."""
        self.end_agents()
        self._forget()
        progress(f"starting {len(self._shares)} processes of agents")
        self._agents = [_Agents(self._rabbit.url, share, self._outboxes) for share in self._shares]
        for agents in self._agents:
            agents.receive()
        cpu = self._cpu()
        with self._rabbit.depths(transport.SERVER_TOPIC) as depths:
            began = time.perf_counter()
            for agents in self._agents:
                agents.send("start")
            self._wait(began)
            seconds = time.perf_counter() - began
        cpu = self._cpu() - cpu
        progress("waiting until every report is acknowledged")
        return {
            "seconds": seconds,
            "server_cpu_seconds": cpu,
            "queue_depth": max((each.ready for each in depths), default=0),
            "queue_unacknowledged": max((each.unacknowledged for each in depths), default=0),
            **self._records(),
        }

    def _wait(self, began: float) -> None:
        reported = began
        while (done := self._number(SyncState.IN_SYNC)) < self._total:
            now = time.perf_counter()
            if now - began > _SECONDS:
                raise TimeoutError(f"{done} of {self._total} ports are IN_SYNC")
            if now - reported > _PROGRESS_SECONDS:
                progress(f"{now - began:.0f} s: {done} of {self._total} ports are IN_SYNC")
                reported = now
            time.sleep(_POLL)

    def _forget(self) -> None:
        """As an outage leaves it: every agent is silent, and nothing is known of any port."""
        long_ago = datetime.datetime.now(datetime.UTC) - _SILENT
        silent = {"declared_dead": True, "heartbeat_at": long_ago, "spoke_at": long_ago}
        unknown = {Port.sync_state: SyncState.UNKNOWN.value, Port.sync_since: None}
        with self._engine.begin() as connection:
            connection.execute(sa.update(Agent).values(silent))
            connection.execute(sa.update(Port).values(unknown))

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, self._server.workers()))

    def _records(self) -> Figures:
        def all_sent() -> list[_Record] | None:
            for agents in self._agents:
                agents.send("record")
            records = [agents.receive() for agents in self._agents]
            return records if not any(record.unsent for record in records) else None

        records = wait_until(all_sent, _SECONDS, "all reports are acknowledged", poll=1)
        made = frozenset[str]().union(*(record.made for record in records))
        known = {row.id: (row.host, row.sequence) for row in self._history() if row.id in made}
        acknowledged = frozenset[str]().union(*(record.acknowledged for record in records))
        beats = [beats for record in records for beats in record.beats]
        answered = [seconds for each in beats for _, seconds in each if seconds is not None]
        unanswered = sum(seconds is None for each in beats for _, seconds in each)
        return {
            "reports": len(made),
            "lost": len(made - acknowledged - known.keys()),
            "stored_twice": len(known) - len(set(known.values())),
            "rejected": sum(record.rejected for record in records),
            "messages_again": sum(record.failures for record in records),
            "heartbeats": len(answered),
            "heartbeats_unanswered": unanswered,
            "median_heartbeat_seconds": statistics.median(answered),
            "longest_heartbeat_seconds": max(answered, default=0.0),
            "largest_worker_mib": max(map(_peak_mib, self._server.workers())),
        }

    def _history(self) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(Attempt.id, Attempt.host, Attempt.sequence)).all()

    def _number(self, state: SyncState) -> int:
        query = sa.select(sa.func.count()).select_from(Port).where(Port.sync_state == state.value)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def end_agents(self) -> None:
        for agents in self._agents:
            agents.kill()
        self._agents = []

    def end(self) -> None:
        self.end_agents()
        self._engine.dispose()


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
    # A line for every attempt of hundreds of agents; the figures count them.
    logging.disable(logging.WARNING)
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
    network = new_id()
    server.api.put("networks", network, {"network_type": "local"})
    made: dict[str, list[str]] = {}
    rows: dict[type, list[dict[str, Any]]] = {
        kind: [] for kind in (Agent, Port, FixedIp, Membership, SecurityGroupHost)
    }
    for number in range(agents):
        host = f"host-{number:05}"
        if number % _HOSTS_OF_A_GROUP == 0:
            group = _make_group(server)
        rows[Agent].append(_agent(host))
        rows[SecurityGroupHost].append(
            {"security_group_id": group, "host": host, "revision": 0, "sequence": 0}
            | {"failed": False}
        )
        made[host] = [new_id() for _ in range(ports)]
        for place, port in enumerate(made[host], number * ports):
            rows[Port].append(_port(port, host, network, place))
            address = f"10.{place >> 16 & 255}.{place >> 8 & 255}.{place & 255}"
            rows[FixedIp].append(
                {"network_id": network, "ip_address": address, "port_id": port, "position": 0}
            )
            rows[Membership].append(
                {"port_id": port, "security_group_id": group, "position": 0}
                | {"proven_revision": None}
            )
    engine = sa.create_engine(server.database_url)
    with engine.begin() as connection:
        for kind, values in rows.items():
            connection.execute(sa.insert(kind), values)
        # As autovacuum does sooner or later: it knows how large the tables are.
        connection.execute(sa.text("ANALYZE"))
    engine.dispose()
    return made


def _make_group(server: StandaloneServer) -> str:
    group = new_id()
    server.api.put("security-groups", group, {"name": "storm"})
    rules = [*egress_to_anywhere(), ingress(remote_group_id=group)]
    server.api.put("security-groups", group, {"security_group_rules": rules})
    return group


def _agent(host: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "host": host,
        "sequence": 0,
        "heartbeat_at": now,
        "declared_dead": True,
        "state": Condition().to_text(),
    }


def _port(port: str, host: str, network: str, place: int) -> dict[str, Any]:
    return {
        "id": port,
        "name": "",
        "network_id": network,
        "mac_address": f"fa:16:3e:{place >> 16:02x}:{place >> 8 & 255:02x}:{place & 255:02x}",
        "allowed_address_pairs": [],
        "port_security_enabled": True,
        "device_owner": "",
        "revision_number": 1,
        "host": host,
        "admin_state_up": True,
        "status": PortStatus.ACTIVE.value,
        "sync_state": SyncState.UNKNOWN.value,
        "sequence": 0,
        "updated_at": datetime.datetime.now(datetime.UTC),
    }


def _peak_mib(pid: int) -> float:
    """The largest resident memory that the process had (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
