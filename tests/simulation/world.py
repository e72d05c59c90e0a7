"""A world of agents and servers on one clock, bus and switch each: its events, and its story."""

import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import FlowReport
from agent_flows.rpc.identity import Identity
from agent_flows.server.core import clock as server_clock
from agent_flows.server.core.casts import Casts
from agent_flows.server.core.errors import Conflict, NotFound
from agent_flows.server.core.models import table_of
from agent_flows.server.standalone import (
    bodies,
    desired,
    desired_ports,
    models,
    port_state,
)
from agent_flows.validation import Invalid
from lab.model import egress_to_anywhere, ingress, numbered_id
from tests.simulation import invariants
from tests.simulation.agent import Agent
from tests.simulation.bus import Bus, Message, Outside
from tests.simulation.server import Content, Server, empty, rows, the_database
from tests.simulation.steps import Clock, Crashed, Process
from tests.simulation.switch import Allowed, Switch, Trouble

NETWORK = numbered_id(3, 1)
PORTS = [numbered_id(1, n) for n in range(1, 4)]
GROUPS = [numbered_id(2, n) for n in range(1, 3)]
HOSTS = ["host-1", "host-2"]
_GROUP, _PORT = table_of(models.SecurityGroup).c, table_of(models.Port).c
_MEMBERSHIP, _ADDRESS = table_of(models.Membership).c, table_of(models.FixedIp).c
_RULE = table_of(models.SecurityGroupRule).c
_RULES = sa.select(_RULE.security_group_id, _RULE.port_range_min)
_REVISIONS = sa.select(_GROUP.id, _GROUP.revision)
_ADDRESSES = sa.select(_MEMBERSHIP.security_group_id, _ADDRESS.ip_address).join_from(
    table_of(models.Membership), table_of(models.FixedIp), _MEMBERSHIP.port_id == _ADDRESS.port_id
)
_FIRST_TCP_PORT = 1000
_FIRST_BINDING = HOSTS[0], GROUPS[:1]
CASTS, ORDER = "casts arrive", "casts arrive in their order"
ROUNDS = 40
"""Turns of ten seconds in which everything must converge after the last disturbance."""


def short(id_: str) -> str:
    for kind, ids in (("port", PORTS), ("group", GROUPS)):
        if id_ in ids:
            return f"{kind} {ids.index(id_) + 1}"
    return id_[:8]


@dataclass(frozen=True)
class _Beginning:
    """What the API wrote before a history: in the database, on the bus, and as a story."""

    content: Content
    casts: Sequence[Message]
    story: Sequence[str]


@dataclass(frozen=True)
class Delivered:
    """A report whose message was committed: by the process with this identity, ``made`` as the
    n-th of the world."""

    report: FlowReport
    boot_id: str | None
    made: int


