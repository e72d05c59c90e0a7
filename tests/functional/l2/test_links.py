"""Links on a host of their own: raised together, blamed alone."""

from agent_flows.l2 import links
from agent_flows.l2.links import Link


def make(switch, *names):
    switch.namespace.ip_batch([f"link add {n} type veth peer name {n}p" for n in names])


def test_many_links_are_raised_with_their_own_mtu(switch):
    wanted = [Link(f"v{n}", 1300 + n) for n in range(120)]
    make(switch, *(link.name for link in wanted))
    with switch.namespace.entered():
        assert len(links.verify_links(wanted)) == 120
        assert links.raise_links(wanted) == {}
        assert links.verify_links(wanted) == {}


def test_link_refused_by_the_kernel_does_not_affect_others(switch):
    make(switch, "good", "bad")
    # veth takes no MTU below IPv4's minimum (drivers/net/veth.c, ETH_MIN_MTU).
    wanted = [Link("good", 1400), Link("bad", 67), Link("ghost", 1400)]
    with switch.namespace.entered():
        errors = links.raise_links(wanted)
        assert links.verify_links(wanted[:1]) == {}
    assert {name: error.type for name, error in errors.items()} == {
        "bad": "LinkRefused",
        "ghost": "LinkNotFound",
    }
    assert "MTU 67" in errors["bad"].message
