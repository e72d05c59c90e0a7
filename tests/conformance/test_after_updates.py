"""After any updates, removals and restarts a host decides as one set up from nothing."""

import dataclasses

import pytest
from hypothesis import strategies as st

from tests.conformance.bridges import OURS, OWN, SLOTS, Bridges
from tests.conformance.examples import Examples
from tests.conformance.judges import AgainstModel
from tests.conformance.world import World
from tests.conformance.worlds import KINDS, worlds

_LIFE = 4
"""Every so many worlds the agent is restarted on the installed flows."""


class _History:
    """One bridge that goes from world to world."""

    def __init__(self, bridges: Bridges, bridge: str) -> None:
        self._bridges, self._bridge = bridges, bridge
        self._steps = 0
        bridges.write(bridge, ["delete"])

    def go_to(self, world: World) -> None:
        restart = self._steps % _LIFE == 0
        self._steps += 1
        if restart:
            self._engine = self._bridges.engine(self._bridge, frozenset())
            self._engine.start()
        self._bridges.surround(world, self._bridge)
        self._engine.go_to(world)
        if restart:
            self._engine.sweep()


@pytest.mark.parametrize("bridge", [OURS, OWN])
def test_as_if_from_nothing(bridges: Bridges, examples: Examples, bridge: str) -> None:
    judge = AgainstModel(bridges, bridge)
    kinds = KINDS if bridge == OURS else ["vlan", "flat"]
    drawn: st.SearchStrategy[World] = worlds(SLOTS, kinds=kinds, of_neutron=bridge == OURS).map(
        lambda world: dataclasses.replace(world, permitted_ethertypes=frozenset())
    )
    examples.hold(drawn, _History(bridges, bridge).go_to, judge.judge, each_from_nothing=False)
