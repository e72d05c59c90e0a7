"""Established connections: replies, related packets, and what happens when a rule goes."""

import socket
import struct

import pytest

from lab import frames
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BOTH_HOMES, Host, Vm, outsider

pytestmark = BOTH_HOMES

HTTP = rule(protocol="tcp", port_range_min=80, port_range_max=80)
HTTP_ANSWERS_OUT = rule(
    "egress", protocol="tcp", source_port_range_min=80, source_port_range_max=80
)
HTTP_ANSWERS_IN = rule(protocol="tcp", source_port_range_min=80, source_port_range_max=80)
HTTP_OUT = rule("egress", protocol="tcp", port_range_min=80, port_range_max=80)


@pytest.fixture
def client(host: Host) -> Vm:
    made = host.boot(1)
    host.port(made, group(*egress_to_anywhere()))
    host.wire(made)
    return made


@pytest.fixture
def server(host: Host) -> Vm:
    made = host.boot(2)
    serve(host, made, HTTP)
    return made


def serve(host: Host, vm: Vm, *rules: dict[str, object]) -> None:
    host.port(vm, group(*rules))
    host.wire(vm)


def test_replies_need_no_rule_and_what_looks_alike_does(host: Host, client: Vm, server: Vm) -> None:
    assert not host.tcp_reply(server, client, 80)
    assert not host.udp(server, client, 80)
    assert host.connect(client, server, 80)
    assert host.connect(client, outsider(), 443)
    assert not host.tcp(outsider(), client, 443, "syn", 50000)
    assert host.connect(outsider(), server, 80)
    assert not host.tcp(server, outsider(), 443, "syn", 50000)


def test_port_without_port_security_answers_a_filtered_one(host: Host, client: Vm) -> None:
    free = host.boot(3)
    host.port(free, port_security_enabled=False)
    host.wire(free)
    assert host.connect(client, free, 80)
    assert not host.tcp(free, client, 80)


def test_removed_rule_cuts_the_connection_both_ways_and_mends_it_when_it_is_back(
    host: Host, client: Vm, server: Vm
) -> None:
    assert host.connect(client, server, 80)
    serve(host, server)
    assert not host.tcp(client, server, 80, "ack")
    assert not host.tcp_reply(server, client, 80, "ack")
    assert not host.tcp(client, server, 80, "syn", 40001)
    serve(host, server, HTTP)
    assert host.tcp(client, server, 80, "ack")
    assert host.tcp_reply(server, client, 80, "ack")


@pytest.mark.parametrize("rules", [(rule(protocol="tcp"),), (HTTP, rule(protocol="udp"))])
def test_update_that_still_allows_it_keeps_the_connection(
    host: Host, client: Vm, server: Vm, rules: tuple[dict[str, object], ...]
) -> None:
    assert host.connect(client, server, 80)
    serve(host, server, *rules)
    assert host.tcp(client, server, 80, "ack")
    assert host.tcp_reply(server, client, 80, "ack")


def test_holder_of_a_shared_mac_that_refuses_does_not_cut_the_others_connection(
    host: Host, client: Vm
) -> None:
    one, two = host.boot(2), host.boot(3)
    virtual = one.but(mac="00:00:5e:00:01:07", ip="10.0.0.77")
    pairs = [{"ip_address": "10.0.0.77/32", "mac_address": virtual.mac}]
    host.port(one, group(*egress_to_anywhere(), rule()), allowed_address_pairs=pairs)
    host.port(two, group(), allowed_address_pairs=pairs)
    host.wire(one, two)
    assert host.connect(client, virtual, 80)
    assert host.tcp(client, virtual, 80, "ack")
    assert host.tcp_reply(virtual, client, 80, "ack")


@pytest.mark.parametrize("first", [True, False], ids=["stateless first", "stateful first"])
def test_answer_of_the_stateful_holder_of_a_shared_mac_needs_no_rule(
    host: Host, client: Vm, first: bool
) -> None:
    ports = [host.boot(2), host.boot(3)]
    stateless, stateful = ports if first else ports[::-1]
    virtual = client.but(mac="00:00:5e:00:01:07", ip="10.0.0.77")
    pairs = [{"ip_address": "10.0.0.77/32", "mac_address": virtual.mac}]
    host.port(stateless, group(HTTP, stateful=False), allowed_address_pairs=pairs)
    host.port(stateful, group(HTTP), allowed_address_pairs=pairs)
    host.wire(stateless, stateful)
    syn = packets.tcp((client.mac, virtual.mac), (client.ip, virtual.ip), (40000, 80), "syn")
    assert {stateless.name, stateful.name} <= host.send(client.name, syn)
    assert host.tcp_reply(virtual.but(name=stateful.name), client, 80)
    assert not host.tcp_reply(virtual.but(name=stateless.name), client, 80)


def test_icmp_error_about_a_connection_is_related_to_it(host: Host, client: Vm) -> None:
    peer, router = outsider(), outsider().but(ip="192.0.2.1")
    unreachable = packets.icmp((router.mac, client.mac), (router.ip, client.ip), 3, 1)
    assert not host.sent(router, client, unreachable)
    assert host.udp(client, peer, 53)
    assert related_passes(host, router, client, peer)


