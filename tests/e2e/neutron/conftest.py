"""A Neutron as its own installation guide leaves it."""

from collections.abc import Iterator

import pytest

from lab.neutron.configuration import AgentOptions, Options
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant


@pytest.fixture(scope="session")
def neutron() -> Iterator[Neutron]:
    """One controller and two compute hosts, running."""
    hosts = {"compute-1": AgentOptions(), "compute-2": AgentOptions()}
    with Neutron(Options(hosts=hosts, nova=True)) as running:
        yield running


@pytest.fixture
def tenant(neutron: Neutron) -> Iterator[Tenant]:
    someone = Tenant(neutron)
    yield someone
    someone.leave()
