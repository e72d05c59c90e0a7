"""What an agent, or the all-in-one, costs that has many wired ports and nothing to do."""

import dataclasses
import time
from collections.abc import Callable

from bench.cables import cables, laid
from bench.site import Bus, Idle, cpu_of_children, cpu_seconds, network_and_group, site
from lab.cloud import Cloud
from lab.product import Site
from lab.vm import plug

_GIVE_UP_SECONDS = 300
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class IdleFigures:
    """CPU in percent of one core over ``seconds``; the process' resident memory in MiB.

    The process is the agent, or server and agent in one. Its children are the tools that it runs:
    those that end meanwhile and those that live.
    """

    ports: int
    seconds: float
    cpu_percent: float
    children_cpu_percent: float
    memory_mib: float


def measure(ports: int, bus: Bus, seconds: float, log: Callable[[str], None]) -> IdleFigures:
    """Wire ``ports`` ports, wait until the agent is idle, then watch it: over RabbitMQ, or in one
    process with the server."""
    lines = cables(ports)
    with site("bench-idle", bus) as here, laid(here.switch, lines):
        daemon = here.all_in_one if bus == "embedded" else here.agent
        agent = daemon.pid
        idle = Idle(lambda: cpu_seconds(agent))
        cloud = Cloud(here.api, here.host)
        network, group = network_and_group(cloud)
        for cable in lines:
            cloud.port(cable, network, [group])
        plug(here.switch, lines)
        _wait_all_active(here)
        idle.wait()
        log(f"{ports} ports are ACTIVE, the agent has nothing to do")
        began, own, children = time.perf_counter(), cpu_seconds(agent), cpu_of_children(agent)
        time.sleep(seconds)
        own, children = cpu_seconds(agent) - own, cpu_of_children(agent) - children
        passed = time.perf_counter() - began
        figures = IdleFigures(
            ports=ports,
            seconds=round(passed, 1),
            cpu_percent=round(100 * own / passed, 2),
            children_cpu_percent=round(100 * children / passed, 2),
            memory_mib=round(here.memory_mib(daemon), 1),
        )
    log(
        f"over {figures.seconds} s it used {figures.cpu_percent} % of a core, "
        f"its children {figures.children_cpu_percent} %; it has {figures.memory_mib} MiB"
    )
    return figures


def _wait_all_active(here: Site) -> None:
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while here.api.find("ports", status="DOWN", limit=1, fields="id"):
        if time.monotonic() > give_up:
            raise TimeoutError("not all ports are ACTIVE")
        time.sleep(_POLL_SECONDS)
