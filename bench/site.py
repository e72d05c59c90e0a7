"""What the measurements share: a site, a security group of usual size, and an idle process."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lab.cloud import Cloud
from lab.model import Rule, egress_to_anywhere, ingress
from lab.process import wait_until
from lab.product import MEMORY_BUS, Site
from lab.rabbit import Rabbit
from lab.rest import Api
from lab.switch import Switch

HOST = "bench"
PHYSICAL = "physnet1"
PHYSICAL_BRIDGE = "br-phys"
TICKS = os.sysconf("SC_CLK_TCK")

Bus = Literal["embedded", "rabbit"]


@contextlib.contextmanager
def site(label: str, bus: Bus = "embedded") -> Iterator[Site]:
    """A switch of its own with server and agent: in one process, or as two over RabbitMQ."""
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(Switch(label))
        switch.add_bridge(PHYSICAL_BRIDGE, fail_mode="standalone")
        url = MEMORY_BUS
        if bus == "rabbit":
            url = stack.enter_context(Rabbit(switch.namespace)).url
        mappings = {PHYSICAL: PHYSICAL_BRIDGE}
        made = Site(switch, HOST, transport_url=url, bridge_mappings=mappings)
        stack.enter_context(made)
        if bus == "embedded":
            made.start_all_in_one()
        else:
            made.start_server()
            made.start_agent()
        yield made


VLAN = 101


def rules(group: str) -> list[Rule]:
    """Of a web server's group, with two ports open to the group itself."""
    from_anywhere = [
        *(ingress(protocol="tcp", port=port) for port in (22, 80, 443, 3306, 5432, 8080, 9100)),
        ingress(protocol="tcp", port_range_min=30000, port_range_max=32767),
        ingress(protocol="udp", port_range_min=33434, port_range_max=33534),
        ingress(protocol="tcp", port=9090, remote_ip_prefix="10.0.0.0/8"),
        ingress(protocol="icmp"),
        ingress(protocol="icmp", ethertype="IPv6"),
        *egress_to_anywhere(),
    ]
    from_members = [
        ingress(protocol=protocol, port=7000, remote_group_id=group) for protocol in ("tcp", "udp")
    ]
    return [*from_anywhere, *from_members]


def network_and_group(cloud: Cloud) -> tuple[str, str]:
    """The ids of a VLAN network, and of a group with :func:`rules`."""
    network = cloud.network("vlan", physical_network=PHYSICAL, segmentation_id=VLAN, mtu=1500)
    group = cloud.group("bench", [])
    return network, cloud.group("bench", rules(group), group)


def wait_none(api: Api, seconds: float, poll: float, **filters: object) -> None:
    """Until no port is as ``filters``; raises TimeoutError."""
    # One row shows whether any is left; a list of all ports would cost the server time.
    wait_until(
        lambda: not api.find("ports", limit=1, fields="id", **filters),
        seconds,
        f"no port is {filters}",
        poll=poll,
    )


def wait_active(here: Site, seconds: float, poll: float) -> None:
    """Until the API shows no port that is DOWN; raises TimeoutError."""
    _wait_for_database(
        here.database, "SELECT EXISTS (SELECT 1 FROM ports WHERE status = 'DOWN')", seconds, poll
    )
    wait_none(here.api, seconds, poll, status="DOWN")


def wait_realised(api: Api, database: Path, seconds: float, poll: float) -> None:
    """Until every host has realised each security group, and the API shows no port that is
    SYNCING; raises TimeoutError."""
    behind = "SELECT 1 FROM security_group_hosts WHERE behind_since IS NOT NULL"
    _wait_for_database(database, f"SELECT EXISTS ({behind})", seconds, poll)
    wait_none(api, seconds, poll, sync_state="SYNCING")


def _wait_for_database(database: Path, query: str, seconds: float, poll: float) -> None:
    """Until it answers 0.

    It is asked before the API, as OVN's is (``bench/ovn.py``): a request takes 5 ms of CPU of
    the process that is measured, and one every few milliseconds would take half of what it has.
    """
    # As the server writes it, so nothing waits for the reader.
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as rows:
        wait_until(lambda: rows.execute(query).fetchone() == (0,), seconds, query, poll=poll)


def poll_seconds(ports: int) -> float:
    """How often to look whether all ports are done: often for a few, which takes a few
    milliseconds; for many more rarely, because a look costs the measured programs CPU."""
    return min(0.025, max(0.002, ports / 4000))


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used, from /proc/<pid>/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of_children(pid: int) -> float:
    """CPU seconds of what a process has started: of what it has waited for (proc(5),
    ``/proc/<pid>/stat``), and of what still runs, with all that this has started."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended; its parent counts it.
        number = int(process.name)
        parents[number] = int(fields[1])
        ticks[number] = sum(map(int, fields[13 if number == pid else 11 : 15]))
    family = {pid}
    while more := {child for child, its in parents.items() if its in family} - family:
        family |= more
    return sum(ticks.get(each, 0) for each in family) / TICKS


class Idle:
    """Measures how little CPU a process uses when it has nothing to do, and waits for that.

    Create it while nothing happens: the embedded bus polls, so idle is not zero. ``cpu`` gives
    CPU seconds; the process is idle after ``windows`` of ``seconds`` in which it used at most
    ``factor`` times that, and ``slack`` of a core more.
    """

    def __init__(
        self,
        cpu: Callable[[], float],
        seconds: float = 0.4,
        windows: int = 1,
        *,
        factor: float = 1.25,
        slack: float = 0.1,
    ) -> None:
        self._cpu, self._seconds, self._windows = cpu, seconds, windows
        self.rate = min(self._window() for _ in range(3))
        self._most = self.rate * factor + slack

    def wait(self, timeout: float = 60) -> tuple[float, float]:
        """When it became idle (perf_counter), and its CPU seconds then. Raises TimeoutError."""
        give_up = time.monotonic() + timeout
        idle = 0
        while idle < self._windows:
            if time.monotonic() > give_up:
                raise TimeoutError(f"not idle within {timeout:g} s")
            if idle == 0:
                since = time.perf_counter(), self._cpu()
            idle = idle + 1 if self._window() <= self._most else 0
        return since

    def _window(self) -> float:
        before = self._cpu()
        time.sleep(self._seconds)
        return (self._cpu() - before) / self._seconds
