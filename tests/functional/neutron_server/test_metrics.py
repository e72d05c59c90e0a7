"""Prometheus reads the metrics of Neutron's server from each of its RPC workers."""

from collections.abc import Callable

from tests.functional.neutron_server.stage import Body, Host, Neutron


def scrape(neutron: Neutron) -> dict[str, str]:
    """Values by series."""
    lines = neutron.do("scrape").splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_a_scrape_reads_reports_ports_and_agents(
    neutron: Neutron, ours: Host, active: str, make_port: Callable[..., Body]
) -> None:
    found = scrape(neutron)
    assert found["agent_flows_database_up"] == "1.0"
    assert found[f'agent_flows_agent_up{{host="{ours.name}"}}'] == "1.0"
    state = 'status="ACTIVE",sync_state="IN_SYNC"'
    assert found[f'agent_flows_ports{{host="{ours.name}",{state}}}'] == "1.0"
    assert found['agent_flows_server_failing{part="casts"}'] == "0.0"
    ours.reports(active)
    proven = 'agent_flows_reports_total{ruling="proven"}'
    again = scrape(neutron)
    assert float(again[proven]) == float(found[proven]) + 1
