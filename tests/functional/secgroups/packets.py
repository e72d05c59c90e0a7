"""Packets in the datapath's own notation: the dummy switch makes real ones from it."""

import ipaddress

BROADCAST = "ff:ff:ff:ff:ff:ff"


def _ethernet(source: str, destination: str) -> str:
    return f"eth(src={source},dst={destination})"


def ip(macs: tuple[str, str], addresses: tuple[str, str], layer4: str, protocol: int) -> str:
    """``macs`` and ``addresses`` are (source, destination)."""
    source, destination = addresses
    if ipaddress.ip_address(source).version == 4:
        header = (
            f"eth_type(0x0800),ipv4(src={source},dst={destination},"
            f"proto={protocol},tos=0,ttl=64,frag=no)"
        )
    else:
        header = (
            f"eth_type(0x86dd),ipv6(src={source},dst={destination},label=0,"
            f"proto={protocol},tclass=0,hlimit=255,frag=no)"
        )
    return ",".join(filter(None, (_ethernet(*macs), header, layer4)))


def tcp(
    macs: tuple[str, str], addresses: tuple[str, str], ports: tuple[int, int], flags: str
) -> str:
    layer4 = f"tcp(src={ports[0]},dst={ports[1]}),tcp_flags({flags})"
    return ip(macs, addresses, layer4, 6)


def udp(macs: tuple[str, str], addresses: tuple[str, str], ports: tuple[int, int]) -> str:
    return ip(macs, addresses, f"udp(src={ports[0]},dst={ports[1]})", 17)


def sctp(macs: tuple[str, str], addresses: tuple[str, str], ports: tuple[int, int]) -> str:
    return ip(macs, addresses, f"sctp(src={ports[0]},dst={ports[1]})", 132)


def icmp(macs: tuple[str, str], addresses: tuple[str, str], type_: int, code: int = 0) -> str:
    if ipaddress.ip_address(addresses[0]).version == 4:
        return ip(macs, addresses, f"icmp(type={type_},code={code})", 1)
    return ip(macs, addresses, f"icmpv6(type={type_},code={code})", 58)


def neighbour(macs: tuple[str, str], addresses: tuple[str, str], type_: int, target: str) -> str:
    """Neighbour solicitation (135) or advertisement (136) for ``target``."""
    layer4 = f"icmpv6(type={type_},code=0),nd(target={target},sll=00:00:00:00:00:00,tll={macs[0]})"
    return ip(macs, addresses, layer4, 58)


def arp(macs: tuple[str, str], sender: tuple[str, str], target: str, operation: int = 1) -> str:
    """``sender`` is the (MAC, address) written inside."""
    return (
        f"{_ethernet(*macs)},eth_type(0x0806),"
        f"arp(sip={sender[1]},tip={target},op={operation},sha={sender[0]},tha=00:00:00:00:00:00)"
    )


def rarp(macs: tuple[str, str]) -> str:
    return (
        f"{_ethernet(*macs)},eth_type(0x8035),"
        f"arp(sip=0.0.0.0,tip=0.0.0.0,op=3,sha={macs[0]},tha={macs[0]})"
    )


def other(macs: tuple[str, str], ethertype: int) -> str:
    return f"{_ethernet(*macs)},eth_type({ethertype:#06x})"


def tagged(packet: str, vlan: int) -> str:
    """``packet`` behind an 802.1Q header."""
    ethernet, rest = packet.split("),", 1)
    return f"{ethernet}),eth_type(0x8100),vlan(vid={vlan},pcp=0),encap({rest})"
