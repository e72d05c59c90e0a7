"""Which connections are flushed when ports leave, read from the calls of ovs-ofctl."""

import pytest

from agent_flows.openflow.connections import Connections, Speaker
from agent_flows.openflow.ofctl import Ofctl, Ran, SwitchError


class Tool:
    def __init__(self) -> None:
        self.flushed: list[str] = []
        self.code = 0

    def __call__(self, argv, stdin, limit):
        if self.code == 0:
            self.flushed.append(" ".join(argv[argv.index("ct-flush") + 2 :]))
        return Ran("", "ovs-ofctl: as the test wants it", self.code)

    def taken(self) -> list[str]:
        taken, self.flushed = self.flushed, []
        return taken


@pytest.fixture
def tool() -> Tool:
    return Tool()


@pytest.fixture
def held(tool) -> Connections:
    """Two ports in zone 1, which share an address, and one in zone 2."""
    connections = Connections(Ofctl("/nowhere", "br-int", 5, tool))
    connections.hold(
        {
            "one": Speaker(1, frozenset({"10.0.0.1", "10.0.0.9"})),
            "two": Speaker(1, frozenset({"10.0.0.2", "10.0.0.9"})),
            "three": Speaker(2, frozenset({"10.0.0.1"})),
        }
    )
    return connections


def test_held_addresses_held_again_flush_nothing(held, tool):
    held.hold({"three": Speaker(2, frozenset({"10.0.0.1"}))})
    assert tool.taken() == []


def test_port_that_leaves_flushes_its_own_addresses(held, tool):
    held.leave(["one"])
    assert tool.taken() == ["zone=1 ct_nw_src=10.0.0.1", "zone=1 ct_nw_dst=10.0.0.1"]


def test_last_port_of_a_zone_flushes_the_zone(held, tool):
    held.leave(["one", "two"])
    assert tool.taken() == ["zone=1"]


def test_port_that_moves_to_another_zone_flushes_the_old_one(held, tool):
    held.hold({"three": Speaker(7, frozenset({"10.0.0.1"}))})
    assert tool.taken() == ["zone=2"]


def test_removed_address_is_flushed(held, tool):
    held.hold({"two": Speaker(1, frozenset({"2001:db8::2", "10.0.0.9"}))})
    assert tool.taken() == ["zone=1 ct_nw_src=10.0.0.2", "zone=1 ct_nw_dst=10.0.0.2"]
    held.leave(["two"])
    assert tool.taken() == ["zone=1 ct_ipv6_src=2001:db8::2", "zone=1 ct_ipv6_dst=2001:db8::2"]


def test_failed_flush_is_repeated(held, tool):
    tool.code = 1
    with pytest.raises(SwitchError):
        held.leave(["three"])
    tool.code = 0
    held.leave(["three"])
    assert tool.taken() == ["zone=2"]


def test_port_that_was_never_held_flushes_nothing(held, tool):
    held.leave(["unknown"])
    assert tool.taken() == []
