"""Prometheus reads the metrics of an agent."""

import socket
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from typing import NoReturn

import oslo_messaging
import pytest

from agent_flows.report import FlowReport
from lab.model import network, open_group
from lab.process import wait_until
from lab.vm import Vm
from tests.functional.agent.host import Host

SECONDS = 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def scrape(host: Host, port: int) -> dict[str, float]:
    """Values by series. The agent listens on loopback in the namespace of its switch."""
    with (
        host.switch.namespace.entered(),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer,
    ):
        text: str = answer.read().decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in lines}


def no_answer(reports: Sequence[FlowReport]) -> NoReturn:
    raise oslo_messaging.MessagingTimeout("no answer")


def test_a_scrape_reads_what_was_wired_changed_refused_and_waits(
    host: Host, make_vm: Callable[..., Vm], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    host.start(metrics_port=port)
    host.ready()
    net, rules = network(), open_group()
    good, bad = make_vm("good"), make_vm("bad")
    host.bind(good, net, [rules])
    host.plug_quietly(good)
    host.server.wait_wired([good.port_id], SECONDS)
    wired = 'agent_flows_flows_total{flow="wire",outcome="succeeded"}'
    found = scrape(host, port)
    assert found[wired] == 1
    assert found['agent_flows_task_seconds_count{task="bind-vlan"}'] == 1
    assert found["agent_flows_queue"] == 0
    assert found["agent_flows_outbox_reports"] == 0
    host.switch.vsctl("clear", "Port", good.tap, "tag")
    wait_until(
        lambda: scrape(host, port).get("agent_flows_drifts_total"), SECONDS, "the drift is counted"
    )
    with host.switch.full_table():
        host.bind(bad, net, [rules])
        host.plug_quietly(bad)
        retried = 'agent_flows_retries_total{flow="wire"}'
        wait_until(lambda: retried in scrape(host, port), SECONDS, "it is tried again")
        monkeypatch.setattr(host.server, "report", no_answer)
        wait_until(
            lambda: scrape(host, port)["agent_flows_outbox_oldest_seconds"] > 0,
            SECONDS,
            "a report waits for the server",
        )
        wait_until(
            lambda: scrape(host, port).get("agent_flows_reports_sent_again_total"),
            SECONDS,
            "the report is sent again",
        )
        found = scrape(host, port)
    failures = (
        'agent_flows_task_failures_total{error_type="FlowRefused",task="apply-security-groups"}'
    )
    assert found[failures] >= 2
    assert found["agent_flows_queue"] == 1
    assert found["agent_flows_queue_oldest_seconds"] > 0
    assert found['agent_flows_trouble{source="reporter"}'] == 1


def test_without_a_port_for_them_no_metrics_are_served(
    host: Host, make_vm: Callable[..., Vm]
) -> None:
    host.start_once()
    argv = host.switch.namespace.argv(["ss", "--listening", "--tcp", "--no-header"])
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == ""
