"""What holds for every test."""

import os
import signal
from collections.abc import Iterator
from types import FrameType

import hypothesis
import pytest
from oslo_service import backend

from lab import leftovers

# As every process of ours does, before anything asks for the default, which is eventlet.
backend.init_backend(backend.BackendType.THREADING)

# A slow machine is no defect: no example is failed for the time it took.
hypothesis.settings.register_profile("agent_flows", deadline=None)
hypothesis.settings.load_profile("agent_flows")


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
