"""A failed update leaves the old rules in force: the same flows, and the same verdicts."""

import pytest

from agent_flows.report import FlowName
from lab.model import HOST, Rule, everything, group, rule
from lab.vm import Vm
from tests.functional.packets.world import World

HTTP = rule(protocol="tcp", port=80)
# Sixteen flows: all ports but port 0.
WIDE = rule(protocol="tcp", port_range_min=1, port_range_max=65535)


def ports(*numbers: int) -> list[Rule]:
    return [rule(protocol="tcp", port=number) for number in numbers]


@pytest.fixture
def web(world: World, sender: Vm, guarded: Vm) -> Vm:
    """The guarded VM serves HTTP."""
    world.wire(guarded, group(HTTP))
    world.serve(guarded, 80)
    return guarded


def test_refused_update_leaves_every_flow_and_connection_as_it_was(
    world: World, sender: Vm, web: Vm
) -> None:
    connection = sender.open(web.ip, 80)
    assert connection.ask() == "guarded"
    before = world.flows()
    with world.room_for(3):
        world.want(web, group(WIDE))
        error = world.refused(web)
        assert error.type == "FlowRefused"
        assert "OFPFMFC_TABLE_FULL" in error.message
        assert world.flows() == before
        assert connection.ask() == "guarded"
        assert world.reaches(sender, web, 80)
        assert not world.syn_passes(sender, web, 443)
    world.wait_settled(web)
    assert world.syn_passes(sender, web, 443)


def test_only_the_port_at_fault_of_a_batch_keeps_its_old_rules(
    world: World, sender: Vm, web: Vm, third: Vm
) -> None:
    before = world.flows_of(web)
    with world.room_for(5):
        world.want(sender, group(*everything("egress"), *ports(22)))
        world.want(web, group(WIDE))
        world.want(third, group(*everything("egress"), *ports(25)))
        error = world.refused(web, sender, third)
        assert error.type == "FlowRefused"
        assert world.flows_of(web) == before
        assert world.syn_passes(sender, web, 80)
        assert not world.syn_passes(sender, web, 443)
        assert world.syn_passes(third, sender, 22)
        assert world.syn_passes(sender, third, 25)
    world.wait_settled(web)


def test_refused_change_of_a_group_changes_none_of_its_ports(
    world: World, sender: Vm, guarded: Vm, third: Vm
) -> None:
    rules = group(HTTP, *everything("egress"))
    for vm in (sender, guarded, third):
        world.want(vm, rules)
    world.settle(sender, guarded, third)
    before = world.flows()
    with world.room_for(10):
        world.add(group(HTTP, WIDE, id=rules.id, revision=rules.revision + 1))
        count = len(world.server.of(sender.port_id, FlowName.REFRESH))
        world.host.casts.security_groups_changed(HOST, [rules.id])
        for vm in (sender, guarded, third):
            world.server.wait_for(
                lambda vm=vm: len(world.server.of(vm.port_id, FlowName.REFRESH)) > count  # type: ignore[misc]
            )
            assert world.server.of(vm.port_id)[-1].failed is not None
        assert world.flows() == before
        assert world.syn_passes(sender, guarded, 80)
        assert not world.syn_passes(guarded, third, 443)
        assert not world.udp_passes(guarded, sender, 53)
    world.wait_settled(sender, guarded, third)
    # What replaced the rules lets nothing out.
    assert not world.syn_passes(sender, guarded, 443)
