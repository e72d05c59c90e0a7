"""Whether an agent has the server's desired state, noticed at heartbeats."""

import pytest

from agent_flows.reporting.comparison import Comparison


class Agent:
    """Sends a heartbeat every 10 s, and counts how often it is to catch up."""

    def __init__(self) -> None:
        self.time, self.asked = 0.0, 0
        self.comparison = Comparison(lambda: "", self._ask, 10.0, clock=lambda: self.time)

    def _ask(self) -> None:
        self.asked += 1

    def beats(self, *answers: str, mine: str = "a", every: float = 10.0) -> int:
        """How often it asked after these answers."""
        for theirs in answers:
            self.comparison.answered(mine, theirs)
            self.time += every
        return self.asked


@pytest.fixture
def agent() -> Agent:
    return Agent()


def test_a_difference_at_two_heartbeats_in_a_row_is_acted_upon(agent: Agent) -> None:
    assert agent.beats("b") == 0
    assert agent.beats("b") == 1


def test_a_change_that_arrives_in_time_asks_nothing(agent: Agent) -> None:
    assert agent.beats("b", "a", "b", "a", "b") == 0


def test_a_state_that_changes_all_the_time_is_noticed_too(agent: Agent) -> None:
    assert agent.beats("b", "c") == 1
    assert agent.beats("d", mine="b") == 2


def test_heartbeats_in_quick_succession_count_as_one(agent: Agent) -> None:
    assert agent.beats(*["b"] * 20, every=0.2) == 0
    agent.time += 5
    assert agent.beats("b") == 1


def test_it_asks_at_every_heartbeat_until_the_difference_is_gone(agent: Agent) -> None:
    assert agent.beats("b", "b", "b", "b") == 3
    assert agent.beats("a", "a", "b") == 3


def test_after_an_outage_the_first_difference_is_acted_upon(agent: Agent) -> None:
    agent.comparison.answered("a", "b", after_outage=True)
    assert agent.asked == 1
    agent.comparison.answered("a", "a", after_outage=True)
    assert agent.asked == 1


@pytest.mark.parametrize(("mine", "theirs"), [("", "b"), ("a", "")], ids=["agent", "server"])
def test_a_side_that_does_not_compare_is_left_alone(agent: Agent, mine: str, theirs: str) -> None:
    assert agent.beats(*[theirs] * 5, mine=mine) == 0
