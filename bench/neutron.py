"""Two Neutrons side by side: one as its guide installs it (openvswitch), one with agent_flows."""

import contextlib
import dataclasses
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.cables import Cable, laid
from bench.site import TICKS, Idle
from lab.model import ingress
from lab.neutron.configuration import Options, with_agent_flows
from lab.neutron.host import BRIDGE
from lab.neutron.stack import Neutron
from lab.process import Daemon, wait_until
from lab.switch import RULES_INGRESS

_FIRST_RULE = 4001
_GIVE_UP_SECONDS = 600
_POLL = 0.05
# The agent looks around every two seconds: a window holds two such rounds.
_WINDOW_SECONDS = 4.0
_QUIET_WINDOWS = 2


@dataclasses.dataclass(frozen=True)
class Round:
    """Seconds, but the load averages.

    ``cpu`` is what the agent, its privsep helpers and the tools they run used
    from the plug until they were quiet; ``rule`` runs from the API's request,
    ``rule_answered`` is when it answered.
    """

    active: float
    quiet: float
    cpu: float
    rule: float
    rule_answered: float
    rule_cpu: float
    load_before: float
    load_after: float


@dataclasses.dataclass(frozen=True)
class Side:
    """Medians; ``idle`` is the share of a core the agent's side uses while nothing happens."""

    active_seconds: float
    agent_cpu_seconds: float
    quiet_seconds: float
    rule_seconds: float
    rule_answered_seconds: float
    rule_agent_cpu_seconds: float
    idle: float
    load: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class NeutronFigures:
    """Ratios below 1 are in favour of agent_flows."""

    ports: int
    rounds: int
    plain: Side
    agent_flows: Side
    active_ratio: float
    cpu_ratio: float
    rule_ratio: float
    rule_cpu_ratio: float


class _Cloud:
    """A Neutron with ports of one group, and a cable for each."""

    def __init__(self, name: str, neutron: Neutron, ports: int) -> None:
        self.name = name
        self._neutron = neutron
        self._api, self._host = neutron.api, neutron.host
        self._idle = Idle(
            lambda: cpu_of_session(self._host.agent),
            _WINDOW_SECONDS,
            _QUIET_WINDOWS,
            factor=1.5,
            slack=0.02,
        )
        network = self._api.network("10.9.0.0/16")["id"]
        rules = [ingress(protocol="tcp", port=80), ingress(protocol="udp", port=53)]
        self._group = self._api.group("bench", [*rules, ingress(protocol="icmp")])
        for ethertype in ("IPv4", "IPv6"):
            among = ingress(ethertype=ethertype, remote_group_id=self._group)
            self._api.create("security_group_rules", security_group_id=self._group, **among)
        self.cables = [
            Cable(port["id"], port["mac_address"], port["fixed_ips"][0]["ip_address"])
            for port in self._api.ports(ports, network, [self._group], self._host.name)
        ]

    @property
    def idle(self) -> float:
        return self._idle.rate

    @contextlib.contextmanager
    def cabled(self) -> Iterator[None]:
        """The taps exist and are up, as Nova leaves them."""
        switch = self._host.switch
        with laid(switch, self.cables):
            switch.namespace.ip_batch([f"link set {cable.tap} up" for cable in self.cables])
            yield

    def round(self, number: int) -> Round:
        """Plug all, add a rule, unplug all."""
        self._idle.wait(_GIVE_UP_SECONDS)
        load = os.getloadavg()[0]
        before = cpu_of_session(self._host.agent)
        began = time.perf_counter()
        self._host.plug(*self.cables)
        self._all("ACTIVE")
        active = time.perf_counter() - began
        quiet_at, used = self._idle.wait(_GIVE_UP_SECONDS)
        rule = self._rule(_FIRST_RULE + number)
        words = [word for cable in self.cables for word in ("--", "del-port", BRIDGE, cable.tap)]
        self._host.switch.vsctl(*words)
        self._all("DOWN")
        seconds, answered, rule_cpu = rule
        return Round(
            active=active,
            quiet=max(quiet_at - began, active),
            cpu=used - before,
            rule=seconds,
            rule_answered=answered,
            rule_cpu=rule_cpu,
            load_before=load,
            load_after=os.getloadavg()[0],
        )

    def _rule(self, port: int) -> tuple[float, float, float]:
        """Seconds until a new rule's flows are there for all ports, until the API answered, and
        CPU of the agent's side until it is quiet."""
        before = cpu_of_session(self._host.agent)
        rule = ingress(protocol="tcp", port=port)
        began = time.perf_counter()
        self._api.create("security_group_rules", security_group_id=self._group, **rule)
        answered = time.perf_counter() - began

        def everywhere() -> bool:
            flows = self._host.flows(RULES_INGRESS, f"tcp,tp_dst={port}")
            found = {match[1] for flow in flows if (match := re.search(r"reg5=(\w+)", flow))}
            return len(found) >= len(self.cables)

        wait_until(everywhere, _GIVE_UP_SECONDS, "the rule is in force", poll=_POLL)
        seconds = time.perf_counter() - began
        _, used = self._idle.wait(_GIVE_UP_SECONDS)
        return seconds, answered, used - before

    def _all(self, status: str) -> None:
        self._api.wait_ports([cable.port_id for cable in self.cables], status, _GIVE_UP_SECONDS)


