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
from lab.process import wait_until
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


def test_rules_decide_which_packets_pass(pair: list[Vm]) -> None:
    one, other = pair
    for source, target in ((one, other), (other, one)):
        assert source.connect(target.ip, SERVED)
        assert not source.connect(target.ip, CLOSED, timeout=0.5)
        assert not source.ping(target.ip, timeout=0.5)


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


def test_nothing_forbidden_passes_while_the_agent_fills_a_restarted_switch(
    host: Host, pair: list[Vm]
) -> None:
    one, other = pair
    host.restart_switch()
    passed: list[bool] = []

    def works() -> bool:
        passed.append(one.connect(other.ip, CLOSED, timeout=0.1))
        return one.connect(other.ip, SERVED, timeout=0.1)

    wait_until(works, 40, "what is allowed passes again")
    assert not any(passed)
    assert not one.connect(other.ip, CLOSED, timeout=0.5)


def test_a_port_whose_flows_the_switch_refuses_is_closed_and_heals_by_itself(
    host: Host, tenant: Tenant, pair: list[Vm]
) -> None:
    friend = pair[0]
    with host.switch.full_table():
        [refused] = tenant.boot(1)
        wait_until(lambda: "OFPFMFC_TABLE_FULL" in host.agent_log, 20, "the switch refused it")
        for port in (SERVED, CLOSED):
            assert not friend.connect(refused.ip, port, timeout=0.5)
            assert not refused.connect(friend.ip, port, timeout=0.5)
    friend.forget_neighbours()
    wait_until(lambda: friend.connect(refused.ip, SERVED, timeout=0.5), 40, "it works")
    assert not friend.connect(refused.ip, CLOSED, timeout=0.5)
