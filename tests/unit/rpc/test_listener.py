"""Casts are received as soon as the message bus can be reached."""

from collections.abc import Collection
from typing import Any

import oslo_messaging
import pytest

from agent_flows.report import Trouble
from agent_flows.rpc import listener as listener_module
from agent_flows.rpc.agent import AgentEndpoint
from agent_flows.rpc.listener import Listener
from agent_flows.supervision import Troubles
from lab.process import wait_until


class Bus:
    """A message bus that refuses a number of listeners."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.listening = False

    def get_rpc_server(self, *_: object) -> "Bus":
        return self

    def start(self, override_pool_size: int) -> None:
        if self.refusals:
            self.refusals -= 1
            raise oslo_messaging.MessageDeliveryFailure("PRECONDITION_FAILED - inequivalent arg")
        self.listening = True

    def stop(self) -> None:
        self.listening = False

    def wait(self) -> None:
        return None


class IgnoresCasts:
    def ports_changed(self, port_ids: Collection[str]) -> None: ...

    def security_groups_changed(self, ids: Collection[str], change: Any) -> None: ...

    def resync(self, port_ids: Collection[str] | None) -> None: ...


def test_a_listener_refused_by_the_bus_is_a_trouble_and_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus, troubles, seen = Bus(2), Troubles(), list[dict[str, str]]()
    troubles.changed = lambda: seen.append(dict(troubles.current()))
    monkeypatch.setattr(listener_module, "listener", bus.get_rpc_server)
    listener = Listener(None, None, AgentEndpoint(IgnoresCasts()), troubles)
    listener.start()
    wait_until(lambda: bus.listening, 10, "it listens")
    wait_until(lambda: troubles.current() == {}, 5, "the trouble is over")
    assert "PRECONDITION_FAILED" in seen[0][Trouble.LISTENER]
    listener.stop()
    listener.wait()
    assert not bus.listening
