"""Source ports, overlapping ranges of several groups, ICMPv6 by type, permitted ethertypes."""

import uuid

import pytest

from agent_flows.engine.task import PortErrors
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.spec import AddressGroupSpec
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BOTH_HOMES, Host, Vm, outsider

LLDP = 0x88CC


def tcp(
    direction: str = "ingress",
    *,
    to: tuple[int, int] | None = None,
    from_: tuple[int, int] | None = None,
    protocol: str = "tcp",
    **fields: object,
) -> dict[str, object]:
    made = rule(direction, protocol=protocol, **fields)
    if to:
        made |= {"port_range_min": to[0], "port_range_max": to[1]}
    if from_:
        made |= {"source_port_range_min": from_[0], "source_port_range_max": from_[1]}
    return made


@pytest.fixture
def server(host: Host) -> Vm:
    return host.boot(1)


def serve(host: Host, vm: Vm, *rules: dict[str, object]) -> None:
    host.port(vm, group(*rules))
    host.wire(vm)


@BOTH_HOMES
class TestSourcePorts:
    def test_alone(self, host: Host, server: Vm) -> None:
        serve(host, server, tcp(from_=(1000, 1010)))
        passes = [host.tcp(outsider(), server, 80, sport=each) for each in (999, 1000, 1010, 1011)]
        assert passes == [False, True, True, False]
        assert host.tcp(outsider(), server, 443, sport=1005)

    def test_and_destination_ports(self, host: Host, server: Vm) -> None:
        serve(host, server, tcp(to=(80, 90), from_=(1000, 1010)))
        assert host.tcp(outsider(), server, 80, sport=1000)
        assert host.tcp(outsider(), server, 90, sport=1010)
        assert not host.tcp(outsider(), server, 91, sport=1000)
        assert not host.tcp(outsider(), server, 80, sport=1011)

    def test_of_a_rule_for_what_is_sent(self, host: Host, server: Vm) -> None:
        serve(host, server, tcp("egress", protocol="udp", from_=(123, 123)))
        assert host.udp(server, outsider(), 123, sport=123)
        assert not host.udp(server, outsider(), 123, sport=124)

    def test_of_rules_that_overlap(self, host: Host, server: Vm) -> None:
        serve(
            host, server, tcp(to=(80, 80), from_=(1000, 1002)), tcp(to=(80, 81), from_=(1000, 1001))
        )
        passes = {
            (port, source): host.tcp(outsider(), server, port, sport=source)
            for port in (80, 81)
            for source in (1001, 1002)
        }
        assert passes == {(80, 1001): True, (80, 1002): True, (81, 1001): True, (81, 1002): False}

    def test_with_a_remote_group(self, host: Host, server: Vm) -> None:
        webs = group(members=[outsider()])
        host.add(webs)
        serve(host, server, tcp(to=(80, 90), from_=(1000, 1010), remote_group_id=webs.id))
        assert host.tcp(outsider(), server, 85, sport=1005)
        assert not host.tcp(outsider(), server, 85, sport=999)
        assert not host.tcp(outsider().but(ip="203.0.113.98"), server, 85, sport=1005)

    def test_of_sctp(self, host: Host, server: Vm) -> None:
        serve(host, server, tcp(protocol="sctp", from_=(5000, 5003)))
        peer = outsider()

        def sent(source: int) -> bool:
            ends = (peer.mac, server.mac), (peer.ip, server.ip)
            return host.sent(peer, server, packets.sctp(*ends, (source, 9)))

        assert sent(5003)
        assert not sent(5004)


@BOTH_HOMES
class TestOverlappingRangesOfRemoteGroups:
    """Flows of one priority that match the same packet, each for another group."""

    def test_every_group_keeps_all_of_its_range(self, host: Host, server: Vm) -> None:
        hosts = {name: outsider().but(ip=f"203.0.113.{number}") for number, name in
                 enumerate(("red", "blue", "green", "grey"), 1)}  # fmt: skip
        ranges = {"red": (80, 95), "blue": (80, 99), "green": (64, 127), "grey": None}
        remotes = {name: group(members=[vm]) for name, vm in hosts.items()}
        host.add(*remotes.values())
        host.port(server, *(
            group(tcp(to=ranges[name], remote_group_id=remotes[name].id)) for name in hosts
        ))  # fmt: skip
        host.wire(server)
        for name, vm in hosts.items():
            low, high = ranges[name] or (1, 65535)
            for port in (1, 63, 64, 79, 80, 95, 96, 99, 100, 127, 128):
                assert host.tcp(vm, server, port) == (low <= port <= high), (name, port)

    def test_an_address_of_a_group_an_address_group_and_a_rule(
        self, host: Host, server: Vm
    ) -> None:
        one, two = outsider(), outsider().but(ip="203.0.113.5")
        webs = group(members=[one])
        offices = AddressGroupSpec(id=str(uuid.uuid4()), addresses=("203.0.113.0/24", f"{one.ip}"))
        host.add(webs, offices)
        host.port(
            server,
            group(tcp(to=(80, 89), remote_group_id=webs.id)),
            group(tcp(to=(85, 95), remote_address_group_id=offices.id)),
            group(tcp(to=(89, 89), remote_ip_prefix="203.0.113.4/30")),
        )
        host.wire(server)
        expected = {80: (1, 0), 84: (1, 0), 85: (1, 1), 89: (1, 1), 95: (1, 1), 96: (0, 0)}
        for port, passes in expected.items():
            seen = tuple(int(host.tcp(vm, server, port)) for vm in (one, two))
            assert seen == passes, port

    def test_a_group_taken_away_takes_its_range_only(self, host: Host, server: Vm) -> None:
        one, two = outsider(), outsider().but(ip="203.0.113.5")
        red, blue = group(members=[one]), group(members=[two])
        host.add(red, blue)
        for_red = group(tcp(to=(80, 95), remote_group_id=red.id))
        for_blue = group(tcp(to=(80, 99), remote_group_id=blue.id))
        host.port(server, for_red, for_blue)
        host.wire(server)
        host.port(server, for_blue)
        host.wire(server)
        assert not host.tcp(one, server, 80)
        assert host.tcp(two, server, 80)
        assert host.tcp(two, server, 99)


