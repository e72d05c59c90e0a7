"""Many ports at once: agent_flows, and the bare tools with the same ports, tags and flows."""

import dataclasses
import statistics
import time
from collections.abc import Callable

from bench.cables import Cable, cables, laid
from bench.site import Bus, Idle, cpu_seconds, network_and_group, site
from lab.cloud import Cloud
from lab.product import Site
from lab.switch import Switch
from lab.vm import plug

BRIDGE = "br-int"
_GIVE_UP_SECONDS = 300
_POLL_SECONDS = 0.025
_LEAST_FLOWS_A_PORT = 40


@dataclasses.dataclass(frozen=True)
class WireFigures:
    """Medians in seconds; the agent's largest resident memory in MiB.

    Embedded, the agent's process is the server's too.
    """

    ports: int
    seconds: float
    floor_seconds: float
    ratio: float
    agent_rss_mib: float


@dataclasses.dataclass(frozen=True)
class Wired:
    """What a run of the product left in the switch."""

    seconds: float
    rss_mib: float
    flows: list[str]
    base_flows: int
    tags: dict[str, str]


def measure(ports: int, bus: Bus, rounds: int, log: Callable[[str], None]) -> WireFigures:
    """Run product and floor in turn, ``rounds`` times each, every time on a new switch.

    Raises ValueError if the flows are too few for the figures to mean anything.
    """
    runs: list[Wired] = []
    floors: list[float] = []
    for number in range(1, rounds + 1):
        lines = cables(ports)
        wired = product(lines, bus)
        each = (len(wired.flows) - wired.base_flows) / ports
        if each < _LEAST_FLOWS_A_PORT:
            raise ValueError(f"only {each:.1f} flows a port, {_LEAST_FLOWS_A_PORT} are expected")
        runs.append(wired)
        floors.append(floor(lines, wired))
        log(
            f"round {number}: {ports} ports, {each:.0f} flows each: agent_flows "
            f"{wired.seconds:.3f} s, bare tools {floors[-1]:.3f} s, agent {wired.rss_mib:.0f} MiB"
        )
    seconds = statistics.median(run.seconds for run in runs)
    bare = statistics.median(floors)
    figures = WireFigures(
        ports=ports,
        seconds=round(seconds, 3),
        floor_seconds=round(bare, 3),
        ratio=round(seconds / bare, 2),
        agent_rss_mib=round(max(run.rss_mib for run in runs), 1),
    )
    log(
        f"median: agent_flows {figures.seconds:.3f} s from ovs-vsctl to all ACTIVE, "
        f"bare tools {figures.floor_seconds:.3f} s, ratio {figures.ratio:.2f}"
    )
    return figures


def product(lines: list[Cable], bus: Bus) -> Wired:
    """From one ovs-vsctl call that plugs all ports to all of them ACTIVE in the API."""
    with site("bench-wire", bus) as here, laid(here.switch, lines):
        agent = here.all_in_one if bus == "embedded" else here.agent
        idle = Idle(lambda: cpu_seconds(agent.pid))
        cloud = Cloud(here.api, here.host)
        network, group = network_and_group(cloud)
        for cable in lines:
            cloud.port(cable, network, [group])
        idle.wait()
        base_flows = len(here.switch.flows(BRIDGE))
        started = time.perf_counter()
        plug(here.switch, lines, BRIDGE)
        _wait_all_active(here, len(lines), started)
        seconds = time.perf_counter() - started
        return Wired(
            seconds=seconds,
            rss_mib=here.memory_mib(agent),
            flows=here.switch.flows(BRIDGE),
            base_flows=base_flows,
            tags=_tags(here.switch, lines),
        )


def _tags(switch: Switch, lines: list[Cable]) -> dict[str, str]:
    words = [word for cable in lines for word in ("--", "get", "Port", cable.tap, "tag")]
    return dict(zip((cable.tap for cable in lines), switch.vsctl(*words).split(), strict=True))


def _wait_all_active(site: Site, count: int, started: float) -> None:
    # One row shows whether any is left; a list of all ports would cost the server time.
    while site.api.find("ports", status="DOWN", limit=1, fields="id"):
        if time.perf_counter() - started > _GIVE_UP_SECONDS:
            raise TimeoutError(f"not all of {count} ports are ACTIVE")
        time.sleep(_POLL_SECONDS)
    if (active := len(site.api.find("ports", status="ACTIVE", fields="id"))) != count:
        raise ValueError(f"{active} ports are ACTIVE, {count} were plugged")


def floor(lines: list[Cable], wired: Wired) -> float:
    """What ovs-vsctl and ovs-ofctl need for the same ports, tags and flows."""
    with Switch("bench-floor") as switch, laid(switch, lines):
        switch.add_bridge(BRIDGE)
        bundle = "\n".join(wired.flows) + "\n"
        tag_words = [
            word
            for tap, tag in wired.tags.items()
            for word in ("--", "set", "Port", tap, f"tag={tag}")
        ]
        started = time.perf_counter()
        plug(switch, lines, BRIDGE)
        switch.vsctl(*tag_words)
        switch.ofctl("--bundle", "add-flows", switch.management(BRIDGE), "-", stdin=bundle)
        seconds = time.perf_counter() - started
        if len(switch.flows(BRIDGE)) != len(wired.flows):
            raise ValueError("the bare tools did not install the same flows")
        return seconds
