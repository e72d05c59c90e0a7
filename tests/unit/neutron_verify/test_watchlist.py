"""When ports are looked at, and when their flows run; time is the test's."""

import pytest

from agent_flows.engine.port_life import Applied, Phase, Verdict
from agent_flows.engine.port_table import PortTable
from agent_flows.engine.reconciler import Desired, choose
from agent_flows.neutron.verify.plugged_port import PluggedPort
from agent_flows.neutron.verify.watchlist import Watchlist
from agent_flows.report import FlowName
from agent_flows.supervision import Backoff

PATIENCE = 30.0
GROUP = "group"


def port(port_id: str = "a", *, ofport: int = 1) -> PluggedPort:
    return PluggedPort(port_id, f"tap-{port_id}", ofport, True, (GROUP,), ())


class Host:
    """A watchlist, the looks that follow it, and the flows that are due."""

    def __init__(self) -> None:
        self.now = 0.0
        self.table = PortTable(1000, Backoff(0.1, 1.0), lambda: self.now)
        self.watchlist = Watchlist(self.table, PATIENCE, lambda: self.now)

    def look(self, now: float, *good: str) -> list[str]:
        """Look at what is to be looked at; nothing is wrong with ``good``. The ports that are
        ready."""
        self.now = now
        self.watchlist.looked(self.watchlist.to_look_at(), good)
        return sorted(id_ for id_ in self.table.lives() if self.phase(id_) is Phase.READY)

    def looks_at(self, now: float) -> list[str]:
        self.now = now
        return sorted(self.watchlist.to_look_at())

    def phase(self, port_id: str = "a") -> Phase:
        return self.table.life(port_id).phase

    def run(self, *, succeeded: bool = True) -> FlowName | None:
        """The flow of port a runs."""
        [life] = self.table.claim(wait=False)
        watched = self.watchlist.watched(["a"])["a"]
        desired = Desired(watched.port, object(), 1, {}, leaving=watched.leaving)
        flow = choose(life, "tap-a", desired, FlowName.WIRE)
        applied = None
        if flow is not FlowName.UNWIRE:
            applied = Applied("tap-a", watched.port, desired.rules, proven=succeeded)
        self.table.note("a", applied=applied)
        self.table.release(["a"], {"a": Verdict.DONE if succeeded else Verdict.RETRY})
        return flow

    def prove(self) -> None:
        """Port a comes, and is proven."""
        self.watchlist.here(port(), settled=False)
        assert self.look(0, "a") == ["a"]
        assert self.run() is FlowName.WIRE
        assert self.phase() is Phase.PROVEN


@pytest.fixture
def host() -> Host:
    return Host()


def test_port_is_ready_as_soon_as_nothing_is_wrong(host: Host) -> None:
    host.watchlist.here(port("a"), settled=False)
    host.watchlist.here(port("b"), settled=False)
    assert host.look(1) == []
    assert host.look(2, "b") == ["b"]
    assert host.look(3, "a") == ["a", "b"]


def test_port_is_ready_when_its_time_is_over(host: Host) -> None:
    host.watchlist.here(port(), settled=False)
    assert host.look(PATIENCE - 1) == []
    assert host.look(PATIENCE) == ["a"]


def test_many_ports_are_given_more_time(host: Host) -> None:
    for number in range(300):
        host.watchlist.here(port(str(number)), settled=False)
    assert host.look(PATIENCE * 2) == []
    assert len(host.look(PATIENCE * 3)) == 300


def test_proven_port_is_looked_at_again_after_verify_timeout(host: Host) -> None:
    host.prove()
    assert host.looks_at(1) == []
    assert host.watchlist.pause() == PATIENCE - 1
    assert host.looks_at(PATIENCE) == ["a"]


def test_proven_port_that_comes_again_is_not_looked_at(host: Host) -> None:
    host.prove()
    host.watchlist.here(port(), settled=True)
    assert host.looks_at(2) == []


def test_port_that_is_not_active_is_wired_again(host: Host) -> None:
    host.prove()
    host.watchlist.here(port(), settled=False)
    assert host.look(2, "a") == ["a"]
    assert host.run() is FlowName.WIRE


def test_changed_port_is_wired_again(host: Host) -> None:
    host.prove()
    host.watchlist.here(port(ofport=2), settled=True)
    assert host.look(2, "a") == ["a"]
    assert host.run() is FlowName.WIRE


