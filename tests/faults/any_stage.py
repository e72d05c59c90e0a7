"""Ports, packets all the while, and what must hold, wherever the product runs."""

import abc
import contextlib
import datetime
import http.client
import json
import re
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.attack import Attack
from lab.lifetime import Lifetime
from lab.model import egress_to_anywhere, ingress
from lab.process import CommandFailed, Daemon, wait_until
from lab.rest import Body, Refused
from lab.switch import Switch
from lab.vm import Plugged, Vm, plug
from tests.faults.held_flows import pattern
from tests.faults.records import Records

BRIDGE = "br-int"
WEB = (ingress(protocol="icmp"), ingress(protocol="tcp", port=80), *egress_to_anywhere())
"""The rules of the group of most of the ports."""
SECONDS = 120
"""How long everything may take that has to happen, on a busy machine."""
_HEARTBEATS = 2
_PING_SECONDS = 0.05
_KNOCK_SECONDS = 0.01
# Of table 0 the tool does not print the number.
_TABLE = re.compile(r"\btable=(\d+)")
NO_ANSWER = (OSError, http.client.HTTPException, Refused)


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
class Place:
    """The bridge of a host, and the interfaces that may be plugged there, by port."""

    host: str
    switch: Switch
    bridge: str
    ports: Mapping[str, Plugged]
    firewall: str = ""
    """Who writes the flows: of the ports of one group they differ by it."""


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


