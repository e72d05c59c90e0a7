"""A Neutron with all of ours. A folder of its own, so that it runs beside the other Neutron."""

from collections.abc import Iterator

import pytest

from lab.neutron.configuration import AgentOptions, Options
from lab.neutron.stack import Neutron

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
    """One controller with our mechanism driver and plugin, and three compute hosts."""
    options = Options(
        hosts={
            OURS: _agent("agent_flows", "agent_flows"),
            PLAIN: _agent("openvswitch"),
            WATCHED: _agent("openvswitch", "agent_flows"),
        },
        mechanism_drivers=("openvswitch", "agent_flows"),
        service_plugins=("agent_flows",),
        nova=True,
        extra={**_MESSAGES, **_SERVER},
    )
    with Neutron(options) as running:
        yield running
