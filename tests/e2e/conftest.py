"""Agent and server as processes of their own, joined by a real RabbitMQ."""

import os
from collections.abc import Iterator
from itertools import count

import pytest

from lab.product import Site
from lab.rabbit import Rabbit
from lab.switch import Switch
from lab.tenant import Tenant

HOST = "compute-1"
_VLANS = count(201)


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """The suite creates network namespaces."""
    if os.geteuid() != 0:
        pytest.exit("needs root: it creates network namespaces; try: sudo tools/test e2e", 1)


@pytest.fixture(scope="session")
def switch() -> Iterator[Switch]:
    with Switch("e2e") as running:
        running.add_bridge("br-phys", fail_mode="standalone")
        yield running


@pytest.fixture(scope="session")
def rabbit(switch: Switch) -> Iterator[Rabbit]:
    with Rabbit(switch.namespace) as running:
        yield running


@pytest.fixture(scope="session")
def site(switch: Switch, rabbit: Rabbit) -> Iterator[Site]:
    """Server and agent, running."""
    quick = {"retry_initial": 0.2, "retry_max": 1, "heartbeat_interval": 1, "rpc_timeout": 5}
    with Site(
        switch,
        HOST,
        transport_url=rabbit.url,
        bridge_mappings={"physnet1": "br-phys"},
        options={"agent_flows": quick},
    ) as here:
        here.start_server()
        here.start_agent()
        yield here


@pytest.fixture
def tenant(site: Site) -> Iterator[Tenant]:
    """A tenant with a VLAN of its own; gone after the test."""
    someone = Tenant(site, next(_VLANS))
    yield someone
    someone.leave()
