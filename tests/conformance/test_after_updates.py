"""After any updates, removals and restarts a host decides as one set up from nothing."""

import dataclasses

import pytest
from hypothesis import strategies as st

from tests.conformance.examples import Examples
from tests.conformance.host import OURS, OWN, SLOTS, Host
from tests.conformance.judges import AgainstModel
from tests.conformance.world import World
from tests.conformance.worlds import KINDS, worlds

_LIFE = 4
"""Every so many worlds the agent is restarted on the installed flows."""


class _History:
    """One bridge that goes from world to world."""

    def __init__(self, host: Host, bridge: str) -> None:
        self._host, self._bridge = host, bridge
        self._steps = 0
        host.write(bridge, ["delete"])

    def go_to(self, world: World) -> None:
        restart = self._steps % _LIFE == 0
        self._steps += 1
        if restart:
            self._engine = self._host.engine(self._bridge, frozenset())
            self._engine.start()
        self._host.surround(world, self._bridge)
        self._engine.go_to(world)
        if restart:
            self._engine.sweep()


@pytest.mark.parametrize("bridge", [OURS, OWN])
def test_as_if_from_nothing(host: Host, examples: Examples, bridge: str) -> None:
    judge = AgainstModel(host, bridge)
    kinds = KINDS if bridge == OURS else ["vlan", "flat"]
    drawn: st.SearchStrategy[World] = worlds(SLOTS, kinds=kinds, of_neutron=bridge == OURS).map(
        lambda world: dataclasses.replace(world, permitted_ethertypes=frozenset())
    )
    examples.hold(drawn, _History(host, bridge).go_to, judge.judge, each_from_nothing=False)
