"""Prometheus reads the metrics of Neutron's agent from the extension."""

import socket
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from neutron_lib.callbacks import events, registry
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.neutron.agent import extension as agent_extension
from agent_flows.neutron.agent.extension import AgentFlowsAgentExtension
from agent_flows.neutron.agent.firewall_driver import FIREWALL
from lab.process import wait_until
from tests.functional.neutron.cloud import Cloud

SECONDS = 20


@pytest.fixture
def port(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where an extension serves metrics; no server takes its reports."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free: int = taken.getsockname()[1]
    cfg.CONF.set_override("state_dir", str(tmp_path / "state"), options.AGENT)
    cfg.CONF.set_override("metrics_port", free, options.AGENT)
    monkeypatch.setattr(agent_extension, "ResourcesPullRpcApi", lambda: cloud.server)
    made = AgentFlowsAgentExtension()
    plugin = types.SimpleNamespace(remote_resource_cache=cloud._cache)
    made.consume_api(types.SimpleNamespace(br_int=cloud.bridge, plugin_rpc=plugin))
    made.initialize(None, "ovs")
    registry.publish(FIREWALL, events.AFTER_INIT, cloud.driver)
    yield free
    made.stop(10)
    for name in ("state_dir", "metrics_port"):
        cfg.CONF.clear_override(name, options.AGENT)


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_a_scrape_reads_what_was_wired_refused_and_waits(
    cloud: Cloud, port: int, group: str
) -> None:
    good = cloud.boot_port(1, group)
    cloud.wire_ports(good)
    wired = 'agent_flows_flows_total{flow="wire",outcome="succeeded"} 1.0'
    wait_until(lambda: wired in scrape(port), SECONDS, "the port is counted")
    with cloud.switch.full_table():
        refused = cloud.boot_port(2, group)
        cloud.wire_ports(refused)
        retried = 'agent_flows_retries_total{flow="wire"}'
        wait_until(lambda: retried in scrape(port), SECONDS, "it is tried again")
        found = scrape(port)
    assert 'agent_flows_flows_total{flow="wire",outcome="failed"}' in found
    failures = (
        'agent_flows_task_failures_total{error_type="FlowRefused",task="apply-security-groups"}'
    )
    assert failures in found
    assert 'agent_flows_task_seconds_count{task="apply-security-groups"}' in found
    assert "agent_flows_queue 1.0" in found
    (waiting,) = [line for line in found.splitlines() if line.startswith("agent_flows_outbox_rep")]
    assert float(waiting.split()[1]) >= 2
