"""What holds for every test."""

import os
import signal
from collections.abc import Iterator
from types import FrameType

import hypothesis
import oslo_messaging
import pytest

from agent_flows import privileged, threads
from lab import leftovers

# As every process of ours does, before anything imports oslo.messaging.
threads.prefer()

# A slow machine is no defect: no example is failed for the time it took.
hypothesis.settings.register_profile("agent_flows", deadline=None)
hypothesis.settings.load_profile("agent_flows")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--examples",
        type=int,
        help="how many random examples the searches of conformance, simulation and docs (for each "
        "operation of the API) try, without a time limit; by default a fixed number of the same",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A search by ``--examples`` takes as long as it takes."""
    if config.getoption("--examples", default=None):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


# As for Ctrl-C: fixtures are torn down, so that no switch outlives the run.
signal.signal(signal.SIGTERM, _interrupt)
signal.signal(signal.SIGHUP, _interrupt)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Whatever a suite brings it takes along: namespaces, directories, programs."""
    if os.geteuid() == 0:
        leftovers.sweep()
    yield
    assert leftovers.left_behind() == []


@pytest.fixture(scope="session", autouse=True)
def privileges() -> None:
    """An agent in this process has no helper: it does itself what one would do."""
    privileged.context.set_client_mode(False)


@pytest.fixture(scope="session", autouse=True)
def own_exchange() -> None:
    """That of agents and servers in this process is the one of our programs.

    Neutron changes it for everyone in a process that imports it, which some test module may do.
    """
    oslo_messaging.set_transport_defaults(control_exchange="openstack")
