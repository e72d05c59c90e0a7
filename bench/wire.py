"""Ports plugged at once: from ``ovs-vsctl`` to all ACTIVE; and the bare tools with the same."""

import argparse
import contextlib
import time
from collections.abc import Iterator

from bench import floor, neutron, ovn
from bench.floor import Change, Wiring
from bench.runner import Bench, Command, Contender, Figures
from bench.site import (
    Bus,
    Idle,
    cpu_seconds,
    network_and_group,
    poll_seconds,
    site,
    wait_active,
    wait_none,
)
from lab.cables import cables, laid
from lab.cloud import Cloud
from lab.vm import plug

_GIVE_UP_SECONDS = 300
_LEAST_FLOWS_A_PORT = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bus", choices=["embedded", "rabbit"], default="embedded")
    parser.add_argument("--ovn", action="store_true", help="OVN with the same ports and ACLs")
    parser.add_argument(
        "--neutron", action="store_true", help="agent_flows inside Neutron, beside plain Neutron"
    )


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """Every round is on a new switch, where one port was wired before. Inside Neutron all rounds
    are on one: the ports are unplugged after a round."""
    with contextlib.ExitStack() as stack:
        last: list[Wiring] = []
        peers: dict[str, Contender] = {}
        ours: neutron.Cloud | None = None
        if options.neutron:
            ours = stack.enter_context(neutron.cloud("agent_flows", options.ports))
            plain = stack.enter_context(neutron.cloud("plain", options.ports))
            peers["neutron"] = lambda: plain.wire()[0]
        if options.ovn:
            peers["ovn"] = lambda: ovn.wire(options.ports)

        def measure() -> Figures:
            figures, wiring = ours.wire() if ours else wire(options.ports, options.bus)
            last[:] = [wiring]
            return figures

        yield Bench(measure, lambda: {"seconds": floor.of_wiring(last[0])}, peers)


COMMAND = Command(
    "wire", "ports plugged at once, until all are ACTIVE", prepare, arguments, ports=100
)


def wire(ports: int, bus: Bus) -> tuple[Figures, Wiring]:
    """From one ovs-vsctl call that plugs all ports to all of them ACTIVE in the API.

    Raises ValueError if there are too few flows for the figures to mean anything.
    """
    first, *lines = cables(ports + 1)
    with site("bench-wire", bus) as here, laid(here.switch, [first, *lines]):
        agent = here.all_in_one if bus == "embedded" else here.agent
        idle = Idle(lambda: cpu_seconds(agent.pid))
        cloud = Cloud(here.api, here.host)
        network, group = network_and_group(cloud)
        # It pays for what is loaded and made once.
        cloud.port(first, network, [group])
        plug(here.switch, [first])
        wait_none(here.api, _GIVE_UP_SECONDS, 0.1, status="DOWN")
        for cable in lines:
            cloud.port(cable, network, [group])
        idle.wait()
        before = floor.flows(here.switch)
        began = time.perf_counter()
        plug(here.switch, lines)
        wait_active(here, _GIVE_UP_SECONDS, poll_seconds(ports))
        seconds = time.perf_counter() - began
        if (active := len(here.api.find("ports", status="ACTIVE", fields="id"))) != ports + 1:
            raise ValueError(f"{active - 1} ports are ACTIVE, {ports} were plugged")
        change = Change(before, floor.flows(here.switch))
        if change.number < _LEAST_FLOWS_A_PORT * ports:
            raise ValueError(f"only {change.number} flows for {ports} ports")
        figures = {"seconds": seconds, "agent_rss_mib": here.memory_mib(agent)}
        return figures, Wiring(lines, change, floor.tags(here.switch, lines))
