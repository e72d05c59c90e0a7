"""Cases 1 to 4: what rules say about protocols, ports, types and addresses, and what they
do not say."""

import pytest

from lab import frames
from lab.model import everything, group, ip, rule
from lab.traffic import Transport
from lab.vm import Vm
from tests.functional.semantics.world import World

V6 = "IPv6"


class TestDefaultDeny:
    def test_a_port_without_groups_neither_sends_nor_receives(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        world.wire(bert)
        for version in (4, 6):
            assert not world.reaches(anna, bert, 80, version=version)
            assert not world.udp_passes(otto, bert, 53, version=version)
            assert not world.udp_passes(bert, otto, 53, version=version)
        assert not anna.ping(bert.ip, timeout=0.3)

    def test_a_group_without_rules_allows_nothing(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        world.wire(bert, group(), group())
        assert not world.reaches(anna, bert, 80)
        assert not world.udp_passes(bert, otto, 53)

    def test_the_groups_of_a_port_add_up(self, world: World, anna: Vm, bert: Vm) -> None:
        world.wire(bert, group(rule(protocol="tcp", port=80)), group(rule(protocol="icmp")))
        assert world.reaches(anna, bert, 80)
        assert anna.ping(bert.ip)
        assert not world.reaches(anna, bert, 81)

    def test_a_group_taken_off_the_port_takes_its_rules_along(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        web, mail = group(rule(protocol="tcp", port=80)), group(rule(protocol="tcp", port=25))
        world.wire(bert, web, mail)
        world.serve(bert, 25)
        connection = anna.open(bert.ip, 25)
        assert connection.ask() == "bert"
        world.wire(bert, web)
        assert connection.ask(timeout=0.4) is None
        assert not world.reaches(anna, bert, 25)
        assert world.reaches(anna, bert, 80)


class TestDirectionAndProtocol:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_an_ingress_rule_opens_one_port_of_one_protocol_of_one_family(
        self, world: World, anna: Vm, bert: Vm, protocol: Transport, version: int
    ) -> None:
        world.wire(bert, group(rule(protocol=protocol, port=443, ethertype=f"IPv{version}")))
        assert passing(world, anna, bert) == [(protocol, 443, version)]
        assert world.reaches(anna, bert, 443, protocol, version=version)

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_an_egress_rule_opens_one_port_of_one_protocol_of_one_family(
        self, world: World, bert: Vm, otto: Vm, protocol: Transport, version: int
    ) -> None:
        world.wire(
            bert, group(rule("egress", protocol=protocol, port=443, ethertype=f"IPv{version}"))
        )
        assert passing(world, bert, otto) == [(protocol, 443, version)]
        assert world.reaches(bert, otto, 443, protocol, version=version)

    @pytest.mark.parametrize("version", [4, 6])
    def test_a_rule_without_a_protocol_is_for_every_protocol_of_its_family(
        self, world: World, anna: Vm, bert: Vm, version: int
    ) -> None:
        world.wire(bert, group(rule(ethertype=f"IPv{version}")))
        other = 10 - version
        assert world.reaches(anna, bert, 80, version=version)
        assert world.reaches(anna, bert, 53, "udp", version=version)
        assert anna.ping(ip(bert, version))
        assert world.passes(anna, bert, _unknown_protocol(anna, bert, 47, version))
        assert not world.reaches(anna, bert, 80, version=other)
        assert not anna.ping(ip(bert, other), timeout=0.3)

    def test_icmp_in_an_ipv6_rule_is_icmpv6(self, world: World, anna: Vm, bert: Vm) -> None:
        world.wire(bert, group(rule(protocol="icmp", ethertype=V6)))
        assert anna.ping(ip(bert, 6))
        assert not anna.ping(bert.ip, timeout=0.3)

    @pytest.mark.parametrize(("number", "name"), [(47, "gre"), (112, "vrrp"), (50, "50")])
    @pytest.mark.parametrize("version", [4, 6])
    def test_a_protocol_is_a_name_or_a_number(
        self, world: World, anna: Vm, bert: Vm, *, name: str, number: int, version: int
    ) -> None:
        world.wire(bert, group(rule(protocol=name, ethertype=f"IPv{version}")))
        assert world.passes(anna, bert, _unknown_protocol(anna, bert, number, version))
        assert not world.passes(anna, bert, _unknown_protocol(anna, bert, number + 1, version))
        assert not world.udp_passes(anna, bert, 53, version=version)

    @pytest.mark.parametrize("version", [4, 6])
    def test_sctp_has_ports(self, world: World, anna: Vm, bert: Vm, version: int) -> None:
        def opens(port: int) -> bool:
            addresses = (ip(anna, version), ip(bert, version))
            ports = (30000 + port, port)
            return world.passes(
                anna, bert, frames.sctp_init((anna.mac, bert.mac), addresses, ports)
            )

        world.wire(
            bert,
            group(
                rule(
                    protocol="sctp",
                    port_range_min=5000,
                    port_range_max=5003,
                    ethertype=f"IPv{version}",
                )
            ),
        )
        assert [opens(port) for port in (4999, 5000, 5003, 5004)] == [False, True, True, False]
        assert not world.udp_passes(anna, bert, 5000, version=version)


def passing(world: World, source: Vm, target: Vm) -> list[tuple[str, int, int]]:
    """Which of eight new connections are let through."""
    probes = {"tcp": world.syn_passes, "udp": world.udp_passes}
    return [
        (name, port, version)
        for name, probe in probes.items()
        for port in (443, 444)
        for version in (4, 6)
        if probe(source, target, port, version=version)
    ]


def _unknown_protocol(source: Vm, target: Vm, number: int, version: int) -> bytes:
    addresses = (ip(source, version), ip(target, version))
    return frames.ip(source.mac, target.mac, *addresses, number, b"number %03d of IP" % number)


class TestPortsAndTypes:
    def test_a_range_ends_where_it_says(self, world: World, anna: Vm, bert: Vm) -> None:
        world.wire(bert, group(rule(protocol="udp", port_range_min=1000, port_range_max=2001)))
        # The masks a range falls into meet at 1008, 1024 and 2000.
        expected = {999: False, 1000: True, 1007: True, 1008: True, 1023: True, 1024: True,
                    1999: True, 2000: True, 2001: True, 2002: False, 65535: False}  # fmt: skip
        assert {port: world.udp_passes(anna, bert, port) for port in expected} == expected

    def test_the_full_range_is_every_port(self, world: World, anna: Vm, bert: Vm) -> None:
        world.wire(bert, group(rule(protocol="udp", port_range_min=1, port_range_max=65535)))
        assert all(world.udp_passes(anna, bert, port) for port in (1, 2, 80, 32768, 65535))
        assert not world.reaches(anna, bert, 80)

    def test_a_range_of_source_ports_narrows_the_rule(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        world.wire(
            bert,
            group(
                rule(
                    protocol="udp",
                    port=53,
                    source_port_range_min=1024,
                    source_port_range_max=2047,
                ),
                rule(
                    "egress",
                    protocol="udp",
                    source_port_range_min=500,
                    source_port_range_max=500,
                ),
            ),
        )
        assert [
            world.udp_passes(anna, bert, 53, source_port=port) for port in (1023, 1024, 2047, 2048)
        ] == [False, True, True, False]
        assert not world.udp_passes(anna, bert, 54, source_port=1500)
        assert world.udp_passes(bert, otto, 4500, source_port=500)
        assert not world.udp_passes(bert, otto, 4500, source_port=501)

    @pytest.mark.parametrize("version", [4, 6])
    def test_an_icmp_rule_is_for_its_type_and_its_code(
        self, world: World, anna: Vm, bert: Vm, version: int
    ) -> None:
        request, reply = (8, 0) if version == 4 else (128, 129)
        # Open vSwitch tracks echo requests with code 0 only.
        for type_, code, pings in (
            (request, None, True), (request, 0, True), (request, 1, False), (reply, None, False),
        ):  # fmt: skip
            world.wire(
                bert,
                group(
                    rule(
                        protocol="icmp",
                        ethertype=f"IPv{version}",
                        port_range_min=type_,
                        port_range_max=code,
                    )
                ),
            )
            assert anna.ping(ip(bert, version), timeout=1 if pings else 0.2) == pings

    def test_type_zero_is_a_type_and_not_every_type(self, world: World, anna: Vm, bert: Vm) -> None:
        world.wire(bert, group(rule(protocol="icmp", port_range_min=0)))
        assert not anna.ping(bert.ip, timeout=0.3)
        world.wire(bert, group(rule(protocol="icmp", port_range_min=8, port_range_max=0)))
        assert anna.ping(bert.ip)


class TestPrefixes:
    @pytest.mark.parametrize("version", [4, 6])
    def test_a_prefix_narrows_who_may_come_in(
        self, world: World, anna: Vm, bert: Vm, otto: Vm, version: int
    ) -> None:
        host_bits = f"{ip(anna, version)}/{32 if version == 4 else 128}"
        world.wire(bert, group(rule(ethertype=f"IPv{version}", remote_ip_prefix=host_bits)))
        assert world.udp_passes(anna, bert, 53, version=version)
        assert not world.udp_passes(otto, bert, 53, version=version)

    @pytest.mark.parametrize("version", [4, 6])
    def test_a_prefix_narrows_who_may_be_reached(
        self, world: World, anna: Vm, bert: Vm, otto: Vm, version: int
    ) -> None:
        world.wire(anna, group(*everything("ingress")))
        host_bits = f"{ip(otto, version)}/{32 if version == 4 else 128}"
        world.wire(
            bert, group(rule("egress", ethertype=f"IPv{version}", remote_ip_prefix=host_bits))
        )
        assert world.udp_passes(bert, otto, 53, version=version)
        assert not world.udp_passes(bert, anna, 53, version=version)

    def test_a_prefix_ends_at_its_last_bit(self, world: World, bert: Vm, otto: Vm) -> None:
        world.wire(bert, group(rule(remote_ip_prefix="198.51.100.64/27")))

        def enters(source: str) -> bool:
            frame = frames.udp((otto.mac, bert.mac), (source, bert.ip), (4000, 53), source.encode())
            return world.passes(otto, bert, frame)

        assert [enters(f"198.51.100.{n}") for n in (63, 64, 95, 96)] == [False, True, True, False]

    @pytest.mark.parametrize(("version", "prefix"), [(4, "0.0.0.0/0"), (6, "::/0")])
    def test_a_prefix_of_length_zero_is_everybody_of_its_family(
        self, world: World, anna: Vm, bert: Vm, otto: Vm, *, version: int, prefix: str
    ) -> None:
        world.wire(bert, group(rule(ethertype=f"IPv{version}", remote_ip_prefix=prefix)))
        for source in (anna, otto):
            assert world.udp_passes(source, bert, 53, version=version)
            assert not world.udp_passes(source, bert, 53, version=10 - version)
