"""A failed update leaves the old rules in force: the same flows, and the same verdicts."""

import uuid

import pytest

from agent_flows.report import FlowName
from lab.model import HOST, Rule, everything, group, rule
from lab.vm import Vm
from tests.functional.semantics.world import World

HTTP = rule(protocol="tcp", port=80)
# Sixteen flows: all ports but port 0.
WIDE = rule(protocol="tcp", port_range_min=1, port_range_max=65535)


def ports(*numbers: int) -> list[Rule]:
    return [rule(protocol="tcp", port=number) for number in numbers]


@pytest.fixture
def web(world: World, anna: Vm, bert: Vm) -> Vm:
    """Bert serves http; anna is connected to him."""
    world.wire(bert, group(HTTP))
    world.serve(bert, 80)
    return bert


def test_what_the_switch_refuses_leaves_every_flow_and_every_connection_as_it_was(
    world: World, anna: Vm, web: Vm
) -> None:
    connection = anna.open(web.ip, 80)
    assert connection.ask() == "bert"
    before = world.flows()
    with world.room_for(3):
        world.want(web, group(WIDE))
        error = world.refused(web)
        assert error.type == "FlowRefused"
        assert "OFPFMFC_TABLE_FULL" in error.message
        assert world.flows() == before
        assert connection.ask() == "bert"
        assert world.reaches(anna, web, 80)
        assert not world.syn_passes(anna, web, 443)
    world.wait_settled(web)
    assert world.syn_passes(anna, web, 443)


def test_a_rule_that_was_to_go_stays_when_what_was_to_come_is_refused(
    world: World, anna: Vm, web: Vm
) -> None:
    """An update is all or nothing: not the removal without the addition."""
    before = world.flows()
    with world.room_for(0):
        world.want(web, group(*ports(8080, 8443)))
        world.refused(web)
        assert world.flows() == before
        assert world.syn_passes(anna, web, 80)
        assert not world.syn_passes(anna, web, 8080)
    world.wait_settled(web)
    assert not world.syn_passes(anna, web, 80)
    assert world.syn_passes(anna, web, 8080)


def test_in_a_batch_of_several_only_the_port_at_fault_keeps_its_old_rules(
    world: World, anna: Vm, web: Vm, carl: Vm
) -> None:
    before = world.flows_of(web)
    with world.room_for(5):
        world.want(anna, group(*everything("egress"), *ports(22)))
        world.want(web, group(WIDE))
        world.want(carl, group(*everything("egress"), *ports(25)))
        error = world.refused(web, anna, carl)
        assert error.type == "FlowRefused"
        assert world.flows_of(web) == before
        assert world.syn_passes(anna, web, 80)
        assert not world.syn_passes(anna, web, 443)
        assert world.syn_passes(carl, anna, 22)
        assert world.syn_passes(anna, carl, 25)
    world.wait_settled(web)


def test_a_group_of_several_ports_that_is_refused_for_all_changes_none_of_them(
    world: World, anna: Vm, bert: Vm, carl: Vm
) -> None:
    rules = group(HTTP, *everything("egress"))
    for vm in (anna, bert, carl):
        world.want(vm, rules)
    world.settle(anna, bert, carl)
    before = world.flows()
    with world.room_for(10):
        world.add(group(HTTP, WIDE, id=rules.id, revision=rules.revision + 1))
        count = len(world.server.of(anna.port_id, FlowName.REFRESH))
        world.host.casts.security_groups_changed(HOST, [rules.id])
        for vm in (anna, bert, carl):
            world.server.wait_for(
                lambda vm=vm: len(world.server.of(vm.port_id, FlowName.REFRESH)) > count  # type: ignore[misc]
            )
            assert world.server.of(vm.port_id)[-1].failed is not None
        assert world.flows() == before
        assert world.syn_passes(anna, bert, 80)
        assert not world.syn_passes(bert, carl, 443)
        assert not world.udp_passes(bert, anna, 53)
    world.wait_settled(anna, bert, carl)
    # What replaced the rules lets nobody out.
    assert not world.syn_passes(anna, bert, 443)


def test_what_cannot_be_compiled_changes_nothing_either(
    world: World, anna: Vm, web: Vm, carl: Vm
) -> None:
    before = world.flows_of(web)
    missing = group()
    world.want(web, group(rule(remote_group_id=str(uuid.uuid4()))), missing)
    world.want(carl, group(*ports(25)))
    assert world.refused(web, carl).type == "MissingSpec"
    assert world.flows_of(web) == before
    assert world.syn_passes(anna, web, 80)
    assert world.syn_passes(anna, carl, 25)
