"""A world of agents and servers on one clock, bus and switch each: its events, and its story."""

import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import FlowReport
from agent_flows.rpc.identity import Identity
from agent_flows.server.core import clock as server_clock
from agent_flows.server.core.casts import Casts
from agent_flows.server.core.errors import NotFound
from agent_flows.server.core.models import table_of
from agent_flows.server.standalone import (
    bodies,
    desired,
    desired_ports,
    models,
    port_state,
)
from lab.model import egress_to_anywhere, ingress, numbered_id
from tests.simulation import invariants
from tests.simulation.agent import Agent
from tests.simulation.bus import Bus, Message, Outside
from tests.simulation.server import Content, Server, the_database
from tests.simulation.steps import Clock, Crashed, Process
from tests.simulation.switch import Switch, Trouble

NETWORK = numbered_id(3, 1)
PORTS = [numbered_id(1, n) for n in range(1, 4)]
GROUPS = [numbered_id(2, n) for n in range(1, 3)]
HOSTS = ["host-1", "host-2"]
_GROUP, _PORT = table_of(models.SecurityGroup).c, table_of(models.Port).c
_MEMBERSHIP = table_of(models.Membership).c

_FIRST, _FIRST_TCP_PORT = Content(), 1000
"""The network and the groups that are there from the beginning."""
ROUNDS = 40
"""Turns of ten seconds in which everything must converge after the last disturbance."""


def short(id_: str) -> str:
    for kind, ids in (("port", PORTS), ("group", GROUPS)):
        if id_ in ids:
            return f"{kind} {ids.index(id_) + 1}"
    return id_[:8]


@dataclass(frozen=True)
class Delivered:
    """A report whose message was committed: by the process with this identity, ``made`` as the
    n-th of the world."""

    report: FlowReport
    boot_id: str | None
    made: int


