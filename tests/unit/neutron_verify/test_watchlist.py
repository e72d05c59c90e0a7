"""When ports are looked at, reported, and given up on; time is told."""

import pytest

from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.verify.plugged_port import PluggedPort
from agent_flows.neutron.verify.watchlist import Watchlist
from agent_flows.report import FlowName
from agent_flows.spec import NetworkSpec, NetworkType

PATIENCE = 30.0
GROUP = "group"
WHERE = Interface(
    "tap1", 1, 1, NetworkSpec("22222222-2222-2222-2222-222222222222", NetworkType.LOCAL), None
)


def port(port_id: str = "a", *, ofport: int = 1) -> PluggedPort:
    return PluggedPort(port_id, f"tap-{port_id}", ofport, True, (GROUP,), ())


class Host:
    """A watchlist, and somebody who goes by it."""

    def __init__(self) -> None:
        self.watchlist = Watchlist(PATIENCE)

    def look(self, now: float, *good: str) -> list[str]:
        """Look at what is to be looked at; ``good`` is as it should be. Whose flow is due."""
        sight = self.watchlist.sight(now)
        return sorted(self.watchlist.seen(sight, good, now))

    def seen(self, now: float) -> list[str]:
        sight = self.watchlist.sight(now)
        return sorted([*sight.present, *sight.gone])

    def run(self, *, succeeded: bool = True) -> bool:
        """The flow of port a runs; whether it is to be run again."""
        claimed = self.watchlist.claim(["a"])
        (plugged,) = [*claimed.present.values(), *claimed.gone.values()]
        return self.watchlist.settle(plugged, WHERE, succeeded=succeeded)

    def prove(self, now: float) -> None:
        """Port a comes, and is reported as it should be."""
        self.watchlist.here(port(), now, settled=False)
        assert self.look(now, "a") == ["a"]
        assert not self.run()


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_ports_flow_is_due_as_soon_as_it_is_as_it_should_be(host: Host) -> None:
    host.watchlist.here(port("a"), 0, settled=False)
    host.watchlist.here(port("b"), 0, settled=False)
    assert host.look(1) == []
    assert host.look(2, "b") == ["b"]
    assert host.look(3, "a") == ["a"]


def test_a_port_that_is_not_in_time_is_reported_all_the_same(host: Host) -> None:
    host.watchlist.here(port(), 0, settled=False)
    assert host.look(PATIENCE - 1) == []
    assert host.look(PATIENCE) == ["a"]
    assert host.run(succeeded=False)


def test_many_ports_are_given_more_time(host: Host) -> None:
    for number in range(300):
        host.watchlist.here(port(str(number)), 0, settled=False)
    assert host.look(PATIENCE * 2) == []
    assert len(host.look(PATIENCE * 3)) == 300


def test_a_port_that_stands_is_left_alone_until_the_next_round(host: Host) -> None:
    host.prove(0)
    assert not host.watchlist.waits
    assert host.seen(1) == []
    assert host.watchlist.rest(1) == PATIENCE - 1
    assert host.seen(PATIENCE) == ["a"]


def test_a_port_that_stands_and_comes_again_is_not_reported_again(host: Host) -> None:
    host.prove(0)
    host.watchlist.here(port(), 1, settled=True)
    assert host.seen(2) == []


def test_a_port_that_comes_back_not_active_is_wired_once_more(host: Host) -> None:
    host.prove(0)
    assert host.watchlist.flow("a", WHERE) is FlowName.REFRESH
    host.watchlist.here(port(), 1, settled=False)
    assert host.look(2, "a") == ["a"]
    assert host.watchlist.flow("a", WHERE) is FlowName.WIRE


def test_a_port_that_comes_back_changed_is_wired_once_more(host: Host) -> None:
    host.prove(0)
    host.watchlist.here(port(ofport=2), 1, settled=True)
    assert host.look(2, "a") == ["a"]
    assert host.watchlist.flow("a", WHERE) is FlowName.WIRE


def test_what_is_quietly_mended_is_not_reported(host: Host) -> None:
    host.prove(0)
    assert host.look(PATIENCE) == []
    assert host.seen(PATIENCE + 1) == ["a"]
    assert host.look(PATIENCE + 2, "a") == []
    assert not host.watchlist.waits


