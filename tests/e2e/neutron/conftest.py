"""A Neutron as its own installation guide leaves it: Open vSwitch agent, openvswitch firewall."""

from collections.abc import Iterator

import pytest

from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant


@pytest.fixture(scope="session")
def neutron() -> Iterator[Neutron]:
    """One controller and one compute host, running."""
    with Neutron() as running:
        yield running


@pytest.fixture
def tenant(neutron: Neutron) -> Iterator[Tenant]:
    someone = Tenant(neutron)
    yield someone
    someone.leave()
