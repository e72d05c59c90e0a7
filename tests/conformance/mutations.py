"""Changes one thing of a packet: another machine's address, a tag."""

import dataclasses
import ipaddress
import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.world import IPV4, IPV6, UPLINK, Address, Packet
from tests.conformance.worlds import MACS, OUTSIDE_MACS, SHARED_MACS

Addresses = Mapping[int, Sequence[Address]]
"""Addresses to change to, by IP version."""

_GROUP_MACS = [
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "33:33:00:00:00:01",
    "01:80:c2:00:00:00",
]
_STRANGERS = [*MACS, *SHARED_MACS, *OUTSIDE_MACS, "0e:00:00:00:00:99"]
MULTICAST: Addresses = {
    4: [ipaddress.ip_address(each) for each in ("224.0.0.1", "255.255.255.255")],
    6: [ipaddress.ip_address(each) for each in ("ff02::1", "ff02::16", "ff02::1:ff00:1")],
}
UNSPECIFIED: Mapping[int, Address] = {
    4: ipaddress.ip_address("0.0.0.0"),
    6: ipaddress.ip_address("::"),
}


def mutated(rng: random.Random, packet: Packet, addresses: Addresses) -> Packet:
    """``packet`` with one thing changed."""
    ways = _WAYS if packet.ethertype in (IPV4, IPV6) else _WAYS_OF_ARP
    return rng.choice(ways)(rng, packet, addresses)


def _other_eth_src(rng: random.Random, packet: Packet, _: Addresses) -> Packet:
    return dataclasses.replace(packet, eth_src=rng.choice(_STRANGERS))


def _other_eth_dst(rng: random.Random, packet: Packet, _: Addresses) -> Packet:
    return dataclasses.replace(packet, eth_dst=rng.choice(_STRANGERS))


def _to_many(rng: random.Random, packet: Packet, _: Addresses) -> Packet:
    changes: dict[str, Any] = {"eth_dst": rng.choice(_GROUP_MACS)}
    if packet.version is not None and rng.random() < 0.5:
        changes["dst"] = rng.choice(MULTICAST[packet.version])
    return dataclasses.replace(packet, **changes)


def _other_src(rng: random.Random, packet: Packet, addresses: Addresses) -> Packet:
    if packet.src is None:
        return packet
    version = packet.src.version
    values = [*addresses[version], UNSPECIFIED[version]]
    return dataclasses.replace(packet, src=rng.choice(values))


def _other_dst(rng: random.Random, packet: Packet, addresses: Addresses) -> Packet:
    if packet.dst is None:
        return packet
    return dataclasses.replace(packet, dst=rng.choice(addresses[packet.dst.version]))


def _other_arp_mac(rng: random.Random, packet: Packet, _: Addresses) -> Packet:
    if packet.arp_mac is None:
        return packet
    return dataclasses.replace(packet, arp_mac=rng.choice(_STRANGERS))


def _other_target(rng: random.Random, packet: Packet, addresses: Addresses) -> Packet:
    if packet.nd_target is None:
        return packet
    return dataclasses.replace(packet, nd_target=rng.choice(addresses[6]))


def _tagged(rng: random.Random, packet: Packet, _: Addresses) -> Packet:
    if packet.source == UPLINK:
        return packet
    return dataclasses.replace(packet, tag=rng.choice([0, 1, 2, 1001, 4095]))


_WAYS = [_other_eth_src, _other_eth_dst, _to_many, _other_src, _other_dst, _other_target, _tagged]
_WAYS_OF_ARP = [_other_eth_src, _to_many, _other_src, _other_arp_mac, _tagged]