def test_port_that_is_mended_in_time_is_proven_without_a_flow(host: Host) -> None:
    host.prove()
    assert host.look(PATIENCE) == []
    assert host.phase() is Phase.AWAITED
    assert host.look(PATIENCE + 2, "a") == []
    assert host.phase() is Phase.PROVEN


def test_port_that_is_not_right_and_not_active_is_wired_once_mended(host: Host) -> None:
    host.prove()
    assert host.look(PATIENCE) == []
    host.watchlist.here(port(), settled=False)
    assert host.look(PATIENCE + 2, "a") == ["a"]
    assert host.run() is FlowName.WIRE


def test_port_that_is_not_mended_in_time_is_refreshed(host: Host) -> None:
    host.prove()
    assert host.look(PATIENCE) == []
    assert host.look(PATIENCE * 2) == ["a"]
    assert host.run(succeeded=False) is FlowName.REFRESH


def test_proven_ports_are_looked_at_after_a_restart_of_the_switch(host: Host) -> None:
    host.prove()
    host.watchlist.audit()
    assert host.looks_at(1) == ["a"]


def test_changed_rule_refreshes_the_ports_of_its_group(host: Host) -> None:
    host.prove()
    host.watchlist.rules_changed("another")
    assert host.looks_at(1) == []
    host.watchlist.rules_changed(GROUP)
    assert host.look(3, "a") == ["a"]
    assert host.run() is FlowName.REFRESH


def test_failed_port_that_comes_again_is_given_time_again(host: Host) -> None:
    host.watchlist.here(port(), settled=False)
    host.look(PATIENCE)
    host.run(succeeded=False)
    host.watchlist.here(port(), settled=False)
    assert host.look(PATIENCE + 2) == []
    assert host.look(PATIENCE * 2 - 1) == []
    assert host.look(PATIENCE * 2) == ["a"]


def test_what_changed_during_a_look_is_looked_at_again(host: Host) -> None:
    host.watchlist.here(port(), settled=False)
    seen = host.watchlist.to_look_at()
    host.watchlist.here(port(ofport=2), settled=False)
    host.watchlist.looked(seen, ["a"])
    assert host.phase() is Phase.AWAITED


def test_port_that_is_gone_is_unwired_and_forgotten(host: Host) -> None:
    host.prove()
    host.watchlist.gone("a")
    assert host.watchlist.to_look_at()["a"].leaving
    assert host.look(2) == []
    assert host.look(3, "a") == ["a"]
    assert host.run() is FlowName.UNWIRE
    host.watchlist.pause()
    assert host.watchlist.watched(["a"]) == {}
    assert host.watchlist.again(["a"]) == {"a"}


def test_port_that_comes_again_after_it_was_gone_is_wired(host: Host) -> None:
    host.prove()
    host.watchlist.gone("a")
    host.watchlist.here(port(), settled=True)
    assert host.look(3, "a") == ["a"]
    assert host.run() is FlowName.WIRE


def test_unknown_port_that_is_gone_is_ignored(host: Host) -> None:
    host.watchlist.gone("a")
    assert host.looks_at(1) == []


def test_resync_gives_no_more_time_to_a_port_that_is_not_finished(host: Host) -> None:
    host.watchlist.here(port(), settled=False)
    assert host.look(PATIENCE - 1) == []
    host.watchlist.again(["a"])
    assert host.look(PATIENCE) == ["a"]


def test_resync_wires_chosen_ports_or_all(host: Host) -> None:
    host.prove()
    assert host.watchlist.again(["unknown"]) == {"unknown"}
    assert host.looks_at(1) == []
    for chosen in (["a"], None):
        assert host.watchlist.again(chosen) == frozenset()
        assert host.look(2, "a") == ["a"]
        assert host.run() is FlowName.WIRE


def test_the_audit_is_as_old_as_the_last_look_at_every_proven_port() -> None:
    host = Host()
    host.prove()
    host.watchlist.audit()
    assert host.looks_at(10) == ["a"]
    assert host.watchlist.audit_age() is None
    host.watchlist.could_look()
    assert host.watchlist.audit_age() == 0
    assert host.looks_at(20) == []
    host.watchlist.could_look()
    assert host.watchlist.audit_age() == 10
