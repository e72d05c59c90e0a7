"""What the measurements stand on: a site, a security group of usual size, and rest."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lab.cloud import Cloud
from lab.model import egress_to_anywhere, ingress
from lab.product import Site
from lab.rabbit import Rabbit
from lab.switch import Switch

HOST = "bench"
PHYSICAL = "physnet1"
PHYSICAL_BRIDGE = "br-phys"
_WINDOW_SECONDS = 0.4
_REST_SECONDS = 60
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def embedded_site(label: str) -> Iterator[Site]:
    """Server and agent in one process, on a switch of their own."""
    with Switch(label) as switch:
        switch.add_bridge(PHYSICAL_BRIDGE, fail_mode="standalone")
        with Site(switch, HOST, bridge_mappings={PHYSICAL: PHYSICAL_BRIDGE}) as site:
            site.start_all_in_one()
            yield site


@contextlib.contextmanager
def distributed_site(label: str) -> Iterator[Site]:
    """Server and agent as processes of their own, over RabbitMQ."""
    with Switch(label) as switch, Rabbit(switch.namespace) as rabbit:
        switch.add_bridge(PHYSICAL_BRIDGE, fail_mode="standalone")
        with Site(
            switch,
            HOST,
            transport_url=rabbit.url,
            bridge_mappings={PHYSICAL: PHYSICAL_BRIDGE},
        ) as site:
            site.start_server()
            site.start_agent()
            yield site


def network_and_group(cloud: Cloud) -> tuple[str, str]:
    """The ids of a VLAN network, and of a web server's group with two ports open to itself."""
    network = cloud.network("vlan", physical_network=PHYSICAL, segmentation_id=101, mtu=1500)
    everybody = [
        *(ingress(protocol="tcp", port=port) for port in (22, 80, 443, 3306, 5432, 8080, 9100)),
        ingress(protocol="tcp", port_range_min=30000, port_range_max=32767),
        ingress(protocol="udp", port_range_min=33434, port_range_max=33534),
        ingress(protocol="tcp", port=9090, remote_ip_prefix="10.0.0.0/8"),
        ingress(protocol="icmp"),
        ingress(protocol="icmp", ethertype="IPv6"),
        *egress_to_anywhere(),
    ]
    group = cloud.group("bench", everybody)
    among = [
        ingress(protocol=protocol, port=7000, remote_group_id=group) for protocol in ("tcp", "udp")
    ]
    return network, cloud.group("bench", [*everybody, *among], group)


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used, from /proc/<pid>/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Rest:
    """Knows how little CPU a process uses when nothing is to be done, and waits for that.

    Made while nothing is: the embedded bus polls, so idle is not zero.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._idle = min(self._rate(_WINDOW_SECONDS) for _ in range(3))

    def wait(self) -> None:
        """Raises TimeoutError if the process is still busy after a minute."""
        give_up = time.monotonic() + _REST_SECONDS
        while self._rate(_WINDOW_SECONDS) > self._idle * 1.25 + 0.1:
            if time.monotonic() > give_up:
                raise TimeoutError(f"process {self._pid} does not come to rest")

    def _rate(self, window: float) -> float:
        before = cpu_seconds(self._pid)
        time.sleep(window)
        return (cpu_seconds(self._pid) - before) / window
