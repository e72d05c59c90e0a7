"""Metrics are served on loopback, whatever its clients do."""

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter

from agent_flows import exporter
from agent_flows.exporter import ADDRESS, Exporter
from agent_flows.supervision import Troubles
from lab.process import wait_until

SOURCE = "metrics"

# As Neutron 26 begins; the client and the server share one thread of the system.
_UNDER_EVENTLET = """
import eventlet
eventlet.monkey_patch()
import os, socket, time, urllib.request
from prometheus_client import CollectorRegistry
from agent_flows.exporter import ADDRESS, Exporter
from agent_flows.supervision import Troubles
made = Exporter(CollectorRegistry, range(20000, 30000), Troubles(), "metrics")
made.start()
while made.port is None:
    time.sleep(0.01)
threads = len(os.listdir("/proc/self/task"))
with urllib.request.urlopen(f"http://{ADDRESS}:{made.port}/metrics", timeout=30) as answer:
    print(answer.status, threads)
made.stop(10)
"""


def free_ports(number: int) -> range:
    """Ports in a row, the first of which was free a moment ago."""
    with socket.create_server((ADDRESS, 0)) as taken:
        first = taken.getsockname()[1]
    return range(first, first + number)


@contextmanager
def serving(ports: range, troubles: Troubles | None = None) -> Iterator[Exporter]:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(7)
    made = Exporter(lambda: registry, ports, troubles or Troubles(), SOURCE)
    made.start()
    try:
        yield made
    finally:
        made.stop(10)


def read(served: Exporter) -> str:
    wait_until(lambda: served.port, 30, "the exporter listens")
    with urllib.request.urlopen(f"http://{ADDRESS}:{served.port}/metrics", timeout=30) as answer:
        return answer.read().decode()


def test_a_scrape_reads_the_registry() -> None:
    with serving(free_ports(8)) as served:
        assert "things_total 7.0" in read(served)
        assert "things_total 7.0" in read(served)


def test_each_of_two_has_a_port_of_its_own() -> None:
    ports = free_ports(8)
    with serving(ports) as one, serving(ports) as other:
        assert "things_total" in read(one)
        assert "things_total" in read(other)
        assert one.port != other.port


def test_while_no_port_is_free_that_is_a_trouble() -> None:
    troubles = Troubles()
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
        with serving(range(port, port + 1), troubles) as served:
            wait_until(troubles.current, 30, "the trouble is reported")
            assert "in use" in troubles.current()[SOURCE]
            taken.close()
            assert "things_total" in read(served)
            wait_until(lambda: not troubles.current(), 30, "the trouble is over")


def test_a_client_that_says_nothing_or_leaves_does_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter._Handler, "timeout", 0.2)
    with serving(free_ports(8)) as served:
        assert "things_total" in read(served)
        assert served.port is not None
        with socket.create_connection((ADDRESS, served.port)) as silent:
            silent.sendall(b"GET /metrics HT")
            assert "things_total" in read(served)
        with socket.create_connection((ADDRESS, served.port)) as leaving:
            leaving.sendall(b"\x00\xff garbage\r\n\r\n")
        assert "things_total" in read(served)


def test_under_eventlet_it_needs_no_thread_of_the_system_and_blocks_none() -> None:
    argv = [sys.executable, "-W", "ignore", "-c", _UNDER_EVENTLET]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "200 1\n", done.stderr
