"""No history of a world breaks an invariant, and after each of them all is as desired."""

import secrets
from collections.abc import Iterator, Sequence

import pytest

from agent_flows.report import PortStatus, SyncState
from tests.simulation.agent import HEARTBEAT
from tests.simulation.search import HISTORIES, SEEDS, search
from tests.simulation.world import CASTS, GROUPS, HOSTS, PORTS, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_port_that_is_wired_becomes_active(world: World) -> None:
    world.put_port(PORTS[0], HOSTS[0], GROUPS)
    world.plug(world.agents[0], PORTS[0])
    world.settle(casts=True)
    assert world.state_of(PORTS[0]) == (PortStatus.ACTIVE, SyncState.IN_SYNC)


@pytest.mark.parametrize("process", ["server-a", "the agent of host-1"])
def test_crash_at_any_point_of_the_first_wiring(process: str) -> None:
    """Of the server at every one, of the agent at every third, until the process gets through."""
    for points in range(0, 200, 1 if process.startswith("server") else 3):
        world = World()
        try:
            victim = next(each for each in world.processes if each.name == process)
            world.put_port(PORTS[0], HOSTS[0], GROUPS[:1])
            world.plug(world.agents[0], PORTS[0])
            world.crash_later(victim, points)
            while world.everyone(world.processes):
                world.checks.after_step()
            ended = not victim.alive
            world.settle(casts=True)
            assert world.state_of(PORTS[0]) == (PortStatus.ACTIVE, SyncState.IN_SYNC)
        finally:
            world.close()
        if not ended:
            break
    assert not ended
    assert points > 3


def test_heartbeats_do_not_keep_a_port_from_its_second_look(world: World) -> None:
    """They are more frequent than the retries. The port is not plugged in, and the cast about it is
    lost, so each heartbeat finds it."""
    world.settle(casts=True)
    world.put_port(PORTS[0], HOSTS[0], GROUPS[:1])
    for _ in range(10):
        world.pass_time(HEARTBEAT)
        world.everyone(world.processes, but=CASTS)
        world.bus.casts.clear()
    assert world.state_of(PORTS[0]) == (PortStatus.DOWN, SyncState.ABSENT)


def test_agent_that_waits_for_an_answer_has_no_second_turn(world: World) -> None:
    """There is one thread: a second turn would wait without end for a lock of the first one."""
    agent = world.agents[0]
    turns: list[str] = []

    def second() -> None:
        world.turn(agent, "another worker", lambda: turns.append("beside"), beside=True)
        world.turn(agent, "the same worker", lambda: turns.append("inside"))

    world.turn(agent, "a worker", second)
    world.turn(agent, "the same worker", lambda: turns.append("after"))
    assert turns == ["beside", "after"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Other seeds each time if ``--examples`` is given."""
    if "seed" in metafunc.fixturenames:
        examples = metafunc.config.getoption("--examples", default=None)
        random = secrets.SystemRandom()
        seeds: Sequence[int] = SEEDS
        if examples:
            seeds = [random.getrandbits(32) for _ in range(examples // HISTORIES)]
        metafunc.parametrize("seed", seeds)


def test_no_history_breaks_an_invariant(seed: int) -> None:
    search(seed)
