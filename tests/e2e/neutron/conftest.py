"""Neutrons that run: one as its own installation guide leaves it, and one with all of ours."""

from collections.abc import Iterator

import pytest

from lab.neutron.configuration import AgentOptions, Options
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant

# Hosts of the Neutron with our parts in its server.
OURS = "ours"  # with our extension and our firewall driver
PLAIN = "plain"  # as before: Open vSwitch agent, openvswitch firewall
WATCHED = "watched"  # with our extension beside Neutron's openvswitch firewall

# All processes should notice soon that an outage is over.
_MESSAGES = {
    "DEFAULT": {"rpc_response_timeout": 10},
    "oslo_messaging_rabbit": {"rabbit_interval_max": 5},
}
# Casts that agents missed during an outage are sent again when a report is overdue.
_SERVER = {"agent_flows_server": {"report_timeout": 15, "sweep_interval": 1}}
_QUICK = {"retry_initial": 0.3, "retry_max": 1, "verify_timeout": 5, "rpc_timeout": 5}


def _agent(firewall_driver: str, *extensions: str) -> AgentOptions:
    ours = {"agent_flows": _QUICK} if extensions else {}
    return AgentOptions(firewall_driver, extensions, {**_MESSAGES, **ours})


@pytest.fixture(scope="session")
def neutron() -> Iterator[Neutron]:
    """One controller and one compute host, running."""
    with Neutron() as running:
        yield running


@pytest.fixture(scope="session")
def gated_neutron() -> Iterator[Neutron]:
    """One controller with our mechanism driver and plugin, and three compute hosts."""
    options = Options(
        hosts={
            OURS: _agent("agent_flows", "agent_flows"),
            PLAIN: _agent("openvswitch"),
            WATCHED: _agent("openvswitch", "agent_flows"),
        },
        mechanism_drivers=("openvswitch", "agent_flows"),
        service_plugins=("agent_flows",),
        extra={**_MESSAGES, **_SERVER},
    )
    with Neutron(options) as running:
        yield running


@pytest.fixture
def tenant(neutron: Neutron) -> Iterator[Tenant]:
    someone = Tenant(neutron)
    yield someone
    someone.leave()
