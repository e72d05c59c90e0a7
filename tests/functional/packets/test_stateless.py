"""Stateless groups: no connection is remembered, so both directions need a rule."""

import pytest

from agent_flows.spec import SecurityGroupSpec
from lab.model import Rule, everything, group, ip, rule
from lab.vm import Vm
from tests.functional.packets.world import World


def stateless(*rules: Rule, **fields: object) -> SecurityGroupSpec:
    return group(*rules, stateful=False, **fields)  # type: ignore[arg-type]


def served(protocol: str, port: int, version: int = 4) -> list[Rule]:
    """What a server needs: questions in, and answers from that port out."""
    return [
        rule(protocol=protocol, port=port, ethertype=f"IPv{version}"),
        rule(
            "egress",
            protocol=protocol,
            source_port_range_min=port,
            source_port_range_max=port,
            ethertype=f"IPv{version}",
        ),
    ]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_connection_needs_a_rule_for_each_direction(
    world: World, sender: Vm, guarded: Vm, outside: Vm, *, protocol: str, version: int
) -> None:
    there, back = served(protocol, 7000, version)
    for peer in (sender, outside):
        world.wire(guarded, stateless(there))
        assert not world.reaches(peer, guarded, 7000, protocol, version=version, timeout=0.3)
        world.wire(guarded, stateless(back))
        assert not world.reaches(peer, guarded, 7000, protocol, version=version, timeout=0.3)
        world.wire(guarded, stateless(there, back))
        assert world.reaches(peer, guarded, 7000, protocol, version=version)


def test_nothing_is_remembered_of_what_passes_between_stateless_ports(
    world: World, sender: Vm, guarded: Vm
) -> None:
    world.wire(sender, stateless(*everything("egress"), *everything("ingress")))
    world.wire(guarded, stateless(*everything("egress"), *everything("ingress")))
    world.switch.appctl("dpctl/flush-conntrack")
    assert world.reaches(sender, guarded, 80)
    assert world.reaches(sender, guarded, 53, "udp", version=6)
    assert not [line for line in world.conntrack() if ip(guarded) in line or ip(guarded, 6) in line]


def test_a_removed_rule_stops_its_direction_at_once_and_for_good(
    world: World, sender: Vm, guarded: Vm
) -> None:
    there, back = served("udp", 7001)
    rules = stateless(there, back)
    world.wire(guarded, rules)
    world.serve(guarded, 7001, "udp")
    connection = sender.open(guarded.ip, 7001, "udp")
    assert connection.ask() == "guarded"
    for left in ([there], [back]):
        world.replace(rules, *left)
        assert connection.ask(timeout=0.3) is None
        world.replace(rules, there, back)
        assert connection.ask() == "guarded"


def test_a_port_becomes_stateless_and_stateful_again(world: World, sender: Vm, guarded: Vm) -> None:
    world.serve(guarded, 80)
    question, answer = served("tcp", 80)
    world.wire(guarded, group(question))
    connection = sender.open(guarded.ip, 80)
    assert connection.ask() == "guarded"
    world.wire(guarded, stateless(question))
    assert connection.ask(timeout=0.3) is None
    world.wire(guarded, stateless(question, answer))
    assert connection.ask(timeout=5) == "guarded"
    world.wire(guarded, group(question))
    assert connection.ask(timeout=5) == "guarded"
    assert not world.syn_passes(guarded, sender, 80)
