"""How long one port takes on an idle agent: from ``ovs-vsctl add-port`` to ACTIVE in the API."""

import dataclasses
import statistics
import time
from collections.abc import Callable

from bench.cables import Cable, cables, laid
from bench.site import Idle, cpu_seconds, network_and_group, site
from lab.cloud import Cloud
from lab.product import Site
from lab.vm import plug

_GIVE_UP_SECONDS = 30
# How exactly the moment of becoming ACTIVE is seen.
_POLL_SECONDS = 0.002


@dataclasses.dataclass(frozen=True)
class PortFigures:
    """Seconds, over ``times`` ports plugged one after the other."""

    times: int
    median_seconds: float
    best_seconds: float
    worst_seconds: float


def measure(times: int, log: Callable[[str], None]) -> PortFigures:
    """Plug ``times`` ports one by one, each on an idle agent."""
    # The first also pays for what is loaded and made once, and is not counted.
    lines = cables(times + 1)
    with site("bench-port") as here, laid(here.switch, lines):
        idle = Idle(lambda: cpu_seconds(here.all_in_one.pid))
        cloud = Cloud(here.api, here.host)
        network, group = network_and_group(cloud)
        for cable in lines:
            cloud.port(cable, network, [group])
        seconds = [_one(here, idle, cable) for cable in lines][1:]
    for number, each in enumerate(seconds, 1):
        log(f"port {number}: {each * 1000:.0f} ms from ovs-vsctl to ACTIVE")
    figures = PortFigures(
        times=times,
        median_seconds=round(statistics.median(seconds), 4),
        best_seconds=round(min(seconds), 4),
        worst_seconds=round(max(seconds), 4),
    )
    log(f"median {figures.median_seconds * 1000:.0f} ms")
    return figures


def _one(site: Site, idle: Idle, cable: Cable) -> float:
    idle.wait()
    started = time.perf_counter()
    plug(site.switch, [cable])
    while site.api.port(cable.port_id)["status"] != "ACTIVE":
        if time.perf_counter() - started > _GIVE_UP_SECONDS:
            site.api.wait_port(cable.port_id, 0, status="ACTIVE")
        time.sleep(_POLL_SECONDS)
    return time.perf_counter() - started
