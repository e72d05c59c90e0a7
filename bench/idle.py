"""What an agent costs that has many wired ports and nothing to do."""

import argparse
import contextlib
import time
from collections.abc import Iterator

from bench.runner import Bench, Command, Figures, positive
from bench.site import Idle, cpu_of_children, cpu_seconds, network_and_group, site, wait_none
from lab.cables import cables, laid
from lab.cloud import Cloud
from lab.vm import plug

_GIVE_UP_SECONDS = 300
_POLL_SECONDS = 0.2


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bus", choices=["embedded", "rabbit"], default="rabbit")
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="how long (60)")


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """All ports are wired, and the agent has nothing to do.

    CPU is in percent of one core; the agent's children are the tools that it runs: those that end
    meanwhile and those that live. Embedded, the agent's process is the server's too.
    """
    lines = cables(options.ports)
    with site("bench-idle", options.bus) as here, laid(here.switch, lines):
        agent = here.all_in_one if options.bus == "embedded" else here.agent
        idle = Idle(lambda: cpu_seconds(agent.pid))
        cloud = Cloud(here.api, here.host)
        network, group = network_and_group(cloud)
        for cable in lines:
            cloud.port(cable, network, [group])
        plug(here.switch, lines)
        wait_none(here.api, _GIVE_UP_SECONDS, _POLL_SECONDS, status="DOWN")
        idle.wait()

        def measure() -> Figures:
            pid = agent.pid
            began, own, children = time.perf_counter(), cpu_seconds(pid), cpu_of_children(pid)
            time.sleep(options.seconds)
            own, children = cpu_seconds(pid) - own, cpu_of_children(pid) - children
            passed = time.perf_counter() - began
            return {
                "cpu_percent": 100 * own / passed,
                "children_cpu_percent": 100 * children / passed,
                "memory_mib": here.memory_mib(agent),
            }

        yield Bench(measure)


COMMAND = Command(
    "idle", "an agent with many ports and nothing to do", prepare, arguments, ports=500, rounds=1
)
