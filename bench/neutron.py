"""Inside Neutron: one as its guide installs it (openvswitch), or one with agent_flows."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from bench import floor
from bench.floor import Change, Wiring
from bench.runner import Figures
from bench.site import TICKS, Idle
from lab.cables import Cable, laid
from lab.model import ingress
from lab.neutron.configuration import Options, with_agent_flows
from lab.neutron.nova import PLUGGED
from lab.neutron.plugging import BRIDGE
from lab.neutron.stack import Neutron
from lab.process import Daemon, wait_until
from lab.switch import RULES_INGRESS

_HOST = "compute-1"
_FIRST_RULE = 4001
_GIVE_UP_SECONDS = 600
_POLL = 0.05
# The agent looks around every two seconds: a window holds two such rounds.
_WINDOW_SECONDS = 4.0
_QUIET_WINDOWS = 2
# Of a core; a launcher that records what the agent does uses a varying part of one itself.
_IDLE_SLACK = 0.02
_IDLE_SLACK_RECORDED = 0.3


class Cloud:
    """A Neutron with ports of one group, and a cable for each.

    ``agent_cpu_seconds`` is what the agent, its privsep helpers and the tools they run used until
    they were quiet.
    """

    def __init__(self, neutron: Neutron, ports: int, idle_slack: float) -> None:
        self._api, self._host, self._nova = neutron.api, neutron.host, neutron.nova
        self._rules = 0
        self._idle = Idle(
            lambda: cpu_of_session(self._host.agent),
            _WINDOW_SECONDS,
            _QUIET_WINDOWS,
            factor=1.5,
            slack=idle_slack,
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

    @contextlib.contextmanager
    def cabled(self) -> Iterator[None]:
        """The taps exist and are up, as Nova leaves them."""
        switch = self._host.switch
        with laid(switch, self.cables):
            switch.namespace.ip_batch([f"link set {cable.tap} up" for cable in self.cables])
            yield

    def plug(self) -> None:
        """Plug all ports and wait until they are ACTIVE."""
        self._host.plug(*self.cables)
        self._all("ACTIVE")

    def wire(self) -> tuple[Figures, Wiring]:
        """Plug all until they are ACTIVE; then unplug them again.

        ``event_seconds``: until Nova has the event of each, for which a boot waits.
        """
        switch = self._host.switch
        flows = floor.flows(switch)
        self._idle.wait(_GIVE_UP_SECONDS)
        before = cpu_of_session(self._host.agent)
        events = len(self._plugged())
        began = time.perf_counter()
        self.plug()
        active = time.perf_counter() - began
        wait_until(
            lambda: len(self._plugged()) >= events + len(self.cables),
            _GIVE_UP_SECONDS,
            "Nova has every event",
        )
        quiet_at, used = self._idle.wait(_GIVE_UP_SECONDS)
        figures = {
            "seconds": active,
            "event_seconds": max(self._plugged()) - began,
            "agent_cpu_seconds": used - before,
            "quiet_seconds": max(quiet_at - began, active),
        }
        change = Change(flows, floor.flows(switch))
        wiring = Wiring(self.cables, change, floor.tags(switch, self.cables))
        self.unplug()
        return figures, wiring

    def wait_until_idle(self) -> None:
        """Until the agent uses no more than it does at rest."""
        self._idle.wait(_GIVE_UP_SECONDS)

    def unplug(self) -> None:
        """Unplug all ports and wait until they are DOWN."""
        words = [word for cable in self.cables for word in ("--", "del-port", BRIDGE, cable.tap)]
        self._host.switch.vsctl(*words)
        self._all("DOWN")

    def refresh(self) -> tuple[Figures, Change]:
        """Add a rule, until its flows are there for all ports, which are plugged."""
        port, self._rules = _FIRST_RULE + self._rules, self._rules + 1
        self._idle.wait(_GIVE_UP_SECONDS)
        flows = floor.flows(self._host.switch)
        before = cpu_of_session(self._host.agent)
        rule = ingress(protocol="tcp", port=port)
        began = time.perf_counter()
        self._api.create("security_group_rules", security_group_id=self._group, **rule)
        answered = time.perf_counter() - began

        def everywhere() -> bool:
            found = self._host.flows(RULES_INGRESS, f"tcp,tp_dst={port}")
            ports = {match[1] for flow in found if (match := re.search(r"reg5=(\w+)", flow))}
            return len(ports) >= len(self.cables)

        wait_until(everywhere, _GIVE_UP_SECONDS, "the rule is in force", poll=_POLL)
        seconds = time.perf_counter() - began
        _, used = self._idle.wait(_GIVE_UP_SECONDS)
        figures = {
            "seconds": seconds,
            "answered_seconds": answered,
            "agent_cpu_seconds": used - before,
        }
        return figures, Change(flows, floor.flows(self._host.switch))

    def _plugged(self) -> list[float]:
        """When Nova received that a port is plugged in; the clock is that of ``perf_counter``."""
        ids = {cable.port_id for cable in self.cables}
        return [each.at for each in self._nova.all(PLUGGED) if each.port_id in ids]

    def _all(self, status: str) -> None:
        self._api.wait_ports([cable.port_id for cable in self.cables], status, _GIVE_UP_SECONDS)


@contextlib.contextmanager
def cloud(
    name: Literal["plain", "agent_flows"], ports: int, launcher: tuple[str, ...] = ()
) -> Iterator[Cloud]:
    """Its agent runs until the block is left; ``launcher`` runs the agent."""
    options = Options() if name == "plain" else with_agent_flows(_HOST)
    hosts = {
        host: dataclasses.replace(agent, launcher=launcher) for host, agent in options.hosts.items()
    }
    with Neutron(dataclasses.replace(options, hosts=hosts, nova=True)) as neutron:
        made = Cloud(neutron, ports, _IDLE_SLACK_RECORDED if launcher else _IDLE_SLACK)
        with made.cabled():
            yield made


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
