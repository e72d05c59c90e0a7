"""Every process of the product with what it needs, and fifty ports."""

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

from agent_flows.rpc import transport
from agent_flows.rpc.server import AgentClient
from lab.cables import Cable, cables
from lab.cloud import Cloud
from lab.databases import PostgreSQL
from lab.model import egress_to_anywhere, ingress, random_mac
from lab.namespace import Namespace, mark
from lab.process import Daemon, held, wait_until
from lab.product import Site
from lab.rabbit import Rabbit
from lab.rest import Body
from lab.stuck_tool import StuckTool
from lab.switch import Switch
from lab.unprivileged import AGENT
from lab.vm import Plugged, Vm, plug
from tests.faults.any_stage import BRIDGE, SECONDS, WEB, AnyStage, Place, small_disk
from tests.faults.records import Records

HOST = "compute-1"
VLAN = 201
PORTS = 50
STATE_MIB = 64
OTHER_HOST = "compute-2"
_OTHER_BRIDGE, _OTHER_PHYSICAL = "br-other", "br-phys-other"

_SERVER = {"agent_down_time": 6, "report_timeout": 8, "sweep_interval": 1}
_AGENT = {
    "retry_initial": 0.2,
    "retry_max": 1,
    "heartbeat_interval": 1,
    "rpc_timeout": 5,
    "openflow_timeout": 5,
    "ovsdb_timeout": 5,
}


@dataclass(frozen=True)
class Twin:
    """The interface of a port on another host's bridge; the names in a switch are unique."""

    port_id: str
    mac: str
    addresses: Sequence[str]

    @property
    def tap(self) -> str:
        return f"mov{self.port_id[:11]}"


