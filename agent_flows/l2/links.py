"""Kernel links of interfaces: raised through netlink, read back by ioctl."""

import fcntl
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent_flows.report import TaskError

# netdevice(7). Reading a link takes 3 us this way and 400 us through netlink
# in Python, which for a batch of 100 ports was a quarter of their wiring.
_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_UP = 0x1
_IFREQ = struct.Struct("16s24x")


@dataclass(frozen=True)
class Link:
    """What a link should be; ``mtu`` in bytes."""

    name: str
    mtu: int


def exists(name: str) -> bool:
    """Whether the link is in our network namespace."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def raise_links(links: Collection[Link]) -> dict[str, TaskError]:
    """Set links up with their MTU; answers, by name, what went wrong."""
    differing = verify_links(links)
    if not differing:
        return {}
    errors = {}
    with IPRoute() as netlink:
        for link in links:
            if link.name not in differing:
                continue
            try:
                index = socket.if_nametoindex(link.name)
                netlink.link("set", index=index, state="up", mtu=link.mtu)
            except NetlinkError as exc:
                errors[link.name] = TaskError(
                    "LinkRefused",
                    f"the kernel refused to raise {link.name} with MTU {link.mtu}: {exc.args[-1]}",
                    str(exc),
                )
            except OSError as exc:
                errors[link.name] = _not_found(link.name, exc)
    return errors


def verify_links(links: Collection[Link]) -> dict[str, TaskError]:
    """Read links back; answers, by name, how they differ from what they should be."""
    errors = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anyone:
        for link in links:
            try:
                (flags,) = struct.unpack("H", _read(anyone, _SIOCGIFFLAGS, link.name)[:2])
                (mtu,) = struct.unpack("i", _read(anyone, _SIOCGIFMTU, link.name)[:4])
            except OSError as exc:
                errors[link.name] = _not_found(link.name, exc)
                continue
            if not flags & _IFF_UP:
                errors[link.name] = TaskError("LinkDown", f"link {link.name} is down")
            elif mtu != link.mtu:
                errors[link.name] = TaskError(
                    "LinkMtu", f"link {link.name} has MTU {mtu} instead of {link.mtu}"
                )
    return errors


def _read(sock: socket.socket, request: int, name: str) -> bytes:
    """The value of a struct ifreq, which stands behind the name."""
    return fcntl.ioctl(sock, request, _IFREQ.pack(name.encode()))[16:]


def _not_found(name: str, exc: Exception) -> TaskError:
    return TaskError("LinkNotFound", f"there is no link {name} on this host", str(exc))
