"""The checks of the scenarios see what they are for, in a live Neutron too."""

import contextlib
import sqlite3

from lab.process import held, wait_until
from lab.switch import RULES_INGRESS
from tests.faults.any_stage import BRIDGE, SECONDS
from tests.faults.neutron.stage import NeutronStage


def test_a_flow_that_is_missing_makes_its_port_unproven_with_either_firewall(
    stage: NeutronStage,
) -> None:
    for host in stage.neutron.hosts.values():
        port = list(host.vms.values())[-1]
        switch = host.switch
        rules = f"table={RULES_INGRESS},reg5={switch.ofport(port.tap)}"
        kept = switch.flows(BRIDGE, rules)
        with held(host.agent.pid):
            switch.ofctl("del-flows", switch.management(BRIDGE), rules)
            found = stage.unproven()
            switch.ofctl("add-flows", switch.management(BRIDGE), "-", stdin="\n".join(kept))
        assert [each.partition(";")[0] for each in found] == [f"port {port.port_id} is ACTIVE"]
    stage.wait_converged()


def test_a_forbidden_packet_that_passes_is_seen(stage: NeutronStage) -> None:
    switch, before = stage.switch, stage.records.made()
    bridge, ofport = switch.management(BRIDGE), switch.ofport(stage.victim.tap)
    hole = f"table={RULES_INGRESS},priority=65000,reg5={ofport}"
    with stage.traffic() as (pings, attack), held(stage.host.agent.pid):
        switch.ofctl("add-flow", bridge, f"{hole},actions=output:{ofport}")
        wait_until(attack.passed, SECONDS, "a forbidden packet passes")
        switch.ofctl("--strict", "del-flows", bridge, hole)
        seen = stage.see(pings, attack, before)
    assert seen.forbidden.keys() == {stage.victim.name}
    stage.wait_converged()


def test_a_failure_that_never_reached_the_server_is_seen(stage: NeutronStage) -> None:
    before = stage.records.made()
    path = stage.state_dir / "outbox.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as outbox:
        outbox.execute("INSERT INTO witness VALUES ('lost', 1)")
        with stage.traffic() as (pings, attack):
            seen = stage.see(pings, attack, before)
        outbox.execute("DELETE FROM witness WHERE id = 'lost'")
    assert seen.lost == seen.uncounted == ["lost"]