def test_what_is_quietly_waited_for_is_reported_if_the_server_wants_it(host: Host) -> None:
    host.prove(0)
    assert host.look(PATIENCE) == []
    host.watchlist.here(port(), PATIENCE + 1, settled=False)
    assert host.look(PATIENCE + 2, "a") == ["a"]
    assert host.watchlist.flow("a", WHERE) is FlowName.WIRE


def test_what_is_not_mended_in_time_is_a_failed_refresh(host: Host) -> None:
    host.prove(0)
    assert host.look(PATIENCE) == []
    assert host.look(PATIENCE * 2) == ["a"]
    assert host.watchlist.flow("a", WHERE) is FlowName.REFRESH
    assert host.run(succeeded=False)
    assert host.watchlist.flow("a", WHERE) is FlowName.REFRESH


def test_a_restart_of_the_switch_has_everything_looked_at_at_once(host: Host) -> None:
    host.prove(0)
    host.watchlist.audit()
    assert host.seen(1) == ["a"]


def test_a_changed_rule_has_the_ports_of_its_group_reported(host: Host) -> None:
    host.prove(0)
    host.watchlist.rules_changed("another", 1)
    assert host.seen(1) == []
    host.watchlist.rules_changed(GROUP, 2)
    assert host.look(3, "a") == ["a"]
    assert host.watchlist.flow("a", WHERE) is FlowName.REFRESH


def test_a_port_that_failed_is_run_again_until_it_is_well(host: Host) -> None:
    host.watchlist.here(port(), 0, settled=False)
    host.look(PATIENCE)
    assert host.run(succeeded=False)
    assert host.run(succeeded=False)
    assert not host.run()
    assert host.seen(PATIENCE + 1) == []


def test_news_of_a_port_that_failed_give_its_driver_time_again(host: Host) -> None:
    host.watchlist.here(port(), 0, settled=False)
    host.look(PATIENCE)
    assert host.run(succeeded=False)
    host.watchlist.here(port(), PATIENCE + 1, settled=False)
    assert not host.watchlist.claim(["a"]).present
    assert host.look(PATIENCE + 2) == []
    assert host.look(PATIENCE * 2 + 1) == ["a"]


def test_an_outcome_of_what_is_no_longer_wanted_changes_nothing(host: Host) -> None:
    host.watchlist.here(port(), 0, settled=False)
    host.look(1, "a")
    claimed = host.watchlist.claim(["a"]).present["a"]
    host.watchlist.here(port(ofport=2), 2, settled=False)
    assert not host.watchlist.settle(claimed, WHERE, succeeded=False)
    assert host.look(3, "a") == ["a"]


def test_a_port_that_is_gone_is_unwired_and_forgotten(host: Host) -> None:
    host.prove(0)
    host.watchlist.gone("a", 1)
    assert host.watchlist.sight(2).gone == {"a": port()}
    assert host.look(2) == []
    assert host.look(3, "a") == ["a"]
    assert not host.run()
    host.watchlist.again(None, 4)
    assert host.seen(PATIENCE * 9) == []


def test_a_port_that_comes_again_after_it_had_gone_is_wired(host: Host) -> None:
    host.prove(0)
    host.watchlist.gone("a", 1)
    host.watchlist.here(port(), 2, settled=True)
    assert host.look(3, "a") == ["a"]
    assert host.watchlist.flow("a", WHERE) is FlowName.WIRE


def test_a_port_that_nobody_knew_cannot_go(host: Host) -> None:
    host.watchlist.gone("a", 0)
    assert host.seen(1) == []


def test_resync_has_chosen_ports_wired_or_all(host: Host) -> None:
    host.prove(0)
    host.watchlist.again(["unknown"], 1)
    assert host.seen(1) == []
    host.watchlist.again(["a"], 2)
    assert host.look(2, "a") == ["a"]
    assert host.watchlist.flow("a", WHERE) is FlowName.WIRE
    assert not host.run()
    host.watchlist.again(None, 3)
    assert host.look(3, "a") == ["a"]
