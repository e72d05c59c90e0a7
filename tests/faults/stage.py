"""Every process of the product with what it needs, fifty ports, and packets all the while."""

import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oslo_config import cfg

from agent_flows.rpc import transport
from agent_flows.rpc.server import AgentClient
from lab.attack import Attack
from lab.cables import Cable, cables
from lab.cloud import Cloud
from lab.databases import PostgreSQL
from lab.lifetime import Lifetime
from lab.model import egress_to_anywhere, ingress, random_mac
from lab.namespace import Namespace, mark
from lab.process import CommandFailed, Daemon, wait_until
from lab.product import Site
from lab.rabbit import Rabbit
from lab.rest import Body, Refused
from lab.stuck_tool import StuckTool
from lab.switch import Switch
from lab.vm import Plugged, Vm, plug
from tests.faults.held_flows import pattern
from tests.faults.records import Records

HOST = "compute-1"
BRIDGE = "br-int"
WEB = (ingress(protocol="icmp"), ingress(protocol="tcp", port=80), *egress_to_anywhere())
"""The rules of the group of 48 of the ports."""
VLAN = 201
PORTS = 50
SECONDS = 120
"""How long everything may take that has to happen, on a busy machine."""
STATE_MIB = 64
_HEARTBEATS = 2
_PING_SECONDS = 0.05
_KNOCK_SECONDS = 0.01
OTHER_HOST = "compute-2"
_OTHER_BRIDGE, _OTHER_PHYSICAL = "br-other", "br-phys-other"
# Of table 0 the tool does not print the number.
_TABLE = re.compile(r"\btable=(\d+)")

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
class Seen:
    """What was found in the end: in the switch, on the wires and in the API."""

    unproven: Sequence[str]
    damage: Sequence[str]
    reports: int
    uncounted: Sequence[str]
    forbidden: Mapping[str, int]
    failures: int
    kinds: Mapping[str, int]
    lost: Sequence[str]
    doubled: Sequence[str]
    answered: int
    asked: int
    sent: int


@dataclass(frozen=True)
class Twin:
    """The interface of a port on another host's bridge; the names in a switch are unique."""

    port_id: str
    mac: str
    addresses: Sequence[str]

    @property
    def tap(self) -> str:
        return f"mov{self.port_id[:11]}"


class Pings:
    """Asks a VM without a pause, and counts the answers."""

    def __init__(self, client: Vm, server: Vm) -> None:
        self.asked = self.answered = 0
        self._client, self._address = client, server.ip
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._enough.wait(_PING_SECONDS):
            self.asked += 1
            # The links go away during some faults.
            with contextlib.suppress(OSError):
                self.answered += self._client.ping(self._address, timeout=0.5)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._enough.set()
        self._thread.join()


