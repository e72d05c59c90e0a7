"""What is wrong with an interface, in words."""

import pytest

from agent_flows.l2.interfaces import Interface, attach, missing
from agent_flows.l2.tasks import linkless


def test_port_without_interface_is_named():
    errors = missing(["one"], {})
    assert errors["one"].type == "InterfaceNotFound"


def test_error_is_the_message_of_the_switch():
    found = {"one": Interface("one", "tap1", "", None, "could not open tap1 (No such device)")}
    error = missing(["one"], found)["one"]
    assert error.type == "InterfaceError"
    assert "No such device" in error.message


def test_interface_not_opened_yet_has_no_ofport():
    interface = Interface("one", "tap1", "", None)
    assert not interface.is_settled
    assert missing(["one"], {"one": interface})["one"].type == "NoOfport"


def test_working_interface_is_no_error():
    interface = Interface("one", "tap1", "", 4)
    assert interface.is_settled
    assert missing(["one"], {"one": interface}) == {}
    assert attach(interface, 9).ofport == 4


def test_two_working_interfaces_of_a_port_conflict():
    both = Interface("one", "tap1", "", None, "several", claimants=("tap1", "tap2"))
    assert both.is_settled
    error = missing(["one"], {"one": both})["one"]
    assert error.type == "Conflict"
    assert "tap1 and tap2" in error.message


@pytest.mark.parametrize(
    "kind",
    [
        "patch",
        "dpdk",
        "dpdkvhostuser",
        "dpdkvhostuserclient",
        "geneve",
        "vxlan",
        "gre",
        "ip6gre",
        "erspan",
        "stt",
        "lisp",
        "gtpu",
        "srv6",
        "bareudp",
        "null",
        "dummy",
        "dummy-internal",
    ],
)
def test_interface_type_without_kernel_link_is_skipped_with_its_reason(kind):
    interface = Interface("one", "no-such-link", kind, 4)
    assert linkless([interface]) == {"one": f"a {kind} interface has no kernel link"}


@pytest.mark.parametrize("kind", ["", "system", "tap", "afxdp", "afxdp-nonpmd"])
def test_interface_type_with_kernel_link_has_it_raised(kind):
    assert linkless([Interface("one", "no-such-link", kind, 4)]) == {}


def test_interfaces_without_kernel_link_are_skipped_with_the_reason():
    vhost = Interface("one", "vhu1", "dpdkvhostuserclient", 4)
    moved = Interface("two", "no-such-link", "internal", 5)
    system = Interface("three", "no-such-link", "", 6)
    here = Interface("four", "lo", "internal", 7)
    reasons = linkless([vhost, moved, system, here])
    assert reasons.keys() == {"one", "two"}
    assert "dpdkvhostuserclient" in reasons["one"]
    assert "namespace" in reasons["two"]