class World:
    """There are a network and two groups from the beginning, and on the first host ``booted``."""

    _beginnings: ClassVar[dict[Sequence[str], _Beginning]] = {}

    def __init__(self, booted: Sequence[str] = ()) -> None:
        logging.disable(logging.CRITICAL)
        self._undo = contextlib.ExitStack()
        self.clock = Clock()
        self.story: list[str] = []
        self._at_work: list[Process] = []
        self._undo.enter_context(server_clock.read_from(self.clock.now))
        self.database = the_database()
        self.bus = Bus(self._take_call, self.say)
        self.delivered: list[Delivered] = []
        self.made: dict[str, int] = {}
        # The reports that failed, and were news when the server took them.
        self.failures: set[str] = set()
        # By group and revision: what its rules allow.
        self.allowed: dict[tuple[str, int], Allowed] = {}
        # The host and the groups that each port was given last, and those with another address.
        self._given: dict[str, tuple[str | None, Collection[str]]] = {}
        self._readdressed: set[str] = set()
        self._next_tcp_port = _FIRST_TCP_PORT
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
        self._begin(tuple(booted))

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

    def _begin(self, booted: tuple[str, ...]) -> None:
        known = self._beginnings.get(booted)
        if known is None:
            empty().restore()
            network = bodies.read(bodies.Network, NETWORK, {"network_type": "local"})
            with self.servers[0].database.writer() as session:
                desired.put_networks(session, [("", network)], self.clock.now())
            for group in GROUPS:
                self.put_rules(group)
            for port in booted:
                self.put_port(port, *_FIRST_BINDING)
            self.servers[0].pool.run()
            known = _Beginning(Content(), list(self.bus.casts), list(self.story))
            self._beginnings[booted] = known
        else:
            known.content.restore()
            self.bus.casts += known.casts
            self.story += known.story
            self._next_tcp_port += 2 * len(GROUPS)
            self._given |= dict.fromkeys(booted, _FIRST_BINDING)
            self._note_groups()
        for port in booted:
            self.plug(self.agents[0], port)

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
        except (NotFound, Conflict, Invalid) as exc:
            self.say(f"    is refused: {exc}")
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
        self._given[port] = host, groups
        number = PORTS.index(port) + 1
        fields = {
            "network_id": NETWORK,
            "mac_address": f"fa:16:3e:00:00:0{number}",
            "fixed_ips": [{"ip_address": f"10.0.{int(port in self._readdressed)}.{number}"}],
            "security_groups": list(groups),
            "binding:host_id": host,
        }
        body = bodies.read(bodies.Port, port, fields)
        names = " and ".join(map(short, groups)) or "no group"
        self.write(
            f"{short(port)} is bound to {host or 'no host'}, in {names}",
            lambda session: desired_ports.put_ports(session, [("", body)], self.clock.now()).casts,
        )

    def readdress(self, port: str) -> None:
        """Its other address, for itself and for those whose rules let in its groups."""
        if port in self._given:
            self._readdressed ^= {port}
            self.put_port(port, *self._given[port])

    def delete_group(self, group: str) -> None:
        self.write(
            f"{short(group)} is deleted",
            lambda session: desired.delete_security_group(session, group, self.clock.now()),
        )

    def delete_port(self, port: str) -> None:
        self.write(
            f"{short(port)} is deleted",
            lambda session: desired_ports.delete_port(session, port, self.clock.now()),
        )

    def _note_groups(self) -> None:
        rules = rows(_RULES)
        members = frozenset(address for group, address in rows(_ADDRESSES) if group == GROUPS[0])
        for group, revision in rows(_REVISIONS):
            numbers = {rule.port_range_min for rule in rules if rule.security_group_id == group}
            allowed = Allowed(
                frozenset(numbers - {None}), members if group == GROUPS[1] else frozenset()
            )
            self.allowed.setdefault((group, revision), allowed)

    # What happens on a host.

    def plug(self, agent: Agent, port: str) -> None:
        if port in agent.switch.plugs:
            self.say(f"{short(port)} is unplugged at {agent.name}")
            agent.switch.unplug(port)
        else:
            self.say(f"{short(port)} is plugged in at {agent.name}")
            agent.switch.plug(port)
        if agent.alive:
            agent.upkeep.interfaces_changed(frozenset({port}))

    def boot(self, port: str, agent: Agent, groups: Collection[str]) -> None:
        """The port is bound to a host and plugged in there, and nowhere else."""
        self.put_port(port, agent.host, groups)
        for each in self.agents:
            if (port in each.switch.plugs) is not (each is agent):
                self.plug(each, port)

    def tamper(self, agent: Agent, port: str, what: str) -> None:
        done = {
            "loses a flow": agent.switch.lose_flow,
            "gets a flow of a stranger": agent.switch.open,
            "gets another tag": agent.switch.retag,
        }
        if done[what](port):
            self.say(f"{short(port)} {what} at {agent.name}")
            self.tampered = True
            if what == "gets another tag" and agent.alive:
                agent.upkeep.wiring_changed(frozenset({port}))

    def restart_switch(self, agent: Agent) -> None:
        self.say(f"the switch restarts at {agent.name}")
        agent.switch.restart()
        self.tampered = True
        if agent.alive:
            agent.upkeep.switch_restarted()

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
        turns = list(self.turns_of(process).items())
        self.turn(process, *turns[number % len(turns)])

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
        said, act = acts[what]
        self.say(f"{process.name} will find after {points} points: {said}")
        process.plan(points, said, act)

    @contextlib.contextmanager
    def overlapping(
        self, processes: Sequence[Process], points: int | None, changed: str
    ) -> Iterator[None]:
        """Inside, after so many points of each agent, a port or a group is changed, and another
        worker of the agent has a turn."""
        agents = [each for each in processes if isinstance(each, Agent) and points is not None]
        for agent in agents:
            agent.overlap = points, functools.partial(self._overlap, agent, changed)
        yield
        for agent in agents:
            agent.overlap = None

    def _overlap(self, agent: Agent, changed: str) -> None:
        self.say(f"    at this point {short(changed)} is changed, for another worker:")
        if changed in GROUPS:
            self.put_rules(changed)
        else:
            self.readdress(changed)
        for server in self.servers:
            self.turn(server, "sends its casts", server.pool.run)
        for message in [each for each in self.bus.casts if each.target.server == agent.host]:
            self.bus.casts.remove(message)
            self.say(f"the cast {message} arrives")
            agent.hear(message)
        self.turn(agent, "asks the server", agent.ask, beside=True)
        self.turn(agent, "runs flows", agent.work, beside=True)

    def pass_time(self, seconds: float) -> None:
        self.say(f"{seconds:g} s pass")
        self.clock.pass_(seconds)

    def turn(
        self, process: Process, what: str, do: Callable[[], object], *, beside: bool = False
    ) -> bool:
        """One turn of a thread of a process; whether there was anything to do.

        In the middle of another turn the process may hold a lock that this one would wait for: it
        has none then, unless this is to run ``beside`` the other.
        """
        if not process.alive or (process in self._at_work and not beside):
            return False
        self.clock.pass_()
        # How many lines the story had: a turn without work is not worth one.
        place = len(self.story)
        self.story.append(f"{process.name}: {what}")
        self._at_work.append(process)
        try:
            worked = bool(do())
        except Crashed:
            worked = True
        finally:
            self._at_work.pop()
        if not worked and len(self.story) == place + 1:
            self.story.pop()
        return worked

    def turns_of(self, process: Process) -> Mapping[str, Callable[[], object]]:
        if isinstance(process, Server):
            return {"sends its casts": process.pool.run, "sweeps": process.sweep}
        assert isinstance(process, Agent)
        return {
            "sends a heartbeat": process.beat,
            "looks after the host": process.care,
            "asks the server": process.ask,
            "runs flows": process.work,
            "looks into what is suspected": process.audit,
            "sends reports": process.report,
        }

    def everyone(self, processes: Sequence[Process], *, but: str = "") -> bool:
        """One turn of each thread of these processes, and every cast is delivered; not of those
        that do what ``but`` is. Whether anyone had something to do."""
        worked = False
        for process in processes:
            for what, do in self.turns_of(process).items():
                if what != but:
                    worked |= self.turn(process, what, do)
        while self.bus.casts and but != CASTS:
            self.deliver_cast(-1 if but == ORDER else 0)
            worked = True
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

    def _note_taken(
        self, reports: Sequence[FlowReport], failures: Sequence[FlowReport], agent: Identity | None
    ) -> None:
        boot_id = agent.boot_id if agent else None
        self.failures |= {report.id for report in failures}
        for report in reports:
            self.say(f"    taken: {_told(report)}")
            self.delivered.append(Delivered(report, boot_id, self.made.get(report.id, -1)))
        self.checks.taken()

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
            for _ in range(5):
                self._finish(casts=casts)
                self.clock.pass_(2.0)
            self.checks.after_step()
            if not (wrong := self.checks.not_converged()):
                return
        raise AssertionError(f"has not converged: {'; '.join(wrong)}\n{self.story_text()}")

    def _finish(self, *, casts: bool) -> None:
        for _ in range(30):
            worked = self.everyone(self.processes, but="" if casts else CASTS)
            self.bus.casts.clear()
            if not worked:
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
