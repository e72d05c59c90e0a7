"""Kernel links of interfaces: raised through netlink, read back by ioctl."""

import fcntl
import socket
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from agent_flows.errors import ErrorType
from agent_flows.report import TaskError

# netdevice(7). Reading a link takes 3 us this way and 400 us through netlink
# in Python, which for a batch of 100 ports was a quarter of their wiring.
_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_UP = 0x1
_BATCH = 100
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
    """Set links up with their MTU; returns errors by name."""
    differing = _differing(links)
    if not differing:
        return {}
    errors = {}
    with IPRoute() as netlink:
        _set_together(netlink, differing)
        # The kernel's error for one link is only in the reply to a request for it alone.
        for link in _differing(differing):
            try:
                index = socket.if_nametoindex(link.name)
                netlink.link("set", index=index, state="up", mtu=link.mtu)
            except NetlinkError as exc:
                errors[link.name] = TaskError(
                    ErrorType.LINK_REFUSED,
                    f"the kernel refused to raise {link.name} with MTU {link.mtu}: {exc.args[-1]}",
                    str(exc),
                )
            except OSError as exc:
                errors[link.name] = _not_found(link.name, exc)
    return errors


def _differing(links: Collection[Link]) -> list[Link]:
    wrong = verify_links(links)
    return [link for link in links if link.name in wrong]


def _set_together(netlink: IPRoute, links: Sequence[Link]) -> None:
    """Many links in few messages, which takes a third of the time; errors are found by reading."""
    for start in range(0, len(links), _BATCH):
        requests = []
        for link in links[start : start + _BATCH]:
            try:
                index = socket.if_nametoindex(link.name)
            except OSError:
                continue
            request = ifinfmsg()
            request["index"] = index
            request["flags"] = request["change"] = _IFF_UP
            request["attrs"] = [("IFLA_MTU", link.mtu)]
            request["header"]["type"] = RTM_NEWLINK
            request["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK
            requests.append(request)
        if requests:
            netlink.nlm_request_batch(requests, noraise=True)


def verify_links(links: Collection[Link]) -> dict[str, TaskError]:
    """Read links back; returns errors by name."""
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
                errors[link.name] = TaskError(ErrorType.LINK_DOWN, f"link {link.name} is down")
            elif mtu != link.mtu:
                errors[link.name] = TaskError(
                    ErrorType.LINK_MTU, f"link {link.name} has MTU {mtu} instead of {link.mtu}"
                )
    return errors


def _read(sock: socket.socket, request: int, name: str) -> bytes:
    """The value of a struct ifreq, which follows the name."""
    return fcntl.ioctl(sock, request, _IFREQ.pack(name.encode()))[16:]


def _not_found(name: str, exc: Exception) -> TaskError:
    return TaskError(ErrorType.LINK_NOT_FOUND, f"there is no link {name} on this host", str(exc))
