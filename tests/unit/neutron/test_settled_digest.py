"""While an agent fills its cache after its start, what it lacks is no difference."""

from agent_flows.neutron.agent.cached_state import SettledDigest
from agent_flows.rpc.revisions import NOT_COMPARED, Revisions

PORT = "11111111-1111-4111-8111-111111111111"
NOTHING, ONE, TWO = (Revisions(ports, {}) for ports in ({}, {PORT: 1}, {PORT: 2}))


class Agent:
    """Its cache, and the seconds since its start."""

    def __init__(self) -> None:
        self.has, self.seconds = NOTHING, 0.0
        self._digest = SettledDigest(lambda: self.has, lambda: self.seconds)

    def digests(self, *contents: Revisions) -> list[str]:
        """Of heartbeats with these contents, one after the other."""
        found = []
        for self.has in contents:
            found.append(self._digest())
        return found


def test_a_cache_that_is_filled_is_compared_when_it_does_not_change_any_more() -> None:
    digests = Agent().digests(NOTHING, NOTHING, ONE, TWO, TWO)
    assert digests == [*[NOT_COMPARED] * 4, TWO.digest()]


def test_a_minute_after_the_start_every_digest_counts() -> None:
    agent = Agent()
    agent.digests(ONE)
    agent.seconds = 60.0
    assert agent.digests(NOTHING, ONE) == [NOTHING.digest(), ONE.digest()]
