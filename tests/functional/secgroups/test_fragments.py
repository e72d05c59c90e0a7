"""Datagrams in fragments on the userspace datapath, on our own bridge and on Neutron's.

Its conntrack puts fragments together to look at them and lets them go as fragments again. The
later ones carry the state of the connection and its protocol, but no ports: neither in the packet
(``tp_dst``) nor in what conntrack knows (``ct_tp_dst``).
"""

import itertools
import struct
from collections.abc import Iterator

import pytest

from agent_flows.openflow.pipeline import Home, Pipeline
from lab import frames
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups.host import Host, Vm

_ETHERNET, _IPV4, _IPV6 = 14, 20, 40
_FRAGMENT_HEADER = 44
_MORE = 1
_PART = 1400
_PCAP_RECORD = 16
_IDENTIFIER = itertools.count(1)

UDP = {"protocol": "udp"}
DNS = {"protocol": "udp", "port_range_min": 53, "port_range_max": 53}


@pytest.fixture(params=list(Home), ids=lambda home: home.value)
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline(request.param)


CLIENT, SERVER = 40000, 53


def datagram(
    source: Vm, target: Vm, version: int, size: int, ports: tuple[int, int] = (CLIENT, SERVER)
) -> bytes:
    addresses = (source.ip, target.ip) if version == 4 else (source.ip6, target.ip6)
    return frames.udp((source.mac, target.mac), addresses, ports, b"x" * size)


def fragments(frame: bytes, version: int) -> Iterator[bytes]:
    """``frame``, an IP packet, as fragments of at most ``_PART`` bytes of it."""
    header = _IPV4 if version == 4 else _IPV6
    before, payload = frame[: _ETHERNET + header], frame[_ETHERNET + header :]
    number = next(_IDENTIFIER)
    for start in range(0, len(payload), _PART):
        part = payload[start : start + _PART]
        more = start + _PART < len(payload)
        if version == 4:
            flags = start // 8 | more << 13
            ip = bytearray(before[_ETHERNET:])
            struct.pack_into("!HHH", ip, 2, header + len(part), number, flags)
            struct.pack_into("!H", ip, 10, 0)
            struct.pack_into("!H", ip, 10, frames.checksum(bytes(ip)))
            yield before[:_ETHERNET] + bytes(ip) + part
        else:
            ip = bytearray(before[_ETHERNET:])
            extension = struct.pack("!BBHI", ip[6], 0, start | more, number)
            struct.pack_into("!HB", ip, 4, len(extension) + len(part), _FRAGMENT_HEADER)
            yield before[:_ETHERNET] + bytes(ip) + extension + part


def arrives(host: Host, source: Vm, target: Vm, whole: bytes) -> bool:
    """Whether a datagram arrives, sent in fragments if it is large; of one that does not, no
    fragment may."""
    version = 4 if whole[12:14] == b"\x08\x00" else 6
    sent = list(fragments(whole, version)) if len(whole) > _PART else [whole]
    before = host.captured(target.name)
    for each in sent:
        host.send_frame(source.name, each)
    got = host.captured(target.name) - before
    assert got in (0, sum(len(each) + _PCAP_RECORD for each in sent))
    return got > 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("fields", "small", "large"),
    [
        ({}, True, {4: True, 6: True}),
        (UDP, True, {4: True, 6: False}),
        (DNS, True, {4: False, 6: False}),
        (None, False, {4: False, 6: False}),
    ],
    ids=["a rule for every protocol", "a rule for udp", "a rule for a port", "no rule"],
)
def test_fragments_pass_only_by_a_rule_that_matches_each_of_them(
    host: Host, version: int, fields: dict[str, object] | None, small: bool, large: dict[int, bool]
) -> None:
    one, two = host.boot(1), host.boot(2)
    rules = [] if fields is None else [rule(**fields, ethertype=f"IPv{version}")]
    host.port(one, group(*egress_to_anywhere()))
    host.port(two, group(*rules))
    host.wire(one, two)
    assert arrives(host, one, two, datagram(one, two, version, 100)) is small
    assert arrives(host, one, two, datagram(one, two, version, 4000)) is large[version]


@pytest.mark.parametrize("version", [4, 6])
def test_reply_in_fragments_needs_no_rule(host: Host, version: int) -> None:
    client, server = host.boot(1), host.boot(2)
    host.port(client, group(*egress_to_anywhere()))
    host.port(server, group(rule(**DNS, ethertype=f"IPv{version}"), *egress_to_anywhere()))
    host.wire(client, server)
    answer = datagram(server, client, version, 4000, (SERVER, CLIENT))
    assert not arrives(host, server, client, answer)
    assert arrives(host, client, server, datagram(client, server, version, 100))
    assert arrives(host, server, client, answer)
