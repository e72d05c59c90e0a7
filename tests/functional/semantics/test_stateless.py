"""Case 20: stateless groups. Nobody remembers a connection, so both directions need a rule."""

import pytest

from agent_flows.spec import SecurityGroupSpec
from lab import frames
from lab.model import Rule, everything, group, ip, rule
from lab.vm import Vm
from tests.functional.semantics.world import World


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
    world: World, anna: Vm, bert: Vm, otto: Vm, *, protocol: str, version: int
) -> None:
    there, back = served(protocol, 7000, version)
    for peer in (anna, otto):
        world.wire(bert, stateless(there))
        assert not world.reaches(peer, bert, 7000, protocol, version=version, timeout=0.3)
        world.wire(bert, stateless(back))
        assert not world.reaches(peer, bert, 7000, protocol, version=version, timeout=0.3)
        world.wire(bert, stateless(there, back))
        assert world.reaches(peer, bert, 7000, protocol, version=version)


def test_a_client_needs_a_rule_for_the_answers(world: World, bert: Vm, otto: Vm) -> None:
    ask = rule("egress", protocol="tcp", port=443)
    answered = rule(protocol="tcp", source_port_range_min=443, source_port_range_max=443)
    world.wire(bert, stateless(ask))
    assert not world.reaches(bert, otto, 443, timeout=0.3)
    world.wire(bert, stateless(ask, answered))
    assert world.reaches(bert, otto, 443)
    # The rule cannot tell an answer from a question that only comes from that port.
    assert not world.udp_passes(otto, bert, 53, source_port=443)
    ends = (otto.mac, bert.mac), (otto.ip, bert.ip)
    assert world.passes(otto, bert, frames.tcp(*ends, (443, 25), frames.SYN))


def test_each_packet_is_judged_by_itself(world: World, anna: Vm, bert: Vm) -> None:
    """Segments of no connection, and impossible ones: rules look at addresses and ports only."""
    world.wire(bert, stateless(rule(protocol="tcp", port=80)))
    ends = (anna.mac, bert.mac), (anna.ip, bert.ip)
    world.wire(anna, stateless(*everything("egress")))
    for flags in (frames.ACK, frames.SYN | frames.FIN, frames.RST):
        segment = frames.tcp(*ends, (9000 + flags, 80), flags)
        assert world.passes(anna, bert, segment)
        assert not world.passes(anna, bert, frames.tcp(*ends, (9000 + flags, 81), flags))


def test_nothing_is_remembered_of_what_passes_between_stateless_ports(
    world: World, anna: Vm, bert: Vm
) -> None:
    world.wire(anna, stateless(*everything("egress"), *everything("ingress")))
    world.wire(bert, stateless(*everything("egress"), *everything("ingress")))
    world.switch.appctl("dpctl/flush-conntrack")
    assert world.reaches(anna, bert, 80)
    assert world.reaches(anna, bert, 53, "udp", version=6)
    assert not [line for line in world.conntrack() if ip(bert) in line or ip(bert, 6) in line]


def test_a_removed_rule_stops_its_direction_at_once_and_for_good(
    world: World, anna: Vm, bert: Vm
) -> None:
    there, back = served("udp", 7001)
    rules = stateless(there, back)
    world.wire(bert, rules)
    world.serve(bert, 7001, "udp")
    connection = anna.open(bert.ip, 7001, "udp")
    assert connection.ask() == "bert"
    for left in ([there], [back]):
        world.replace(rules, *left)
        assert connection.ask(timeout=0.3) is None
        world.replace(rules, there, back)
        assert connection.ask() == "bert"


def test_a_stateful_peer_keeps_its_memory(world: World, anna: Vm, bert: Vm) -> None:
    """Anna is stateful and has no ingress rule: she gets answers, and nothing else."""
    world.wire(bert, stateless(*everything("egress"), *everything("ingress")))
    for version in (4, 6):
        assert world.reaches(anna, bert, 80, version=version)
        assert anna.ping(ip(bert, version))
        assert not world.syn_passes(bert, anna, 80, version=version)
        assert not world.udp_passes(bert, anna, 53, version=version)


@pytest.mark.parametrize("version", [4, 6])
def test_remote_groups_work_in_both_directions(
    world: World, anna: Vm, bert: Vm, otto: Vm, version: int
) -> None:
    friends = group(members=[anna])
    world.add(friends)
    world.wire(
        bert,
        stateless(
            rule(ethertype=f"IPv{version}", remote_group_id=friends.id),
            rule("egress", ethertype=f"IPv{version}", remote_group_id=friends.id),
        ),
    )
    assert world.reaches(anna, bert, 80, version=version)
    assert not world.syn_passes(otto, bert, 80, version=version)
    assert not world.udp_passes(bert, otto, 53, version=version)


def test_spoofing_is_stopped_as_ever(world: World, bert: Vm, otto: Vm) -> None:
    world.wire(bert, stateless(*everything("egress"), *everything("ingress")))
    assert world.udp_passes(bert, otto, 53)
    for mac, address in (("fa:16:3e:66:66:66", bert.ip), (bert.mac, "10.0.0.166")):
        forged = frames.udp((mac, otto.mac), (address, otto.ip), (1, 53), b"forged")
        assert not world.passes(bert, otto, forged)


def test_a_port_becomes_stateless_and_stateful_again(world: World, anna: Vm, bert: Vm) -> None:
    world.serve(bert, 80)
    question, answer = served("tcp", 80)
    world.wire(bert, group(question))
    connection = anna.open(bert.ip, 80)
    assert connection.ask() == "bert"
    world.wire(bert, stateless(question))
    assert connection.ask(timeout=0.3) is None
    world.wire(bert, stateless(question, answer))
    assert connection.ask(timeout=5) == "bert"
    world.wire(bert, group(question))
    assert connection.ask(timeout=5) == "bert"
    assert not world.syn_passes(bert, anna, 80)


def test_stateful_and_stateless_groups_on_one_port_are_refused_and_change_nothing(
    world: World, anna: Vm, bert: Vm
) -> None:
    web = group(rule(protocol="tcp", port=80))
    world.wire(bert, web)
    flows = world.flows()
    world.want(bert, web, stateless(*everything("ingress")))
    assert world.refused(bert).type == "Conflict"
    assert world.flows() == flows
    assert world.reaches(anna, bert, 80)
    assert not world.syn_passes(anna, bert, 81)
