"""A rule added to the group of many local ports: from the request to in force on all of them."""

import argparse
import contextlib
import time
from collections.abc import Iterator, Mapping

from bench import floor, neutron, ovn, wire
from bench.floor import Change
from bench.runner import Bench, Command, Contender, Figures
from bench.site import (
    Bus,
    Idle,
    cpu_seconds,
    network_and_group,
    rules,
    site,
    wait_none,
    wait_realised,
)
from lab.cables import cables, laid
from lab.cloud import Cloud
from lab.model import ingress
from lab.product import Site
from lab.vm import plug

_GIVE_UP_SECONDS = 300
_POLL_SECONDS = 0.002
_FIRST_RULE = 4001


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """All ports are wired; every round adds another rule."""
    with contextlib.ExitStack() as stack:
        last: list[Change] = []
        peers: dict[str, Contender] = {}
        ours: _Group | neutron.Cloud
        if options.neutron:
            ours = stack.enter_context(neutron.cloud("agent_flows", options.ports))
            plain = stack.enter_context(neutron.cloud("plain", options.ports))
            plain.plug()
            peers["neutron"] = lambda: plain.refresh()[0]
            ours.plug()
        else:
            ours = stack.enter_context(_group(options.ports, options.bus))
        if options.ovn:
            theirs = stack.enter_context(ovn.group(options.ports))
            peers["ovn"] = theirs.refresh
        bare = stack.enter_context(floor.bare())

        def measure() -> Figures:
            figures, change = ours.refresh()
            last[:] = [change]
            return {**figures, "flows": change.number}

        yield Bench(measure, lambda: {"seconds": bare.seconds(last[0])}, peers)


COMMAND = Command(
    "refresh", "a rule added to the group of many ports", prepare, wire.arguments, ports=200
)


class _Group:
    """Wired ports of one group."""

    def __init__(self, here: Site, idle: Idle, group: str) -> None:
        self._here, self._idle, self._id = here, idle, group
        self._added: list[Mapping[str, object]] = []

    def refresh(self) -> tuple[Figures, Change]:
        """From the PUT of the group to the proof, in the API, of all its ports.

        Raises ValueError if no flow for the rule is in the switch then.
        """
        self._idle.wait()
        before = floor.flows(self._here.switch)
        # Ports side by side may become one flow.
        port = _FIRST_RULE + 2 * len(self._added)
        self._added.append(ingress(protocol="tcp", port=port))
        began = time.perf_counter()
        body = {"name": "bench", "security_group_rules": [*rules(self._id), *self._added]}
        self._here.api.put("security-groups", self._id, body)
        answered = time.perf_counter() - began
        wait_realised(self._here.api, self._here.database, _GIVE_UP_SECONDS, _POLL_SECONDS)
        seconds = time.perf_counter() - began
        after = floor.flows(self._here.switch)
        if not any(f"tp_dst={port}" in flow for flow in after):
            raise ValueError(f"no flow for port {port}")
        return {"seconds": seconds, "answered_seconds": answered}, Change(before, after)


@contextlib.contextmanager
def _group(ports: int, bus: Bus) -> Iterator[_Group]:
    lines = cables(ports)
    with site("bench-refresh", bus) as here, laid(here.switch, lines):
        agent = here.all_in_one if bus == "embedded" else here.agent
        idle = Idle(lambda: cpu_seconds(agent.pid))
        cloud = Cloud(here.api, here.host)
        network, group = network_and_group(cloud)
        for cable in lines:
            cloud.port(cable, network, [group])
        plug(here.switch, lines)
        wait_none(here.api, _GIVE_UP_SECONDS, 0.1, status="DOWN")
        yield _Group(here, idle, group)
