"""A member joins a group of many ports on many hosts: what the message bus and the server pay."""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from oslo_config import cfg
from sqlalchemy.engine import make_url

from agent_flows.rpc import transport
from agent_flows.rpc.listener import briefly
from bench import ovn
from bench.runner import Bench, Command, Contender, Figures, positive
from bench.site import Idle, cpu_seconds, network_and_group, wait_none, wait_realised
from lab.bus_agent import BusAgent
from lab.cables import Cable, cables
from lab.cloud import Cloud
from lab.databases import SQLite
from lab.model import new_id, random_mac
from lab.rabbit import Rabbit
from lab.server_parts import together
from lab.standalone_server import StandaloneServer

_GIVE_UP_SECONDS = 600
_POLL_SECONDS = 0.02


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hosts", type=positive, default=30, metavar="N", help="hosts that have the ports (30)"
    )
    parser.add_argument(
        "--ovn", action="store_true", help="an address joins OVN's address set, on one such host"
    )


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """The agents are the product's own, without a switch; server and RabbitMQ are real."""
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(_group(options.ports, options.hosts))
        peers: dict[str, Contender] = {}
        if options.ovn:
            theirs = stack.enter_context(ovn.group(max(1, options.ports // options.hosts)))
            peers["ovn"] = theirs.member
        yield Bench(group.join, peers=peers)


COMMAND = Command("member", "a member joins a group on many hosts", prepare, arguments, ports=3000)


class _Group:
    """Ports of one group, all proven, and their agents."""

    def __init__(self, server: StandaloneServer, rabbit: Rabbit, agents: list[BusAgent]) -> None:
        self._server, self._rabbit, self._agents = server, rabbit, agents
        self._cloud = Cloud(server.api, "")
        self.network, self.group = network_and_group(self._cloud)
        [self._pid] = server.workers()
        self._idle = Idle(lambda: cpu_seconds(self._pid))

    def add(self, cable: Cable, host: str | None) -> None:
        self._cloud.port(cable, self.network, [self.group], **{"binding:host_id": host})

    def wait_idle(self) -> None:
        self._idle.wait(_GIVE_UP_SECONDS)

    def join(self) -> Figures:
        """From the PUT of a port without a host to all ports proven again.

        ``bytes`` are those that the server sent to the bus: answers and casts. ``reports`` are
        those of all agents. Both, and the server's CPU, are counted until it is idle.
        """
        self.wait_idle()
        newcomer = Cable(new_id(), random_mac(), "10.255.255.1")
        sent, cpu, reports = self._bytes(), cpu_seconds(self._pid), self._reports()
        began = time.perf_counter()
        self.add(newcomer, None)
        answered = time.perf_counter() - began
        self._wait_realised()
        seconds = time.perf_counter() - began
        self.wait_idle()
        figures = {
            "seconds": seconds,
            "answered_seconds": answered,
            "bytes": self._bytes() - sent,
            "server_cpu_seconds": cpu_seconds(self._pid) - cpu,
            "reports": self._reports() - reports,
        }
        self._server.api.delete("ports", newcomer.port_id)
        self._wait_realised()
        return figures

    def _wait_realised(self) -> None:
        database = Path(str(make_url(self._server.database_url).database))
        wait_realised(self._server.api, database, _GIVE_UP_SECONDS, _POLL_SECONDS)

    def _reports(self) -> int:
        return sum(len(agent.made) for agent in self._agents)

    def _bytes(self) -> int:
        """What RabbitMQ has received over the server's connections, which oslo.messaging names by
        program and process."""
        listed = self._rabbit.ctl("-q", "list_connections", "client_properties", "recv_oct")
        rows = [line.rpartition("\t") for line in listed.splitlines()]
        received = [int(octets) for name, _, octets in rows if f":{self._pid}:" in name]
        if not received:
            raise ValueError("RabbitMQ names no connection of the server")
        return sum(received)


@contextlib.contextmanager
def _group(ports: int, hosts: int) -> Iterator[_Group]:
    lines = cables(ports)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-member-")))
        rabbit = stack.enter_context(Rabbit())
        server = stack.enter_context(StandaloneServer(rabbit, SQLite(place), workers=1))
        agents: list[BusAgent] = []
        made = _Group(server, rabbit, agents)
        for number, cable in enumerate(lines):
            made.add(cable, _host(number % hosts))
        # oslo.messaging registers some options on this one only (_tracing/client.py).
        cfg.CONF([], default_config_files=[])
        bus = transport.get_transport(cfg.CONF, rabbit.url)
        stack.callback(briefly, bus.cleanup)
        # One after the other they would take seconds each.
        stack.callback(lambda: together(*(agent.stop for agent in agents)))
        for number in range(hosts):
            its = [cable.port_id for cable in lines[number::hosts]]
            agent = BusAgent(bus, _host(number), its, place)
            agents.append(agent)
            agent.start()
        wait_none(server.api, _GIVE_UP_SECONDS, 0.2, status="DOWN")
        made.wait_idle()
        yield made


def _host(number: int) -> str:
    return f"host-{number}"