def related_passes(host: Host, router: Vm, client: Vm, peer: Vm) -> bool:
    """Whether port-unreachable about client's datagram to peer reaches client: written out,
    for the datapath's notation cannot say what an ICMP error quotes."""
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 32, 1, 0, 64, 17, 0)
    quoted += socket.inet_aton(client.ip) + socket.inet_aton(peer.ip)
    quoted = quoted[:10] + struct.pack("!H", frames.checksum(quoted)) + quoted[12:]
    quoted += struct.pack("!HHHH", 40000, 53, 12, 0) + b"\0" * 4
    body = struct.pack("!BBHI", 3, 3, 0, 0) + quoted
    body = body[:2] + struct.pack("!H", frames.checksum(body)) + body[4:]
    frame = frames.ip(router.mac, client.mac, router.ip, client.ip, 1, body)
    return client.name in host.send_frame(
        router.name, frame[:12] + b"\x81\x00\x03\xe9" + frame[12:]
    )


def test_invalid_packet_is_dropped_whatever_the_rules_say(host: Host, client: Vm) -> None:
    vm = host.boot(3)
    serve(host, vm, rule())
    assert not host.tcp(client, vm, 80, "syn|fin")
    assert host.tcp(client, vm, 80, "syn")


def test_removed_egress_rule_cuts_the_connection(host: Host, client: Vm) -> None:
    peer = outsider()
    assert host.connect(client, peer, 443)
    host.port(client, group())
    host.wire(client)
    assert not host.tcp(client, peer, 443, "ack")
    assert not host.tcp_reply(peer, client, 443, "ack")
    host.port(client, group(*egress_to_anywhere()))
    host.wire(client)
    assert host.tcp(client, peer, 443, "ack")
    assert host.tcp_reply(peer, client, 443, "ack")


def test_member_that_leaves_is_cut(host: Host, client: Vm) -> None:
    vm, webs = host.boot(3), group(members=[client])
    host.add(webs)
    serve(host, vm, rule(remote_group_id=webs.id))
    assert host.connect(client, vm, 80)
    host.add(group(id=webs.id))
    serve(host, vm, rule(remote_group_id=webs.id))
    assert not host.tcp(client, vm, 80, "ack")
    assert not host.tcp_reply(vm, client, 80, "ack")


class TestStatelessPort:
    """A port of a stateless group remembers nothing; its stateful peer does."""

    @pytest.fixture
    def vm(self, host: Host) -> Vm:
        return host.boot(3)

    @pytest.fixture
    def peer(self, host: Host) -> Vm:
        """Stateful; serves HTTP and may send anything."""
        made = host.boot(4)
        wire(host, made, HTTP, *egress_to_anywhere(), stateful=True)
        return made

    def test_no_connection_is_kept(self, host: Host, vm: Vm) -> None:
        wire(host, vm, rule(), rule(ethertype="IPv6"), *egress_to_anywhere())
        assert host.connect(outsider(), vm, 80)
        assert host.udp(vm, outsider(), 53, v6=True)
        assert not tracked(host)

    def test_connection_that_its_peer_cuts_is_mended_with_the_peers_rule(
        self, host: Host, vm: Vm, peer: Vm
    ) -> None:
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.connect(peer, vm, 80)
        wire(host, peer, stateful=True)
        assert not host.tcp(peer, vm, 80, "ack")
        assert not host.tcp_reply(vm, peer, 80, "ack")
        wire(host, peer, *egress_to_anywhere(), stateful=True)
        assert host.tcp(peer, vm, 80, "ack")
        assert host.tcp_reply(vm, peer, 80, "ack")

    def test_connection_to_its_peer_is_cut_by_the_peers_rules(
        self, host: Host, vm: Vm, peer: Vm
    ) -> None:
        wire(host, vm, HTTP_OUT, HTTP_ANSWERS_IN)
        assert host.connect(vm, peer, 80)
        wire(host, peer, *egress_to_anywhere(), stateful=True)
        assert not host.tcp(vm, peer, 80, "ack")
        assert not host.tcp_reply(peer, vm, 80, "ack")
        wire(host, peer, HTTP, stateful=True)
        assert host.tcp(vm, peer, 80, "ack")
        assert host.tcp_reply(peer, vm, 80, "ack")

    def test_connection_of_its_peer_survives_a_pause_of_its_own_rule(
        self, host: Host, vm: Vm, peer: Vm
    ) -> None:
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.connect(peer, vm, 80)
        wire(host, vm, HTTP_ANSWERS_OUT)
        assert not host.tcp(peer, vm, 80, "ack")
        assert host.tcp_reply(vm, peer, 80, "ack")
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.tcp(peer, vm, 80, "ack")

    def test_port_is_switched_to_stateless_and_back(self, host: Host, vm: Vm) -> None:
        wire(host, vm, HTTP, stateful=True)
        assert host.connect(outsider(), vm, 80)
        wire(host, vm, HTTP)
        assert host.tcp(outsider(), vm, 80, "ack")
        assert not host.tcp_reply(vm, outsider(), 80, "ack")
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.tcp_reply(vm, outsider(), 80, "ack")
        wire(host, vm, HTTP, stateful=True)
        assert host.tcp(outsider(), vm, 80, "ack")
        assert host.tcp_reply(vm, outsider(), 80, "ack")
        assert not host.tcp(vm, outsider(), 40001, sport=80)


def wire(host: Host, vm: Vm, *rules: dict[str, object], stateful: bool = False) -> None:
    host.port(vm, group(*rules, stateful=stateful))
    host.wire(vm)


def tracked(host: Host) -> bool:
    """Whether conntrack knows of any connection."""
    return bool(host.switch.appctl("dpctl/dump-conntrack"))
