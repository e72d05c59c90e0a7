"""A Neutron with all of ours, with routers and trunks. Not the other Neutrons of these tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.neutron.configuration import AgentOptions, Options
from lab.neutron.stack import Neutron

# Hosts.
NETWORK = "network"  # our firewall driver; DHCP and L3 agents while a test has them
COMPUTE = "compute"  # our firewall driver, unless a test has another

OPTIONS = {
    "agent_flows": {"retry_initial": 0.3, "retry_max": 1, "verify_timeout": 10},
    # Legacy routers work with it, too.
    "agent": {"enable_distributed_routing": True, "l2_population": True},
}
OURS = AgentOptions("agent_flows", ("agent_flows",), OPTIONS)


@pytest.fixture(scope="session")
def neutron() -> Iterator[Neutron]:
    """One controller and two hosts."""
    options = Options(
        hosts={NETWORK: OURS, COMPUTE: OURS},
        mechanism_drivers=("openvswitch", "l2population", "agent_flows"),
        service_plugins=("router", "trunk", "agent_flows"),
        extra={"DEFAULT": {"dhcp_agent_notification": True}},
    )
    with Neutron(options) as running:
        yield running


@pytest.fixture(scope="session")
def l3_agents(neutron: Neutron) -> Iterator[None]:
    """One on each host; that of the first has the legacy routers, too."""
    with (
        neutron.service_agent("l3", NETWORK, agent_mode="dvr_snat"),
        neutron.service_agent("l3", COMPUTE, agent_mode="dvr"),
    ):
        yield


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the users of other programs may read files."""
    for place in (tmp_path, tmp_path.parent):
        place.chmod(0o755)
    return tmp_path