class AnyStage(Lifetime):
    """``web`` may be pinged by everyone, ``db`` serves ``web`` only.

    What starts it sets ``switch``, of the host that is broken, ``records`` and the five VMs.
    """

    switch: Switch
    records: Records
    client: Vm
    server_vm: Vm
    attacker: Vm
    victim: Vm
    other: Vm

    def __init__(self, lasting: float = 0.0) -> None:
        super().__init__()
        self.lasting = lasting
        """Seconds that an outage goes on after it was noticed."""
        self.broken = False
        """Whether the last fault was not survived, so that the next one would say nothing."""
        self.plugged: set[str] = set()
        self._pattern: dict[tuple[str, str], frozenset[str]] = {}
        self._roles: dict[str, str] = {}
        """The group of each port."""

    # What differs between them.

    @abc.abstractmethod
    def places(self) -> Sequence[Place]:
        """Every bridge with ports."""

    @abc.abstractmethod
    def find(self, kind: str, **filters: object) -> list[Body]:
        """Resources in the API. Raises one of ``NO_ANSWER``."""

    @abc.abstractmethod
    def agents(self) -> list[Body]:
        """The agents of these hosts as the API shows them, that of the first host first. Raises
        one of ``NO_ANSWER``."""

    @abc.abstractmethod
    def hang_up(self) -> None:
        """Close the connection to the API, on which an answer may still come."""

    @abc.abstractmethod
    def daemons(self) -> Sequence[Daemon]:
        """Those whose logs tell what went wrong."""

    # Ports.

    def plug(self, ports: Collection[Plugged]) -> None:
        plug(self.switch, ports, BRIDGE)
        self.plugged |= {port.port_id for port in ports}

    def unplug(self, ports: Collection[Plugged]) -> None:
        words = [word for p in ports for word in ("--", "--if-exists", "del-port", BRIDGE, p.tap)]
        self.switch.vsctl(*words)
        self.plugged -= {port.port_id for port in ports}

    def rewire(self, ports: Collection[Plugged]) -> None:
        """Unplug them, wait until the API shows it, and plug them again."""
        self.unplug(ports)
        ids = {port.port_id for port in ports}
        # Inside Neutron the status follows a moment later.
        self._until(
            lambda: {
                (port["status"], port["sync_state"]) for port in self.shown() if port["id"] in ids
            } == {("DOWN", "ABSENT")},
            "the ports are DOWN and ABSENT",
        )  # fmt: skip
        self.plug(ports)

    def replug(self, ports: Collection[Plugged]) -> None:
        """Unplug them and plug them again at once; the agent may notice or not."""
        self.unplug(ports)
        self.plug(ports)

    # Faults, and what shows them.

    def until_unknown(self, *, or_failed: bool = False) -> None:
        """Until the API claims nothing of any plugged port of the first host.

        ``or_failed``: a port whose flow runs meanwhile, and fails, is OUT_OF_SYNC.
        """
        there = self.plugged & self.places()[0].ports.keys()
        states = {"UNKNOWN", "OUT_OF_SYNC"} if or_failed else {"UNKNOWN"}
        self._until(
            lambda: {p["sync_state"] for p in self.shown() if p["id"] in there} <= states,
            f"all ports are {' or '.join(sorted(states))}",
        )
        time.sleep(self.lasting)

    def until_delivered(self) -> None:
        """Until the server has taken, or refused, every report that was stored so far."""
        made = self.records.made().keys()
        self._until(lambda: not made & self.records.unsent(), "all reports are delivered")

    def until_trouble(self, source: str) -> None:
        """Until the heartbeats of the first host's agent name a trouble of ``source``."""
        self._until(
            lambda: source in self.agent().get("state", {}).get("troubles", {}),
            f"the trouble {source}",
        )
        time.sleep(self.lasting)

    def _until(self, check: Callable[[], bool], what: str) -> None:
        wait_until(check, SECONDS, what, poll=0.1)

    def last_words(self) -> str:
        """The ends of the logs."""
        return "\n".join(f"-- {each.name}:\n{each.last_words(40)}" for each in self.daemons())

    # What is true now.

    def shown(self) -> list[Body]:
        return self.find("ports")

    def agent(self) -> Body:
        """The first host's agent as the API shows it; empty if the API does not answer."""
        return next(iter(self._agents()), {})

    def _agents(self) -> list[Body]:
        """None if the API does not answer."""
        try:
            return self.agents()
        except NO_ANSWER:
            self.hang_up()
            return []

    def claims(self, since: datetime.datetime) -> list[str]:
        """What the API shows that is not yet as it should be; empty: everything has converged.

        A state that an agent reported before ``since`` counts for nothing.
        """
        try:
            shown, agents = self.shown(), self.agents()
        except NO_ANSWER as exc:
            self.hang_up()
            return [f"the API does not answer: {exc}"]
        wrong = [
            f"port {port['id']} is {port['status']} {port['sync_state']}"
            for port in shown
            if port["id"] in self.plugged
            and (port["status"], port["sync_state"]) != ("ACTIVE", "IN_SYNC")
        ]
        for agent in agents:
            wrong += _unsettled(agent, since)
        return wrong if agents else [*wrong, "there is no agent"]

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
        """Until the agents have reported their state twice more: what they are about to do is
        done."""
        seen = defaultdict[str, set[str]](set)

        def enough() -> bool:
            for agent in self._agents():
                seen[agent["host"]].add(agent["heartbeat_at"])
            return bool(seen) and all(len(each) > _HEARTBEATS for each in seen.values())

        wait_until(enough, SECONDS, "the agents' heartbeats", poll=0.1)

    # The switch, compared with the database.

    def unproven(self) -> list[str]:
        """Every port that the database has as ACTIVE, and the switch of its host does not hold as
        it held it when packets had proven it."""
        active = defaultdict[str, set[str]](set)
        for port in self.shown():
            if port["status"] == "ACTIVE":
                active[port["binding:host_id"]].add(port["id"])
        wrong: list[str] = []
        for place in self.places():
            ports = [port for id_, port in place.ports.items() if id_ in active[place.host]]
            wrong += self._not_held(ports, place)
        return wrong

    def _not_held(self, ports: Collection[Plugged], place: Place) -> list[str]:
        if not ports:
            return []
        try:
            flows = place.switch.flows(place.bridge)
            ofports = _ofports(place.switch)
        except (CommandFailed, subprocess.TimeoutExpired, ValueError) as exc:
            return [
                f"port {port.port_id} is ACTIVE, and the switch cannot be read: {exc}"
                for port in ports
            ]
        wrong: list[str] = []
        for port in ports:
            if not self._pattern:
                continue
            ofport, tag = ofports.get(port.tap, (0, 0))
            if ofport <= 0:
                wrong.append(f"port {port.port_id} is ACTIVE without an interface")
                continue
            found = pattern(port, ofport, tag, flows)
            wanted = self._pattern[place.firewall, self._roles[port.port_id]]
            if found != wanted:
                wrong.append(
                    f"port {port.port_id} is ACTIVE; missing: {sorted(wanted - found)[:3]}, "
                    f"surplus: {sorted(found - wanted)[:3]}"
                )
        return wrong

    def learn(self) -> None:
        """Remember what the switch holds of a port, once packets have shown that it is right."""
        self.check_packets()
        for place in self.places():
            flows, ofports = place.switch.flows(place.bridge), _ofports(place.switch)
            for port in place.ports.values():
                held = pattern(port, *ofports[port.tap], flows)
                role = place.firewall, self._roles[port.port_id]
                assert held == self._pattern.setdefault(role, held), (port.port_id, sorted(held))
                assert len(held) > 5, sorted(held)

    def flows_by_table(self) -> Counter[int]:
        """How many flows each table of the first host has."""
        return Counter(
            int(match[1]) if (match := _TABLE.search(flow)) else 0
            for flow in self.switch.flows(BRIDGE)
        )

    def are_open(self, ports: Collection[Plugged]) -> bool:
        """Whether the switch of the first host holds all that these ports need."""
        return not self._not_held(ports, self.places()[0])

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
        failed = self.find("tasks", task_state="FAILED")
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


def _unsettled(agent: Body, since: datetime.datetime) -> Iterator[str]:
    host, state, beat = agent["host"], agent.get("state") or {}, agent.get("heartbeat_at")
    if not agent.get("alive") or not beat or datetime.datetime.fromisoformat(beat) < since:
        yield f"the agent of {host} is not alive"
    for key in ("waiting", "unreported", "trouble"):
        if state.get(key):
            yield f"{host}: {key}: {state[key]}"
    if not (agent.get("desired") or {}).get("in_step"):
        yield f"the agent of {host} does not have all that is desired"


def _ofports(switch: Switch) -> Mapping[str, tuple[int, int]]:
    """The ofport and the tag of each interface."""

    def rows(table: str, columns: str) -> list[Any]:
        text = switch.vsctl("--format=json", f"--columns={columns}", "list", table)
        return list(json.loads(text)["data"])

    tags = {name: tag for name, tag in rows("Port", "name,tag") if isinstance(tag, int)}
    return {
        name: (ofport, tags.get(name, 0))
        for name, ofport in rows("Interface", "name,ofport")
        if isinstance(ofport, int)
    }


@contextlib.contextmanager
def small_disk(mount: Path, mib: int) -> Iterator[None]:
    """A disk of ``mib`` MiB at the directory ``mount``, with its owner."""
    owner = mount.stat()
    options = f"size={mib}m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
