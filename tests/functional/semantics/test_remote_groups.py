"""Cases 5 to 7: rules that name a group instead of an address, and rules that say the same."""

import pytest

from lab import frames
from lab.model import Rule, address_group, everything, group, ip, rule
from lab.vm import Vm
from tests.functional.semantics.world import World


def both_families(direction: str = "ingress", **fields: object) -> list[Rule]:
    return [rule(direction, **fields), rule(direction, ethertype="IPv6", **fields)]


class TestRemoteGroup:
    @pytest.mark.parametrize("version", [4, 6])
    def test_members_of_the_ports_own_group_talk_and_others_do_not(
        self, world: World, anna: Vm, bert: Vm, otto: Vm, version: int
    ) -> None:
        mine = group(members=[anna, bert])
        mine = group(
            *both_families(remote_group_id=mine.id),
            *both_families("egress", remote_group_id=mine.id),
            members=[anna, bert],
            id=mine.id,
        )
        world.wire(anna, mine)
        world.wire(bert, mine)
        assert world.reaches(anna, bert, 80, version=version)
        assert world.reaches(bert, anna, 80, version=version)
        assert not world.udp_passes(otto, bert, 53, version=version)
        assert not world.udp_passes(bert, otto, 53, version=version)

    def test_members_of_another_group_are_let_in_and_nobody_else(
        self, world: World, anna: Vm, bert: Vm, carl: Vm
    ) -> None:
        web = group(members=[anna])
        world.add(web)
        world.wire(carl, group(*everything("egress")))
        world.wire(bert, group(rule(protocol="tcp", port=5432, remote_group_id=web.id)))
        assert world.reaches(anna, bert, 5432)
        assert not world.syn_passes(anna, bert, 5433)
        assert not world.syn_passes(carl, bert, 5432)
        assert not world.syn_passes(anna, bert, 5432, version=6)

    def test_a_group_without_members_lets_nobody_in(self, world: World, anna: Vm, bert: Vm) -> None:
        empty = group()
        world.add(empty)
        world.wire(bert, group(*both_families(remote_group_id=empty.id)))
        assert not world.udp_passes(anna, bert, 53)
        assert not world.udp_passes(anna, bert, 53, version=6)

    @pytest.mark.parametrize("version", [4, 6])
    def test_a_member_on_another_host_counts_in_both_directions(
        self, world: World, bert: Vm, carl: Vm, otto: Vm, version: int
    ) -> None:
        web = group(members=[otto])
        world.add(web)
        world.wire(carl, group(*everything("egress"), *everything("ingress")))
        world.wire(
            bert,
            group(
                *both_families(remote_group_id=web.id),
                *both_families("egress", remote_group_id=web.id),
            ),
        )
        assert world.reaches(otto, bert, 80, version=version)
        assert world.reaches(bert, otto, 80, version=version)
        assert not world.udp_passes(carl, bert, 53, version=version)
        assert not world.udp_passes(bert, carl, 53, version=version)

    def test_a_member_behind_a_router_is_known_by_its_address(
        self, world: World, bert: Vm, otto: Vm
    ) -> None:
        web = group(members=["198.51.100.7"])
        world.add(web)
        world.wire(bert, group(rule(remote_group_id=web.id)))

        def enters(source: str) -> bool:
            frame = frames.udp((otto.mac, bert.mac), (source, bert.ip), (4000, 53), source.encode())
            return world.passes(otto, bert, frame)

        assert enters("198.51.100.7")
        assert not enters("198.51.100.8")

    def test_address_pairs_of_a_member_count_as_members(
        self, world: World, bert: Vm, otto: Vm
    ) -> None:
        web = group(members=[otto, "192.168.7.0/28", "2001:db8:7::/64"])
        world.add(web)
        world.wire(bert, group(*both_families(remote_group_id=web.id)))

        def enters(source: str, target: str) -> bool:
            frame = frames.udp((otto.mac, bert.mac), (source, target), (4000, 53), source.encode())
            return world.passes(otto, bert, frame)

        assert enters("192.168.7.15", bert.ip)
        assert not enters("192.168.7.16", bert.ip)
        assert enters("2001:db8:7::1:2", ip(bert, 6))
        assert not enters("2001:db8:8::1", ip(bert, 6))

    def test_a_member_that_comes_is_let_in_and_one_that_goes_is_cut(
        self, world: World, anna: Vm, bert: Vm, carl: Vm
    ) -> None:
        web = group()
        world.add(web)
        world.wire(carl, group(*everything("egress")))
        world.wire(bert, group(*both_families(remote_group_id=web.id)))
        assert not world.syn_passes(anna, bert, 80)
        world.replace(web, members=[anna, carl])
        world.serve(bert, 80)
        hers, his = anna.open(bert.ip, 80), carl.open(ip(bert, 6), 80)
        assert hers.ask() == his.ask() == "bert"
        world.replace(web, members=[carl])
        assert his.ask() == "bert"
        assert hers.ask(timeout=0.4) is None
        assert not world.syn_passes(anna, bert, 80)
        world.replace(web, members=[anna, carl])
        assert hers.ask(timeout=5) == "bert"
        assert his.ask() == "bert"

    def test_a_member_of_two_groups_stays_when_one_of_them_loses_it(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        red, blue = group(members=[anna]), group(members=[anna])
        world.add(red, blue)
        world.wire(
            bert,
            group(
                rule(protocol="tcp", remote_group_id=red.id),
                rule(protocol="udp", remote_group_id=blue.id),
            ),
        )
        assert world.syn_passes(anna, bert, 80)
        assert world.udp_passes(anna, bert, 53)
        world.replace(red, members=[])
        assert not world.syn_passes(anna, bert, 80)
        assert world.udp_passes(anna, bert, 53)


class TestAddressGroup:
    @pytest.mark.parametrize("version", [4, 6])
    def test_its_addresses_are_let_in_and_reached(
        self, world: World, anna: Vm, bert: Vm, otto: Vm, version: int
    ) -> None:
        offices = address_group(f"{ip(otto)}/32", f"{ip(otto, 6)}/128", "10.9.0.0/16")
        world.add(offices)
        world.wire(
            bert,
            group(
                *both_families(remote_address_group_id=offices.id),
                *both_families("egress", remote_address_group_id=offices.id),
            ),
        )
        assert world.udp_passes(otto, bert, 53, version=version)
        assert world.udp_passes(bert, otto, 53, version=version)
        assert not world.udp_passes(anna, bert, 53, version=version)

    def test_an_address_taken_out_is_cut(self, world: World, bert: Vm, otto: Vm) -> None:
        offices = address_group(f"{otto.ip}/32")
        world.add(offices)
        world.wire(bert, group(rule(remote_address_group_id=offices.id)))
        world.serve(bert, 80)
        connection = otto.open(bert.ip, 80)
        assert connection.ask() == "bert"
        world.replace_addresses(offices, "10.9.0.0/16")
        assert connection.ask(timeout=0.4) is None
        world.replace_addresses(offices, "10.0.0.0/24")
        assert connection.ask(timeout=5) == "bert"

    def test_one_that_overlaps_a_remote_group_keeps_its_own_rules(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        web = group(members=[anna])
        # As a host of its own and inside a prefix; otto is in the prefix only.
        offices = address_group(f"{anna.ip}/32", "10.0.0.0/24")
        world.add(web, offices)
        world.wire(
            bert,
            group(
                rule(protocol="tcp", remote_group_id=web.id),
                rule(protocol="udp", port_range_min=1000, port_range_max=2000,
                     remote_address_group_id=offices.id),
            ),
        )  # fmt: skip
        assert world.syn_passes(anna, bert, 80)
        assert world.udp_passes(anna, bert, 1500)
        assert not world.udp_passes(anna, bert, 53)
        assert not world.syn_passes(otto, bert, 80)
        assert world.udp_passes(otto, bert, 1500)
        world.replace_addresses(offices, "10.9.0.0/16")
        assert world.syn_passes(anna, bert, 80)
        assert not world.udp_passes(anna, bert, 1500)


class TestRulesThatSayTheSame:
    def test_the_same_rule_through_several_groups_stays_until_the_last_of_them_goes(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        one, two = (group(rule(protocol="tcp", port=80)) for _ in range(2))
        world.wire(bert, one, two)
        world.serve(bert, 80)
        connection = anna.open(bert.ip, 80)
        assert connection.ask() == "bert"
        world.replace(one)
        assert connection.ask() == "bert"
        world.replace(two)
        assert connection.ask(timeout=0.4) is None

    def test_overlapping_ranges_of_several_groups_add_up(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        low = group(rule(protocol="udp", port_range_min=80, port_range_max=90))
        high = group(rule(protocol="udp", port_range_min=85, port_range_max=99))
        world.wire(bert, low, high)
        ports = (79, 80, 85, 90, 91, 99, 100)
        passing = [port for port in ports if world.udp_passes(anna, bert, port)]
        assert passing == [80, 85, 90, 91, 99]
        world.replace(low)
        passing = [port for port in ports if world.udp_passes(anna, bert, port)]
        assert passing == [85, 90, 91, 99]

    def test_overlapping_ranges_of_several_remote_groups_are_each_for_its_own_members(
        self, world: World, anna: Vm, bert: Vm, carl: Vm
    ) -> None:
        """The switch has one flow where both say the same: it must stand for both."""
        red, blue = group(members=[anna]), group(members=[carl])
        world.add(red, blue)
        world.wire(carl, group(*everything("egress")))
        ranges = {red.id: (80, 95), blue.id: (80, 99)}
        world.wire(
            bert,
            *(
                group(rule(protocol="udp", port_range_min=low, port_range_max=high,
                           remote_group_id=remote))
                for remote, (low, high) in ranges.items()
            ),
        )  # fmt: skip
        for source, expected in ((anna, [80, 95]), (carl, [80, 95, 96, 99])):
            ports = (79, 80, 95, 96, 99, 100)
            assert [p for p in ports if world.udp_passes(source, bert, p)] == expected
