"""``firewall_driver = agent_flows`` in Neutron's own agent, on ports of a tenant.

After the control (test_plain_neutron.py), by name: a host that goes back to
Neutron's driver keeps our flows for some seconds.
"""

import time
from collections.abc import Callable

import pytest

from lab.neutron.configuration import AgentOptions
from lab.neutron.host import Host
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.vm import Vm


@pytest.fixture(scope="module")
def host(neutron: Neutron) -> Host:
    """The compute host, with our driver from now on."""
    neutron.host.restart_agent(AgentOptions(firewall_driver="agent_flows"))
    return neutron.host


@pytest.fixture
def pair(host: Host, tenant: Tenant) -> list[Vm]:
    """Two machines whose ports are ACTIVE."""
    assert host.agent.running
    vms = tenant.boot(2)
    tenant.active(*vms)
    return vms


@pytest.mark.parametrize("ending", [Host.stop_agent, Host.kill_agent])
def test_a_restart_of_the_agent_keeps_what_passes_and_opens_nothing(
    host: Host, pair: list[Vm], ending: Callable[[Host], None]
) -> None:
    one, other = pair
    connection = one.open(other.ip, SERVED)
    assert connection.ask() == other.name
    ending(host)
    assert connection.ask() == other.name
    host.start_agent()
    # The agent's first two rounds through its loop, two seconds each, are what could do harm.
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert connection.ask() == other.name
        assert not one.connect(other.ip, CLOSED, timeout=0.1)
