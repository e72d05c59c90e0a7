"""What holds for every test."""

import signal
from types import FrameType

import hypothesis
from oslo_service import backend

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
