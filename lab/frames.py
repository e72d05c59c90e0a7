"""Ethernet frames made by hand, for what a well-behaved kernel would not send."""

import ipaddress
import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
_SCTP = 132
_TTL = 64
_ND_HOP_LIMIT = 255


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
        # Neighbour discovery from further away is not believed (RFC 4861, section 7.1).
        hops = _ND_HOP_LIMIT if protocol == socket.IPPROTO_ICMPV6 else _TTL
        header = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops) + raw
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
    bare = struct.pack("!HHHH", *ports, length, 0) + payload
    total = checksum(_pseudo(addresses, socket.IPPROTO_UDP, bare) + bare)
    body = struct.pack("!HHHH", *ports, length, total or 0xFFFF) + payload
    return ip(*macs, *addresses, socket.IPPROTO_UDP, body)


def tcp(
    macs: tuple[str, str],
    addresses: tuple[str, str],
    ports: tuple[int, int],
    flags: int,
    numbers: tuple[int, int] = (0, 0),
    *,
    payload: bytes = b"",
) -> bytes:
    """A TCP segment; ``numbers`` are those of sequence and acknowledgement."""
    header = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, 0xFFFF, 0, 0)
    total = checksum(_pseudo(addresses, socket.IPPROTO_TCP, header + payload) + header + payload)
    body = header[:16] + struct.pack("!H", total) + header[18:] + payload
    return ip(*macs, *addresses, socket.IPPROTO_TCP, body)


def sctp_init(macs: tuple[str, str], addresses: tuple[str, str], ports: tuple[int, int]) -> bytes:
    """The packet that opens an SCTP association (RFC 9260, section 3.3.2)."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x5EED, 65536, 1, 1, 1)
    bare = struct.pack("!HHII", *ports, 0, 0) + chunk
    # Unlike everything else in the packet, the checksum is little-endian (its appendix A).
    body = bare[:8] + struct.pack("<I", _crc32c(bare)) + bare[12:]
    return ip(*macs, *addresses, _SCTP, body)


def icmp(
    macs: tuple[str, str], addresses: tuple[str, str], type_: int, code: int = 0, rest: bytes = b""
) -> bytes:
    """ICMP, or ICMPv6 with IPv6 addresses; ``rest`` is what follows the checksum."""
    bare = struct.pack("!BBH", type_, code, 0) + (rest or bytes(4))
    if _family(addresses[0]) == socket.AF_INET:
        number, total = socket.IPPROTO_ICMP, checksum(bare)
    else:
        number = socket.IPPROTO_ICMPV6
        total = checksum(_pseudo(addresses, number, bare) + bare)
    body = bare[:2] + struct.pack("!H", total) + bare[4:]
    return ip(*macs, *addresses, number, body)


def neighbour(macs: tuple[str, str], addresses: tuple[str, str], type_: int, target: str) -> bytes:
    """Neighbour solicitation (135) or advertisement (136) for ``target``, with the sender's MAC
    (RFC 4861, section 4)."""
    option = struct.pack("!BB", 2 if type_ == 136 else 1, 1) + mac_bytes(macs[0])
    rest = bytes(4) + socket.inet_pton(socket.AF_INET6, target) + option
    return icmp(macs, addresses, type_, 0, rest)


def arp_request(source_mac: str, sender: tuple[str, str], target_ip: str) -> bytes:
    """Who has ``target_ip``, asked by ``sender`` (MAC and address written inside) to everyone."""
    body = struct.pack("!HHBBH", 1, _ETH_P_IP, 6, 4, 1)
    body += mac_bytes(sender[0]) + socket.inet_aton(sender[1])
    body += b"\0" * 6 + socket.inet_aton(target_ip)
    return ethernet(source_mac, BROADCAST, _ETH_P_ARP, body)


def _crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _pseudo(addresses: tuple[str, str], protocol: int, body: bytes) -> bytes:
    """The pseudo-header that checksums cover, too (RFC 9293, RFC 8200 section 8.1)."""
    packed = b"".join(socket.inet_pton(_family(address), address) for address in addresses)
    return packed + struct.pack("!IBBH", len(body), 0, 0, protocol)


def _family(address: str) -> socket.AddressFamily:
    version = ipaddress.ip_address(address).version
    return socket.AF_INET6 if version == 6 else socket.AF_INET
