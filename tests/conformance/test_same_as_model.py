"""Every packet is decided as by a small model of the semantics without OpenFlow."""

from tests.conformance.bridges import OURS, OWN, SLOTS, Bridges
from tests.conformance.examples import Examples
from tests.conformance.judges import AgainstModel
from tests.conformance.worlds import worlds


def test_on_neutrons_bridge(bridges: Bridges, examples: Examples) -> None:
    judge = AgainstModel(bridges, OURS)
    drawn = worlds(SLOTS, of_neutron=True, segments_like_vlans=True)
    examples.hold(drawn, judge.install, judge.judge)


def test_on_our_own_bridge(bridges: Bridges, examples: Examples) -> None:
    judge = AgainstModel(bridges, OWN)
    drawn = worlds(SLOTS, kinds=["vlan", "flat"], of_neutron=False)
    examples.hold(drawn, judge.install, judge.judge)