@BOTH_HOMES
class TestIcmpV6ByType:
    def test_echo_but_not_every_type(self, host: Host, server: Vm) -> None:
        serve(host, server, rule(ethertype="IPv6", protocol="ipv6-icmp", port_range_min=128))
        assert host.icmp(outsider(), server, 128, v6=True)
        assert not host.icmp(outsider(), server, 129, v6=True)

    @pytest.mark.parametrize("type_", [131, 132, 133, 137, 143])
    def test_what_conntrack_does_not_know(self, host: Host, server: Vm, type_: int) -> None:
        icmp = {"ethertype": "IPv6", "protocol": "icmp", "port_range_min": type_}
        serve(host, server, rule(**icmp), rule("egress", **icmp))
        assert host.icmp(outsider(), server, type_, v6=True)
        assert host.icmp(server, outsider(), type_, v6=True)
        assert not host.icmp(server.but(ip6="2001:db8::66"), outsider(), type_, v6=True)
        serve(host, server)
        assert not host.icmp(outsider(), server, type_, v6=True)
        # A router is looked for without a rule.
        assert host.icmp(server, outsider(), type_, v6=True) == (type_ == 133)

    def test_between_local_ports(self, host: Host, server: Vm) -> None:
        client = host.boot(2)
        report = {"ethertype": "IPv6", "protocol": "icmp", "port_range_min": 143}
        serve(host, client, rule("egress", **report))
        serve(host, server, rule(**report))
        assert host.icmp(client, server, 143, v6=True)
        serve(host, server)
        assert not host.icmp(client, server, 143, v6=True)

    def test_a_rule_for_all_of_icmpv6_opens_no_router_advertisement(
        self, host: Host, server: Vm
    ) -> None:
        serve(host, server, rule("egress", ethertype="IPv6", protocol="icmp"))
        assert not host.icmp(server, outsider(), 134, v6=True)


@BOTH_HOMES
def test_icmp_code_zero_is_a_code(host: Host, server: Vm) -> None:
    serve(host, server, rule(protocol="icmp", port_range_min=8, port_range_max=0))
    assert host.icmp(outsider(), server, 8, 0)
    assert not host.icmp(outsider(), server, 8, 1)


@BOTH_HOMES
@pytest.mark.parametrize("number", [0, 4, 50, 89, 255])
def test_protocol_of_any_number(host: Host, server: Vm, number: int) -> None:
    serve(host, server, rule(protocol=number))
    ends = (outsider().mac, server.mac), (outsider().ip, server.ip)
    assert host.sent(outsider(), server, packets.ip(*ends, "", number))
    assert not host.sent(outsider(), server, packets.ip(*ends, "", 47))


@BOTH_HOMES
@pytest.mark.parametrize("protocol", ["dccp", "udplite"])
def test_ports_of_a_protocol_the_switch_cannot_match_are_refused_by_name(
    host: Host, server: Vm, protocol: str
) -> None:
    web = group(rule(), tcp(protocol=protocol, to=(80, 90), from_=(1, 5)))
    host.port(server, web)
    with pytest.raises(PortErrors) as raised:
        host.apply(server)
    error = raised.value.errors[server.id]
    assert error.type == "Unsupported"
    named = f"group {web.id}, rule ingress IPv4 protocol {protocol} ports 80-90 source ports 1-5"
    assert named in error.message
    # All of the protocol can be matched.
    serve(host, server, rule(protocol=protocol))


@pytest.mark.parametrize(
    "pipeline",
    [Pipeline(home, frozenset({LLDP})) for home in Home],
    ids=[home.value for home in Home],
)
class TestPermittedEthertypes:
    def test_pass_without_a_rule(self, host: Host, server: Vm) -> None:
        serve(host, server)
        peer = outsider()
        assert host.sent(server, peer, packets.other((server.mac, peer.mac), LLDP))
        assert host.sent(peer, server, packets.other((peer.mac, server.mac), LLDP))

    def test_no_others_do(self, host: Host, server: Vm) -> None:
        serve(host, server, rule(), *egress_to_anywhere())
        peer = outsider()
        assert not host.sent(server, peer, packets.other((server.mac, peer.mac), 0x88CD))
        assert not host.sent(peer, server, packets.other((peer.mac, server.mac), 0x88CD))

    def test_between_local_ports(self, host: Host, server: Vm) -> None:
        other = host.boot(2)
        host.port(server, group())
        host.port(other, group())
        host.wire(server, other)
        assert host.sent(server, other, packets.other((server.mac, other.mac), LLDP))
