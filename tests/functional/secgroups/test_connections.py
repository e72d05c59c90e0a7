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


def test_replies_need_no_rule(host: Host, client: Vm, server: Vm) -> None:
    assert host.connect(client, server, 80)


def test_what_looks_like_a_reply_is_none(host: Host, client: Vm, server: Vm) -> None:
    assert not host.tcp_reply(server, client, 80)
    assert not host.udp(server, client, 80)


def test_replies_of_the_world_need_no_rule(host: Host, client: Vm) -> None:
    assert host.connect(client, outsider(), 443)
    assert not host.tcp(outsider(), client, 443, "syn", 50000)


def test_the_world_gets_its_replies(host: Host, server: Vm) -> None:
    assert host.connect(outsider(), server, 80)
    assert not host.tcp(server, outsider(), 443, "syn", 50000)


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


def test_removed_rule_cuts_the_connection_both_ways(host: Host, client: Vm, server: Vm) -> None:
    assert host.connect(client, server, 80)
    serve(host, server)
    assert not host.tcp(client, server, 80, "ack")
    assert not host.tcp_reply(server, client, 80, "ack")
    assert not host.tcp(client, server, 80, "syn", 40001)


def test_rule_that_is_back_lets_the_connection_pass_again(
    host: Host, client: Vm, server: Vm
) -> None:
    assert host.connect(client, server, 80)
    serve(host, server)
    assert not host.tcp(client, server, 80, "ack")
    serve(host, server, HTTP)
    assert host.tcp(client, server, 80, "ack")
    assert host.tcp_reply(server, client, 80, "ack")


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


def test_another_rule_that_still_allows_it_keeps_the_connection(
    host: Host, client: Vm, server: Vm
) -> None:
    assert host.connect(client, server, 80)
    serve(host, server, rule(protocol="tcp"))
    assert host.tcp(client, server, 80, "ack")
    assert host.tcp_reply(server, client, 80, "ack")


def test_update_that_does_not_concern_it_keeps_the_connection(
    host: Host, client: Vm, server: Vm
) -> None:
    assert host.connect(client, server, 80)
    serve(host, server, HTTP, rule(protocol="udp"))
    assert host.tcp(client, server, 80, "ack")
    assert host.tcp_reply(server, client, 80, "ack")
