"""Ethernet frames made by hand, for what a well-behaved kernel would not send."""

import ipaddress
import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
_ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
_TTL = 64


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, destination: str, ethertype: int, payload: bytes) -> bytes:
    header = mac_bytes(destination) + mac_bytes(source) + struct.pack("!H", ethertype)
    return (header + payload).ljust(60, b"\0")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(  # noqa: PLR0917
    source_mac: str, destination_mac: str, source: str, destination: str, protocol: int, body: bytes
) -> bytes:
    """``body`` in IPv4 or IPv6, as the addresses say; a checksum in it must be right already."""
    raw = socket.inet_pton(_family(source), source) + socket.inet_pton(
        _family(destination), destination
    )
    if _family(source) == socket.AF_INET6:
        header = struct.pack("!IHBB", 6 << 28, len(body), protocol, _TTL) + raw
        return ethernet(source_mac, destination_mac, _ETH_P_IPV6, header + body)
    fields = (0x45, 0, 20 + len(body), 1, 0, _TTL, protocol)
    bare = struct.pack("!BBHHHBBH", *fields, 0) + raw
    header = struct.pack("!BBHHHBBH", *fields, checksum(bare)) + raw
    return ethernet(source_mac, destination_mac, _ETH_P_IP, header + body)


def udp(
    macs: tuple[str, str], addresses: tuple[str, str], ports: tuple[int, int], payload: bytes
) -> bytes:
    """A UDP datagram; each pair is (source, destination)."""
    length = 8 + len(payload)
    packed = b"".join(socket.inet_pton(_family(address), address) for address in addresses)
    pseudo = packed + struct.pack("!BBH", 0, socket.IPPROTO_UDP, length)
    bare = struct.pack("!HHHH", *ports, length, 0) + payload
    body = struct.pack("!HHHH", *ports, length, checksum(pseudo + bare) or 0xFFFF) + payload
    return ip(*macs, *addresses, socket.IPPROTO_UDP, body)


def arp_request(source_mac: str, sender: tuple[str, str], target_ip: str) -> bytes:
    """Who has ``target_ip``, asked by ``sender`` (MAC and address written inside) to everyone."""
    body = struct.pack("!HHBBH", 1, _ETH_P_IP, 6, 4, 1)
    body += mac_bytes(sender[0]) + socket.inet_aton(sender[1])
    body += b"\0" * 6 + socket.inet_aton(target_ip)
    return ethernet(source_mac, BROADCAST, _ETH_P_ARP, body)


def _family(address: str) -> socket.AddressFamily:
    version = ipaddress.ip_address(address).version
    return socket.AF_INET6 if version == 6 else socket.AF_INET
