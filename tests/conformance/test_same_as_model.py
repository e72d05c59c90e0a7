"""Every packet is decided as by a small model of the semantics without OpenFlow."""

from tests.conformance.examples import Examples
from tests.conformance.host import OURS, OWN, SLOTS, Host
from tests.conformance.judges import AgainstModel
from tests.conformance.worlds import worlds


def test_on_neutrons_bridge(host: Host, examples: Examples) -> None:
    judge = AgainstModel(host, OURS)
    drawn = worlds(SLOTS, of_neutron=True, segments_like_vlans=True)
    examples.hold(drawn, judge.install, judge.judge)


def test_on_our_own_bridge(host: Host, examples: Examples) -> None:
    judge = AgainstModel(host, OWN)
    drawn = worlds(SLOTS, kinds=["vlan", "flat"], of_neutron=False)
    examples.hold(drawn, judge.install, judge.judge)