def cpu_of_session(daemon: Daemon) -> float:
    """CPU seconds of a daemon's session: of what runs, and of what it has waited for (proc(5),
    ``/proc/<pid>/stat``). Neutron's privsep helpers stay in it."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended; its parent counts it.
        if int(fields[3]) == daemon.pid:
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def measure(ports: int, rounds: int, log: Callable[[str], None]) -> NeutronFigures:
    """Both run all the time, and take turns; each round plugs all ports again."""
    host = "compute-1"
    with contextlib.ExitStack() as stack:
        clouds = []
        for name, options in (("plain", Options()), ("agent_flows", with_agent_flows(host))):
            log(f"starting Neutron: {name}")
            neutron = stack.enter_context(Neutron(options))
            clouds.append(_Cloud(name, neutron, ports))
            stack.enter_context(clouds[-1].cabled())
        runs: dict[str, list[Round]] = {cloud.name: [] for cloud in clouds}
        for number in range(rounds):
            for cloud in clouds:
                runs[cloud.name].append(cloud.round(number))
                log(f"round {number + 1}, {cloud.name}: {_in_words(runs[cloud.name][-1])}")
        plain, ours = (_side(runs[cloud.name], cloud.idle) for cloud in clouds)
    figures = NeutronFigures(
        ports=ports,
        rounds=rounds,
        plain=plain,
        agent_flows=ours,
        active_ratio=_ratio(ours.active_seconds, plain.active_seconds),
        cpu_ratio=_ratio(ours.agent_cpu_seconds, plain.agent_cpu_seconds),
        rule_ratio=_ratio(ours.rule_seconds, plain.rule_seconds),
        rule_cpu_ratio=_ratio(ours.rule_agent_cpu_seconds, plain.rule_agent_cpu_seconds),
    )
    log(
        f"{ports} ports, agent_flows to plain Neutron: ACTIVE {ours.active_seconds} to "
        f"{plain.active_seconds} s ({figures.active_ratio}), CPU of the agent's side "
        f"{ours.agent_cpu_seconds} to {plain.agent_cpu_seconds} s ({figures.cpu_ratio}), a rule "
        f"{ours.rule_seconds} to {plain.rule_seconds} s ({figures.rule_ratio})"
    )
    return figures


def _in_words(run: Round) -> str:
    return (
        f"all ACTIVE after {run.active:.2f} s, quiet after {run.quiet:.1f} s and {run.cpu:.2f} s "
        f"of CPU; a rule in force after {run.rule:.2f} s (the API answered after "
        f"{run.rule_answered:.2f} s), {run.rule_cpu:.2f} s of CPU; load average "
        f"{run.load_before:.1f} to {run.load_after:.1f}"
    )


def _side(runs: Sequence[Round], idle: float) -> Side:
    def median(of: Callable[[Round], float]) -> float:
        return round(statistics.median(map(of, runs)), 2)

    return Side(
        active_seconds=median(lambda run: run.active),
        agent_cpu_seconds=median(lambda run: run.cpu),
        quiet_seconds=median(lambda run: run.quiet),
        rule_seconds=median(lambda run: run.rule),
        rule_answered_seconds=median(lambda run: run.rule_answered),
        rule_agent_cpu_seconds=median(lambda run: run.rule_cpu),
        idle=round(idle, 3),
        load=(median(lambda run: run.load_before), median(lambda run: run.load_after)),
    )


def _ratio(ours: float, plain: float) -> float:
    return round(ours / plain, 3) if plain else 0.0