class World:
    def __init__(self) -> None:
        logging.disable(logging.CRITICAL)
        self._undo = contextlib.ExitStack()
        self.clock = Clock()
        self.story: list[str] = []
        self._undo.enter_context(server_clock.read_from(self.clock.now))
        self.database = the_database()
        self.bus = Bus(self._take_call, self.say)
        self.delivered: list[Delivered] = []
        self.made: dict[str, int] = {}
        # By group and revision: the TCP ports that its rules allow.
        self.allowed: dict[tuple[str, int], frozenset[int]] = {}
        self._next_tcp_port = 0
        self._calls = 0
        self.tampered = False
        outside = Outside(self.bus, self.clock, self.say)
        self.servers = [
            Server(name, outside, self._note_taken) for name in ("server-a", "server-b")
        ]
        self.agents = [
            Agent(f"the agent of {host}", host, Switch(host), outside, self._note_stored)
            for host in HOSTS
        ]
        # Another machine that is called like the first one. It is switched on by a history.
        self.double = Agent(
            f"another agent of {HOSTS[0]}", HOSTS[0], Switch("other"), outside, self._note_stored
        )
        self.double.alive = False
        self.agents.append(self.double)
        self.checks = invariants.Invariants(self)
        self._set_up()

    def close(self) -> None:
        self._undo.close()
        logging.disable(logging.NOTSET)

    @property
    def processes(self) -> list[Process]:
        return [*self.servers, *self.agents]

    # The story.

    def say(self, line: str) -> None:
        self.story.append(line)

    def story_text(self) -> str:
        return "\n".join(self.story)

    # What the API does.

    def _set_up(self) -> None:
        if _FIRST.restore():
            self._next_tcp_port = _FIRST_TCP_PORT
            self._note_groups()
            return
        now = self.clock.now()
        network = bodies.read(bodies.Network, NETWORK, {"network_type": "local"})
        with self.servers[0].database.writer() as session:
            desired.put_networks(session, [("", network)], now)
        self._next_tcp_port = _FIRST_TCP_PORT - 2 * len(GROUPS)
        for group in GROUPS:
            self.put_rules(group)
        self.story.clear()
        _FIRST.keep()

    def write(self, what: str, change: Callable[[Session], Casts]) -> None:
        """A request to the API of a server that is alive."""
        server = next((each for each in self.servers if each.alive), None)
        if server is None:
            self.say(f"{what}: no server is there")
            return
        self.say(f"{what}, at {server.name}")
        try:
            server.write(change)
        except Crashed:
            pass
        except NotFound:
            self.say("    there is none")
        self._note_groups()

    def put_rules(self, group: str) -> None:
        """New rules: each version of a group allows a TCP port of its own, to anyone; the second
        group another one to members of the first."""
        self._next_tcp_port += 2
        first = self._next_tcp_port
        rules = [*egress_to_anywhere(), ingress(protocol="tcp", port=first)]
        if group == GROUPS[1]:
            rules.append(ingress(protocol="tcp", port=first + 1, remote_group_id=GROUPS[0]))
        for each in rules:
            if "port" in each:
                each["port_range_min"] = each["port_range_max"] = each.pop("port")
        body = bodies.read(bodies.SecurityGroup, group, {"security_group_rules": rules})
        self.write(
            f"{short(group)} gets new rules, TCP {first}",
            lambda session: (
                desired.put_security_groups(session, [("", body)], self.clock.now()).casts
            ),
        )

    def put_port(self, port: str, host: str | None, groups: Collection[str]) -> None:
        number = PORTS.index(port) + 1
        fields = {
            "network_id": NETWORK,
            "mac_address": f"fa:16:3e:00:00:0{number}",
            "fixed_ips": [{"ip_address": f"10.0.0.{number}"}],
            "security_groups": list(groups),
            "binding:host_id": host,
        }
        body = bodies.read(bodies.Port, port, fields)
        names = " and ".join(map(short, groups)) or "no group"
        self.write(
            f"{short(port)} is bound to {host or 'no host'}, in {names}",
            lambda session: desired_ports.put_ports(session, [("", body)], self.clock.now()).casts,
        )

    def delete_port(self, port: str) -> None:
        self.write(
            f"{short(port)} is deleted",
            lambda session: desired_ports.delete_port(session, port, self.clock.now()),
        )

    def _note_groups(self) -> None:
        rule = table_of(models.SecurityGroupRule).c
        with self.database.reader() as session:
            connection = session.connection()
            for id_, revision in connection.execute(sa.select(_GROUP.id, _GROUP.revision)).all():
                if (id_, revision) not in self.allowed:
                    numbers = connection.scalars(
                        sa.select(rule.port_range_min).where(
                            rule.security_group_id == id_, rule.port_range_min.is_not(None)
                        )
                    )
                    self.allowed[id_, revision] = frozenset(numbers)

    # What happens on a host.

    def plug(self, agent: Agent, port: str) -> None:
        if port in agent.switch.plugs:
            self.say(f"{short(port)} is unplugged at {agent.name}")
            agent.switch.unplug(port)
        else:
            self.say(f"{short(port)} is plugged in at {agent.name}")
            agent.switch.plug(port)
        if agent.alive:
            agent.control.interfaces_changed(frozenset({port}))

    def boot(self, port: str, agent: Agent, groups: Collection[str]) -> None:
        """The port is bound to a host and plugged in there, and nowhere else."""
        self.put_port(port, agent.host, groups)
        for each in self.agents:
            if (port in each.switch.plugs) is not (each is agent):
                self.plug(each, port)

    def tamper(self, agent: Agent, port: str, what: str) -> None:
        done = {"loses a flow": agent.switch.lose_flow, "gets another tag": agent.switch.retag}
        if done[what](port):
            self.say(f"{short(port)} {what} at {agent.name}")
            self.tampered = True
            if what == "gets another tag" and agent.alive:
                agent.control.wiring_changed(frozenset({port}))

    def restart_switch(self, agent: Agent) -> None:
        self.say(f"the switch restarts at {agent.name}")
        agent.switch.restart()
        self.tampered = True
        if agent.alive:
            agent.control.switch_restarted()

    def trouble_switch(self, agent: Agent, trouble: Trouble) -> None:
        self.say(
            f"the switch of {agent.host} is in trouble: {trouble.kind}, {trouble.bundles} times"
        )
        agent.switch.trouble = trouble

    def fill_disk(self, agent: Agent) -> None:
        agent.disk.full = not agent.disk.full
        self.say(f"the disk of {agent.host} {'is full' if agent.disk.full else 'has room again'}")

    def copy_disk(self, agent: Agent) -> None:
        self.say(f"a copy of the outbox of {agent.host} is made")
        agent.disk.copy()

    # Processes.

    def one_turn(self, process: Process, number: int) -> None:
        turns: dict[str, Callable[[], object]] = dict(self.turns_of(process))
        if isinstance(process, Agent):
            turns["sends a heartbeat"] = process.beat
            turns["compares everything"] = process.audit_all
        elif isinstance(process, Server):
            turns["sweeps"] = process.sweeper.sweep
        what, do = list(turns.items())[number % len(turns)]
        self.turn(process, what, do)

    def crash_later(self, process: Process, points: int) -> None:
        if process.alive:
            self.say(f"{process.name} will end after {points} points")
            process.plan(points, f"{process.name} ends")

    def restart(self, process: Process, disk: str) -> None:
        self.say(f"{process.name} starts again{f', with an {disk} outbox' if disk else ''}")
        if isinstance(process, Agent):
            if disk == "empty":
                process.disk.empty()
            elif disk == "old":
                process.disk.restore()
        self.start(process)

    def meanwhile(self, process: Process, points: int, what: str, port: str, host: str) -> None:
        acts: dict[str, tuple[str, Callable[[], None]]] = {
            "rules": ("new rules", lambda: self.put_rules(GROUPS[0])),
            "port": (
                f"{short(port)} is bound to {host}",
                lambda: self.put_port(port, host, GROUPS[:1]),
            ),
            "turns": (
                "the others have a turn",
                lambda: (
                    self.everyone([each for each in self.processes if each is not process]) and None
                ),
            ),
        }
        if isinstance(process, Server) or not process.alive:
            return
        if what == "worker":
            assert isinstance(process, Agent)
            self.say(f"another worker of {process.name} has a turn after {points} points")
            process.plan(points, "another worker", lambda: process.work() and None, "of OVSDB")
            return
        said, act = acts[what]
        self.say(f"{process.name} will find after {points} points: {said}")
        process.plan(points, said, act)

    def pass_time(self, seconds: float) -> None:
        self.say(f"{seconds:g} s pass")
        self.clock.pass_(seconds)

    def turn(self, process: Process, what: str, do: Callable[[], object]) -> bool:
        """One turn of a thread of a process; whether there was anything to do."""
        if not process.alive:
            return False
        self.clock.pass_()
        # How many lines the story had: a turn without work is not worth one.
        place = len(self.story)
        self.story.append(f"{process.name}: {what}")
        try:
            worked = bool(do())
        except Crashed:
            worked = True
        if not worked and len(self.story) == place + 1:
            self.story.pop()
        return worked

    def turns_of(self, process: Process) -> Mapping[str, Callable[[], object]]:
        if isinstance(process, Server):
            return {"sends its casts": process.pool.run}
        assert isinstance(process, Agent)
        return {
            "looks after the host": process.care,
            "asks the server": process.ask,
            "runs flows": process.work,
            "looks into what is suspected": process.audit,
            "sends reports": process.report,
        }

    def everyone(self, processes: Sequence[Process], *, casts: bool = True) -> bool:
        """One turn of each thread of these processes, and every cast is delivered or lost; whether
        anyone had something to do."""
        worked = False
        for process in processes:
            for what, do in self.turns_of(process).items():
                worked |= self.turn(process, what, do)
        while casts and self.bus.casts:
            self.deliver_cast(0)
            worked = True
        self.bus.casts.clear()
        return worked

    def start(self, process: Process) -> None:
        process.start()  # type: ignore[attr-defined]

    def crash(self, process: Process) -> None:
        if process.alive:
            self.say(f"{process.name} ends")
            process.alive = False

    # The bus.

    def _take_call(self, message: Message) -> Any:
        alive = [server for server in self.servers if server.alive]
        if not alive:
            raise Crashed("no server")
        self._calls += 1
        return alive[self._calls % len(alive)].answer(message)

    def deliver_cast(self, place: int) -> None:
        message = self.bus.casts.pop(place)
        listening = [
            agent for agent in self.agents if agent.alive and agent.host == message.target.server
        ]
        if listening:
            self.say(f"the cast {message} arrives")
            listening[len(self.bus.casts) % len(listening)].hear(message)
        else:
            self.say(f"the cast {message} finds no one")

    def doom(self, fate: str, call: str) -> None:
        self.say(f"the next call {call} {fate}")
        self.bus.fates.setdefault(call, []).append(fate)

    def handle_cast(self, place: int, fate: str) -> None:
        if place >= len(self.bus.casts):
            return
        if fate == "comes twice":
            self.bus.casts.append(self.bus.casts[place])
        if fate == "is lost":
            self.say(f"the cast {self.bus.casts.pop(place)} is lost")
        else:
            self.deliver_cast(place)

    def deliver_late(self, place: int) -> None:
        if place >= len(self.bus.late):
            return
        message = self.bus.late.pop(place)
        self.say(f"the late call {message} arrives")
        with contextlib.suppress(Exception, Crashed):
            self.bus.answer(message)

    def state_of(self, port: str) -> tuple[str, str]:
        """The status and the sync_state that a port shows."""
        with self.database.reader() as session:
            status = session.connection().scalar(sa.select(_PORT.status).where(_PORT.id == port))
            return str(status), port_state.shown(session, [port])[port][0]

    # What is noted for the checks.

    def _note_stored(self, agent: Agent, reports: Sequence[FlowReport]) -> None:
        for report in reports:
            self.made[report.id] = len(self.made)
            self.say(f"    stored: {_told(report)}")
        self.checks.stored(agent, reports)

    def _note_taken(self, host: str, reports: Sequence[FlowReport], agent: Identity | None) -> None:
        boot_id = agent.boot_id if agent else None
        for report in reports:
            self.say(f"    taken: {_told(report)}")
            self.delivered.append(Delivered(report, boot_id, self.made.get(report.id, -1)))

    # Quiet.

    def settle(self, *, casts: bool) -> None:
        """Nothing is disturbed any more: within a bounded time all is as desired. Without
        ``casts`` each of them is lost, also now."""
        self.say(f"from now on nothing is disturbed{'' if casts else ', but every cast is lost'}")
        self.bus.fates.clear()
        self.bus.late.clear()
        for agent in self.agents:
            agent.disk.full = False
            agent.switch.trouble = None
        self.crash(self.double)
        for process in self.processes:
            process.forget_plans()
            if not process.alive and process is not self.double:
                self.say(f"{process.name} starts")
                self.start(process)
        for round_ in range(ROUNDS):
            self.say(f"ten seconds, the {round_ + 1}. time")
            for agent in self.agents:
                self.turn(agent, "sends a heartbeat", agent.beat)
                if round_ % 3 == 0:
                    self.turn(agent, "compares everything", agent.audit_all)
            if round_ % 3 == 1:
                self.turn(self.servers[0], "sweeps", self.servers[0].sweeper.sweep)
            for _ in range(5):
                self._finish(casts=casts)
                self.clock.pass_(2.0)
            self.checks.after_step()
            if not (wrong := self.checks.not_converged()):
                return
        raise AssertionError(f"has not converged: {'; '.join(wrong)}\n{self.story_text()}")

    def _finish(self, *, casts: bool) -> None:
        for _ in range(30):
            if not self.everyone(self.processes, casts=casts):
                return
        raise AssertionError(f"there is no end of work\n{self.story_text()}")


def _told(report: FlowReport) -> str:
    failed = report.failed
    outcome = "succeeded" if failed is None else f"failed in {failed.name}"
    groups = {short(id_): number for id_, number in report.security_group_revisions.items()}
    return (
        f"{report.flow} of {short(report.resource_id)} {outcome}, revision {report.revision}, "
        f"{groups}, number {report.sequence} ({report.id[:4]})"
    )