class Stage(AnyStage):
    """Switch, RabbitMQ, PostgreSQL, server and agent. The agent's state is on a disk of its own.

    Server and agents are not root, as their units want it.
    """

    def __init__(self, lasting: float = 0.0) -> None:
        super().__init__(lasting)
        self.ports: list[Plugged] = []
        self.twins: dict[str, Twin] = {}
        """Interfaces of some ports on the other host's bridge, by port."""

    def _start(self) -> None:
        enter = self._stack.enter_context
        self.switch = enter(Switch("faults", group=AGENT.id))
        for bridge in ("br-phys", _OTHER_PHYSICAL):
            self.switch.add_bridge(bridge, fail_mode="standalone")
        self.rabbit = enter(Rabbit(self.switch.namespace))
        self.postgresql = enter(PostgreSQL())
        directory = Path(tempfile.mkdtemp(prefix=f"{mark()}tool-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self.tool = StuckTool(directory)
        AGENT.owns(directory)
        database_url = self.postgresql.new_url()
        options = {
            "agent_flows": _AGENT,
            # Thousands of attempts are made here in minutes; none of them may be forgotten.
            "agent_flows_server": {
                **_SERVER,
                "history_attempts": 1_000_000,
                "history_failures": 1_000_000,
            },
            "database": {"connection": database_url},
        }
        self.site = enter(
            Site(
                self.switch,
                HOST,
                transport_url=self.rabbit.url,
                bridge_mappings={"physnet1": "br-phys"},
                options=options,
                user=AGENT,
            )
        )
        self.api = self.site.api
        self.cloud = Cloud(self.api, HOST)
        self.site.agent.env["PATH"] = self.tool.path
        self._stack.enter_context(small_disk(self.site.state_dir, STATE_MIB))
        # Before its disk is unmounted.
        self._stack.callback(self.site.agent.stop)
        self.site.start_server()
        self.site.start_agent()
        outbox = self.site.state_dir / "outbox.sqlite"
        self.records = Records({HOST: outbox}, database_url)
        self.records.watch()
        self._populate()
        self.wait_converged()
        self.learn()

    # The standalone API.

    def places(self) -> Sequence[Place]:
        first = Place(HOST, self.switch, BRIDGE, {port.port_id: port for port in self.ports})
        if not self.twins:
            return [first]
        return [first, Place(OTHER_HOST, self.switch, _OTHER_BRIDGE, self.twins)]

    def find(self, kind: str, **filters: object) -> list[Body]:
        return self.api.find(kind, **filters)

    def agents(self) -> list[Body]:
        return self.find("agents", host=HOST)

    def hang_up(self) -> None:
        self.api.close()

    def daemons(self) -> Sequence[Daemon]:
        return self.site.agent, self.site.server

    # Ports.

    def _populate(self) -> None:
        self.network = self.cloud.network(
            "vlan", physical_network="physnet1", segmentation_id=VLAN, mtu=1500
        )
        self.web = self.cloud.group("web", WEB)
        from_web = ingress(protocol="tcp", port=5432, remote_group_id=self.web)
        self.db = self.cloud.group("db", [from_web, *egress_to_anywhere()])
        self.client, self.server_vm, self.attacker = (
            self._boot(name, self.web) for name in ("client", "server", "attacker")
        )
        self.victim, self.other = (self._boot(name, self.db) for name in ("victim", "other"))
        self.lines = cables(PORTS - len(self.ports))
        self.lay(self.lines)
        for cable in self.lines:
            self.declare(cable, self.web)
        self.plug(self.ports)

    def _boot(self, name: str, group: str) -> Vm:
        vm = Vm(self.switch, name, random_mac(), [f"10.20.0.{11 + len(self.ports)}/16"])
        self._stack.callback(vm.delete)
        vm.create()
        for port in (80, 5432):
            vm.listen(port)
        self.declare(vm, group)
        return vm

    def lay(self, lines: Collection[Cable | Twin]) -> None:
        """Make their kernel links; they live as long as the stage."""
        far = Namespace("cables")
        self._stack.enter_context(far)
        self.switch.namespace.ip_batch(
            [f"link add {c.tap} type veth peer name {c.tap} netns {far.name}" for c in lines]
        )

    def declare(self, port: Plugged, group: str) -> None:
        """Make the port in the API."""
        self.ports.append(port)
        self._roles[port.port_id] = group
        self.desire(port)

    def desire(self, port: Plugged, **fields: object) -> Body:
        """PUT the port, as it was declared or with other ``fields``."""
        return self.cloud.port(port, self.network, [self._roles[port.port_id]], **fields)

    # Other hosts.

    def other_hosts(self, number: int, ports: int) -> dict[str, list[str]]:
        """Hosts without a switch, each with so many ports in no group."""
        network = self.cloud.network()
        lines = cables(number * ports)
        made: dict[str, list[str]] = {}
        for count, line in enumerate(lines):
            host = f"storm-{count // ports + 1}"
            Cloud(self.api, host).port(line, network)
            made.setdefault(host, []).append(line.port_id)
        return made

    def wait_agents_alive(self, hosts: Collection[str]) -> None:
        self._until(
            lambda: {a["host"] for a in self.api.find("agents") if a["alive"]} >= set(hosts),
            "all agents are alive",
        )

    def forget_hosts(self, hosts: Mapping[str, Collection[str]]) -> None:
        """Delete them with their ports."""
        for host, ports in hosts.items():
            for port_id in ports:
                self.api.delete("ports", port_id)
            self.api.delete("agents", host)

    # Faults, and what shows them.

    def until_unhealthy(self) -> None:
        """Until /healthz shows that something is wrong."""
        self._until(lambda: not self.api.answers(), "/healthz shows it")
        time.sleep(self.lasting)

    def redelivered(self) -> float:
        """How many reports this process of the server took that it had already."""
        text = self.api.request("GET", "/metrics")
        found = re.search(r"^agent_flows_reports_redelivered_total (\S+)", text, re.MULTILINE)
        assert found is not None, text
        return float(found[1])

    @contextlib.contextmanager
    def server_with(self, **options: object) -> Iterator[None]:
        """The server runs with other values of some of its options until the block is left."""
        before = text = self.site.config_file.read_text()
        for name, value in options.items():
            text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        self._restart_server(text)
        try:
            yield
        finally:
            self._restart_server(before)

    def _restart_server(self, configuration: str) -> None:
        self.site.server.stop()
        self.site.config_file.write_text(configuration)
        self.site.server.start()
        self.site.server.ready(self.api.answers, SECONDS)

    def begin_agent(self) -> None:
        """Start it, and wait until it has opened its outbox: everything else is yet to come."""
        before = self.records.starts()
        self.site.agent.start()
        self.site.agent.ready(lambda: self.records.starts() > before, SECONDS)

    def held_agent(self) -> contextlib.AbstractContextManager[None]:
        return held(self.site.agent.pid)

    @contextlib.contextmanager
    def other_host(self, ports: Collection[Plugged]) -> Iterator[Daemon]:
        """The agent of another host, on which these ports are plugged, too."""
        twins = [Twin(port.port_id, port.mac, port.addresses) for port in ports]
        self.lay(twins)
        with self.other_agent(OTHER_HOST) as agent:
            wait_until(
                lambda: _OTHER_BRIDGE in self.switch.vsctl("list-br").split(),
                SECONDS,
                "the other agent makes its bridge",
            )
            plug(self.switch, twins, _OTHER_BRIDGE)
            self.twins = {twin.port_id: twin for twin in twins}
            try:
                yield agent
            finally:
                self.twins = {}
                taps = [f"link delete {twin.tap}" for twin in twins]
                self.switch.namespace.ip_batch(taps)

    @contextlib.contextmanager
    def other_agent(self, host: str) -> Iterator[Daemon]:
        """An agent with bridges of its own, on the same switch."""
        options = {**_AGENT, "integration_bridge": _OTHER_BRIDGE}
        with Site(
            self.switch,
            host,
            transport_url=self.rabbit.url,
            bridge_mappings={"physnet1": _OTHER_PHYSICAL},
            options={"agent_flows": options},
            user=AGENT,
        ) as site:
            site.agent.start()
            try:
                yield site.agent
            finally:
                site.agent.stop()
                self.switch.vsctl("--if-exists", "del-br", _OTHER_BRIDGE)

    def standby(self) -> PostgreSQL:
        """One that follows the database of the server."""
        return self._stack.enter_context(PostgreSQL(leader=self.postgresql))

    @contextlib.contextmanager
    def caster(self) -> Iterator[AgentClient]:
        """Casts to agents as the server does; for this thread."""
        with self.switch.namespace.entered():
            bus = transport.get_transport(cfg.CONF, self.rabbit.url)
            try:
                yield AgentClient(bus)
            finally:
                bus.cleanup()
