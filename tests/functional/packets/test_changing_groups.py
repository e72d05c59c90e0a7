"""Groups that change while connections are open: members, addresses and rules that come and go."""

import ipaddress

from agent_flows.spec import AddressPair
from lab import frames
from lab.model import Rule, address_group, everything, group, ip, rule
from lab.vm import Vm
from tests.functional.packets.world import World


def both_families(direction: str = "ingress", **fields: object) -> list[Rule]:
    return [rule(direction, **fields), rule(direction, ethertype="IPv6", **fields)]


def test_group_removed_from_a_port_cuts_its_connections(
    world: World, sender: Vm, guarded: Vm
) -> None:
    web, mail = group(rule(protocol="tcp", port=80)), group(rule(protocol="tcp", port=25))
    world.wire(guarded, web, mail)
    world.serve(guarded, 25)
    connection = sender.open(guarded.ip, 25)
    assert connection.ask() == "guarded"
    world.wire(guarded, web)
    assert connection.ask(timeout=0.4) is None
    assert not world.reaches(sender, guarded, 25)
    assert world.reaches(sender, guarded, 80)


def test_new_member_is_let_in_and_a_removed_one_is_cut(
    world: World, sender: Vm, guarded: Vm, third: Vm
) -> None:
    web = group()
    world.add(web)
    world.wire(third, group(*everything("egress")))
    world.wire(guarded, group(*both_families(remote_group_id=web.id)))
    assert not world.syn_passes(sender, guarded, 80)
    world.replace(web, members=[sender, third])
    world.serve(guarded, 80)
    first, second = sender.open(guarded.ip, 80), third.open(ip(guarded, 6), 80)
    assert first.ask() == second.ask() == "guarded"
    world.replace(web, members=[third])
    assert second.ask() == "guarded"
    assert first.ask(timeout=0.4) is None
    assert not world.syn_passes(sender, guarded, 80)
    world.replace(web, members=[sender, third])
    assert first.ask(timeout=5) == "guarded"
    assert second.ask() == "guarded"


def test_member_of_two_groups_keeps_the_rules_of_the_other(
    world: World, sender: Vm, guarded: Vm
) -> None:
    red, blue = group(members=[sender]), group(members=[sender])
    world.add(red, blue)
    world.wire(
        guarded,
        group(
            rule(protocol="tcp", remote_group_id=red.id),
            rule(protocol="udp", remote_group_id=blue.id),
        ),
    )
    assert world.syn_passes(sender, guarded, 80)
    assert world.udp_passes(sender, guarded, 53)
    world.replace(red, members=[])
    assert not world.syn_passes(sender, guarded, 80)
    assert world.udp_passes(sender, guarded, 53)


def test_address_removed_from_an_address_group_is_cut(
    world: World, guarded: Vm, outside: Vm
) -> None:
    offices = address_group(f"{outside.ip}/32")
    world.add(offices)
    world.wire(guarded, group(rule(remote_address_group_id=offices.id)))
    world.serve(guarded, 80)
    connection = outside.open(guarded.ip, 80)
    assert connection.ask() == "guarded"
    world.replace_addresses(offices, "10.9.0.0/16")
    assert connection.ask(timeout=0.4) is None
    world.replace_addresses(offices, "10.0.0.0/24")
    assert connection.ask(timeout=5) == "guarded"


def test_connection_stays_until_the_last_group_with_its_rule_loses_it(
    world: World, sender: Vm, guarded: Vm
) -> None:
    one, two = (group(rule(protocol="tcp", port=80)) for _ in range(2))
    world.wire(guarded, one, two)
    world.serve(guarded, 80)
    connection = sender.open(guarded.ip, 80)
    assert connection.ask() == "guarded"
    world.replace(one)
    assert connection.ask() == "guarded"
    world.replace(two)
    assert connection.ask(timeout=0.4) is None


def test_removed_address_pair_is_spoofing_again(world: World, guarded: Vm, outside: Vm) -> None:
    frame = frames.udp(
        (guarded.mac, outside.mac), ("192.168.7.9", outside.ip), (4000, 53), b"of the pair"
    )
    rules = group(*everything())
    pair = AddressPair(ipaddress.ip_network("192.168.7.0/28"))
    world.wire(guarded, rules, allowed_address_pairs=(pair,))
    assert world.passes(guarded, outside, frame)
    world.wire(guarded, rules)
    assert not world.passes(guarded, outside, frame)
