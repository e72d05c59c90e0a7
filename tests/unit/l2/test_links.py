"""Links are read back as they are."""

from pathlib import Path

from agent_flows.l2 import links
from agent_flows.l2.links import Link


def loopback_mtu():
    return int(Path("/sys/class/net/lo/mtu").read_text())


def test_correct_link_is_no_error():
    assert links.exists("lo")
    assert links.verify_links([Link("lo", loopback_mtu())]) == {}
    assert links.raise_links([Link("lo", loopback_mtu())]) == {}


def test_wrong_mtu_is_reported_with_both_numbers():
    error = links.verify_links([Link("lo", 1234)])["lo"]
    assert error.type == "LinkMtu"
    assert str(loopback_mtu()) in error.message
    assert "1234" in error.message


def test_missing_link_does_not_affect_others():
    wanted = [Link("lo", loopback_mtu()), Link("no-such-link", 1500)]
    assert not links.exists("no-such-link")
    assert links.verify_links(wanted).keys() == {"no-such-link"}
    assert links.raise_links(wanted)["no-such-link"].type == "LinkNotFound"
