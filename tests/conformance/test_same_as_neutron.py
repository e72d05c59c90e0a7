"""Every packet is decided as Neutron's own OVS firewall driver decides it, but for a list."""

from tests.conformance.bridges import SLOTS, Bridges
from tests.conformance.examples import Examples
from tests.conformance.judges import AgainstNeutron
from tests.conformance.worlds import worlds


def test_a_verdict_is_neutrons_or_a_listed_difference(bridges: Bridges, examples: Examples) -> None:
    judge = AgainstNeutron(bridges)
    drawn = worlds(SLOTS, of_neutron=True, segments_like_vlans=True)
    examples.hold(drawn, judge.install, judge.judge)
