"""The thread that settles ports: soon, and again a few times if they wait."""

import threading
from collections.abc import Collection

import pytest

from agent_flows.neutron.server import verdict_worker as module
from agent_flows.neutron.server.verdict_worker import VerdictWorker
from lab.process import wait_until

LONGEST = 10.0


class Neutron:
    """Answers a number of times that the ports still wait, or fails."""

    def __init__(self, waits: int = 0, fails: int = 0) -> None:
        self.asked: list[set[str]] = []
        self._waits, self._fails = waits, fails
        self.enough = threading.Event()

    def settle(self, port_ids: Collection[str]) -> Collection[str]:
        self.asked.append(set(port_ids))
        if len(self.asked) > self._waits + self._fails:
            self.enough.set()
            return ()
        if len(self.asked) <= self._fails:
            raise RuntimeError("the database is away")
        return port_ids


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN", (0.01, 0.01, 0.01))


def test_submitted_ports_are_settled_soon() -> None:
    neutron = Neutron()
    worker = VerdictWorker(neutron.settle)
    worker.soon({"a", "b"})
    assert neutron.enough.wait(LONGEST)
    assert neutron.asked == [{"a", "b"}]


def test_waiting_ports_are_looked_at_again() -> None:
    neutron = Neutron(waits=2)
    worker = VerdictWorker(neutron.settle)
    worker.soon({"a"})
    assert neutron.enough.wait(LONGEST)
    assert neutron.asked == [{"a"}] * 3


def test_ports_that_wait_longer_are_left_to_the_sweep() -> None:
    neutron = Neutron(waits=100)
    worker = VerdictWorker(neutron.settle)
    worker.soon({"a"})
    wait_until(lambda: len(neutron.asked) == 4 or None, LONGEST, "the last look")
    worker.soon({"b"})
    wait_until(lambda: len(neutron.asked) == 8 or None, LONGEST, "the last look at another")
    assert neutron.asked == [{"a"}] * 4 + [{"b"}] * 4


def test_an_error_does_not_end_the_thread() -> None:
    neutron = Neutron(fails=1)
    worker = VerdictWorker(neutron.settle)
    worker.soon({"a"})
    assert worker.wait_until_quiet(LONGEST)
    worker.soon({"b"})
    assert neutron.enough.wait(LONGEST)
    assert neutron.asked == [{"a"}, {"b"}]