class Stage(Lifetime):
    """Switch, RabbitMQ, PostgreSQL, server and agent; ``web`` may be pinged by everyone, ``db``
    serves ``web`` only. The agent's state is on a disk of its own."""

    def __init__(self, lasting: float = 0.0) -> None:
        super().__init__()
        self.lasting = lasting
        """Seconds that an outage goes on after it was noticed."""
        self.broken = False
        """Whether the last fault was not survived, so that the next one would say nothing."""
        self.ports: list[Plugged] = []
        self.plugged: set[str] = set()
        self.twins: dict[str, Twin] = {}
        """Interfaces of some ports on the other host's bridge, by port."""
        self._pattern: dict[str, frozenset[str]] = {}
        self._roles: dict[str, str] = {}

    def _start(self) -> None:
        enter = self._stack.enter_context
        self.switch = enter(Switch("faults"))
        for bridge in ("br-phys", _OTHER_PHYSICAL):
            self.switch.add_bridge(bridge, fail_mode="standalone")
        self.rabbit = enter(Rabbit(self.switch.namespace))
        self.postgresql = enter(PostgreSQL())
        directory = Path(tempfile.mkdtemp(prefix=f"{mark()}tool-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self.tool = StuckTool(directory)
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
            )
        )
        self.api = self.site.api
        self.cloud = Cloud(self.api, HOST)
        self.site.agent.env["PATH"] = self.tool.path
        self.site.state_dir.mkdir()
        self._stack.enter_context(_small_disk(self.site.state_dir))
        # Before its disk is unmounted.
        self._stack.callback(self.site.agent.stop)
        self.site.start_server()
        self.site.start_agent()
        outbox = self.site.state_dir / "outbox.sqlite"
        self.records = Records(outbox, database_url, HOST)
        self.records.watch()
        self._populate()
        self.wait_converged()
        self._learn()

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

    def plug(self, ports: Collection[Plugged]) -> None:
        plug(self.switch, ports)
        self.plugged |= {port.port_id for port in ports}

    def unplug(self, ports: Collection[Plugged]) -> None:
        words = [word for p in ports for word in ("--", "--if-exists", "del-port", BRIDGE, p.tap)]
        self.switch.vsctl(*words)
        self.plugged -= {port.port_id for port in ports}

    def rewire(self, ports: Collection[Plugged]) -> None:
        """Unplug them, wait until the API shows it, and plug them again."""
        self.unplug(ports)
        ids = {port.port_id for port in ports}
        wait_until(
            lambda: all(p["sync_state"] == "ABSENT" for p in self.shown() if p["id"] in ids),
            SECONDS,
            "the ports are ABSENT",
            poll=0.1,
        )
        self.plug(ports)

    def replug(self, ports: Collection[Plugged]) -> None:
        """Unplug them and plug them again at once; the agent may notice or not."""
        self.unplug(ports)
        self.plug(ports)

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

    def until_unknown(self) -> None:
        """Until the API claims nothing of any plugged port."""
        self._until(
            lambda: (
                {p["sync_state"] for p in self.shown() if p["id"] in self.plugged} == {"UNKNOWN"}
            ),
            "all ports are UNKNOWN",
        )
        time.sleep(self.lasting)

    def until_unhealthy(self) -> None:
        """Until /healthz shows that something is wrong."""
        self._until(lambda: not self.api.answers(), "/healthz shows it")
        time.sleep(self.lasting)

    def until_delivered(self) -> None:
        """Until the server has every report that the agent has stored so far."""
        made = self.records.made()
        self._until(lambda: not self.records.uncounted(made), "all reports are delivered")

    def redelivered(self) -> float:
        """How many reports this process of the server took that it had already."""
        text = self.api.request("GET", "/metrics")
        found = re.search(r"^agent_flows_reports_redelivered_total (\S+)", text, re.MULTILINE)
        assert found is not None, text
        return float(found[1])

    def until_trouble(self, source: str) -> None:
        """Until the agent's heartbeats name a trouble of ``source``."""
        self._until(
            lambda: source in self.agent().get("state", {}).get("troubles", {}),
            f"the trouble {source}",
        )

    def _until(self, check: Callable[[], bool], what: str) -> None:
        wait_until(check, SECONDS, what, poll=0.1)

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
        return held(self.site.agent)

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
    def cut_off_from_rabbit(self) -> Iterator[None]:
        """Packets to and from the broker vanish; no connection is reset."""
        rules = [
            [chain, "-p", "tcp", side, str(self.rabbit.port), "-j", "DROP"]
            for chain, side in (("INPUT", "--dport"), ("INPUT", "--sport"))
        ]
        for rule in rules:
            self._iptables("-I", *rule)
        try:
            yield
        finally:
            for rule in rules:
                self._iptables("-D", *rule)

    def _iptables(self, *words: str) -> None:
        argv = self.switch.namespace.argv(["iptables", "-w", *words])
        subprocess.run(argv, check=True, capture_output=True)

    @contextlib.contextmanager
    def caster(self) -> Iterator[AgentClient]:
        """Casts to agents as the server does; for this thread."""
        with self.switch.namespace.entered():
            bus = transport.get_transport(cfg.CONF, self.rabbit.url)
            try:
                yield AgentClient(bus)
            finally:
                bus.cleanup()

    def last_words(self) -> str:
        """The end of the logs of agent and server."""
        daemons = (self.site.agent, self.site.server)
        return "\n".join(f"-- {each.name}:\n{each.last_words(40)}" for each in daemons)

    # What is true now.

    def shown(self) -> list[Body]:
        return self.api.find("ports")

    def agent(self) -> Body:
        """The agent as the API shows it; empty if the API does not answer."""
        try:
            return next(iter(self.api.find("agents", host=HOST)), {})
        except (OSError, Refused):
            self.api.close()
            return {}

    def claims(self, since: datetime.datetime) -> list[str]:
        """What the API shows that is not yet as it should be; empty: everything has converged.

        A state that the agent reported before ``since`` counts for nothing.
        """
        try:
            shown = self.shown()
        except (OSError, Refused) as exc:
            self.api.close()
            return [f"the API does not answer: {exc}"]
        agent = self.agent()
        state, desired = agent.get("state", {}), agent.get("desired") or {}
        wrong = [
            f"port {port['id']} is {port['status']} {port['sync_state']}"
            for port in shown
            if port["id"] in self.plugged
            and (port["status"], port["sync_state"]) != ("ACTIVE", "IN_SYNC")
        ]
        beat = agent.get("heartbeat_at")
        if not agent.get("alive") or datetime.datetime.fromisoformat(beat) < since:
            wrong.append("the agent is not alive")
        wrong += [f"{key}: {state[key]}" for key in ("waiting", "unreported", "trouble")
                  if state.get(key)]  # fmt: skip
        if not desired.get("in_step"):
            wrong.append("the agent does not have all that is desired")
        return wrong

    def wait_converged(self, seconds: float = SECONDS) -> float:
        """Seconds until the API shows every plugged port ACTIVE, and it is true. Raises
        TimeoutError with what is missing."""
        began, since = time.monotonic(), datetime.datetime.now(datetime.UTC)
        missing: list[str] = []

        def converged() -> bool:
            missing[:] = self.claims(since) or self.unproven()
            return not missing

        try:
            wait_until(converged, seconds, "everything has converged", poll=0.1)
        except TimeoutError as late:
            raise TimeoutError(f"{late}: {len(missing)} such as {missing[:5]}") from None
        return time.monotonic() - began

    def wait_heartbeats(self) -> None:
        """Until the agent has reported its state twice more: what it is about to do is done."""
        seen = {self.agent().get("heartbeat_at")}

        def enough() -> bool:
            seen.add(self.agent().get("heartbeat_at"))
            return len(seen) > _HEARTBEATS

        wait_until(enough, SECONDS, "the agent's heartbeats", poll=0.1)

    # The switch, compared with the database.

    def unproven(self) -> list[str]:
        """Every port that the database has as ACTIVE, and the switch of its host does not hold as
        it held it when packets had proven it."""
        active = defaultdict[str, list[str]](list)
        for port in self.shown():
            if port["status"] == "ACTIVE":
                active[port["binding:host_id"]].append(port["id"])
        twins = {id_: twin for id_, twin in self.twins.items() if id_ in active[OTHER_HOST]}
        wrong = self._not_held({p.port_id: p for p in self.ports if p.port_id in active[HOST]})
        return wrong + self._not_held(twins, _OTHER_BRIDGE)

    def _not_held(self, ports: Mapping[str, Plugged], bridge: str = BRIDGE) -> list[str]:
        if not ports:
            return []
        try:
            flows = self._flows(bridge)
            ofports = self._ofports()
        except (CommandFailed, subprocess.TimeoutExpired, ValueError) as exc:
            return [f"port {id_} is ACTIVE, and the switch cannot be read: {exc}" for id_ in ports]
        wrong: list[str] = []
        for id_, port in ports.items():
            if not self._pattern:
                continue
            ofport, tag = ofports.get(port.tap, (0, 0))
            if ofport <= 0:
                wrong.append(f"port {id_} is ACTIVE without an interface")
                continue
            found = pattern(port, ofport, tag, flows)
            wanted = self._pattern[self._roles[id_]]
            if found != wanted:
                wrong.append(
                    f"port {id_} is ACTIVE; missing: {sorted(wanted - found)[:3]}, "
                    f"surplus: {sorted(found - wanted)[:3]}"
                )
        return wrong

    def _learn(self) -> None:
        """Remember what the switch holds of a port, once packets have shown that it is right."""
        self.check_packets()
        flows, ofports = self._flows(), self._ofports()
        for port in self.ports:
            held = pattern(port, *ofports[port.tap], flows)
            role = self._roles[port.port_id]
            assert held == self._pattern.setdefault(role, held), (port.port_id, sorted(held))
            assert len(held) > 5, sorted(held)

    def flows_by_table(self) -> Counter[int]:
        """How many flows each table has."""
        return Counter(
            int(match[1]) if (match := _TABLE.search(flow)) else 0 for flow in self._flows()
        )

    def are_open(self, ports: Collection[Plugged]) -> bool:
        """Whether the switch holds all that these ports need."""
        return not self._not_held({port.port_id: port for port in ports})

    def _flows(self, bridge: str = BRIDGE) -> list[str]:
        return self.switch.flows(bridge)

    def _ofports(self) -> Mapping[str, tuple[int, int]]:
        """The ofport and the tag of each interface."""

        def rows(table: str, columns: str) -> list[Any]:
            text = self.switch.vsctl("--format=json", f"--columns={columns}", "list", table)
            return list(json.loads(text)["data"])

        tags = {name: tag for name, tag in rows("Port", "name,tag") if isinstance(tag, int)}
        return {
            name: (ofport, tags.get(name, 0))
            for name, ofport in rows("Interface", "name,ofport")
            if isinstance(ofport, int)
        }

    def check_packets(self) -> None:
        """What the groups allow passes, what they forbid does not."""
        for vm in (self.client, self.server_vm, self.victim):
            vm.forget_neighbours()
        allowed = {
            "client pings server": lambda: self.client.ping(self.server_vm.ip),
            "client reaches tcp 5432 of victim": lambda: self.client.connect(self.victim.ip, 5432),
            "victim reaches tcp 80 of server": lambda: self.victim.connect(self.server_vm.ip, 80),
        }
        for what, passes in allowed.items():
            wait_until(passes, SECONDS, what)
        assert not self.other.connect(self.victim.ip, 5432, timeout=0.3)
        assert not self.client.connect(self.victim.ip, 80, timeout=0.3)

    # Packets all the while, and the failures that happened.

    @contextlib.contextmanager
    def traffic(self) -> Iterator[tuple[Pings, Attack]]:
        """An open and a forbidden stream."""
        pings = Pings(self.client, self.server_vm)
        with Attack(self.attacker, [self.victim, self.other], _KNOCK_SECONDS) as attack:
            pings.start()
            try:
                yield pings, attack
            finally:
                pings.stop()

    def see(self, pings: Pings, attack: Attack, before: Collection[str]) -> Seen:
        """Everything that must hold at the end; ``before``: reports of earlier scenarios."""
        made = self.records.made()
        reports = made.keys() - set(before)
        happened = {id_ for id_ in reports if made[id_]}
        failed = self.api.find("tasks", task_state="FAILED")
        readable = [
            (task["flow_id"], task["resource_id"], task["name"])
            for task in failed
            if task["flow_id"] in happened
        ]
        ids = {id_ for id_, _, _ in readable}
        return Seen(
            unproven=self.unproven(),
            damage=self.records.damage(),
            reports=len(reports),
            uncounted=sorted(self.records.uncounted(reports)),
            forbidden=attack.passed(),
            failures=len(happened),
            kinds=Counter(t["error"]["type"] for t in failed if t["flow_id"] in happened),
            lost=sorted(happened - ids),
            doubled=sorted({str(each) for each in readable if readable.count(each) > 1}),
            answered=pings.answered,
            asked=pings.asked,
            sent=attack.sent,
        )


@contextlib.contextmanager
def held(*daemons: Daemon) -> Iterator[None]:
    """They do nothing (SIGSTOP) until the block is left."""
    for daemon in daemons:
        os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for daemon in daemons:
            os.kill(daemon.pid, signal.SIGCONT)


@contextlib.contextmanager
def _small_disk(mount: Path) -> Iterator[None]:
    argv = ["mount", "-t", "tmpfs", "-o", f"size={STATE_MIB}m", "tmpfs", str(mount)]
    subprocess.run(argv, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
