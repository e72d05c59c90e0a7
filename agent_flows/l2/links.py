"""Kernel links of interfaces: raised through netlink, by the helper; read back by ioctl."""

import fcntl
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from oslo_privsep.comm import PrivsepTimeout

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.privileged import links as privileged
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
    """Set links up with their MTU; returns errors by name.

    Raises :class:`TaskFailed` if the agent's privileged helper cannot do it.
    """
    differing = _differing(links)
    if not differing:
        return {}
    errors = {}
    try:
        privileged.raise_links([(link.name, link.mtu) for link in differing])
        wrong = verify_links(differing)
        # The kernel's error for one link is only in the reply to a request for it alone.
        for link in differing:
            if link.name not in wrong:
                continue
            if wrong[link.name].type == ErrorType.LINK_NOT_FOUND:
                errors[link.name] = wrong[link.name]
            elif refused := privileged.raise_link(link.name, link.mtu):
                errors[link.name] = TaskError(
                    ErrorType.LINK_REFUSED,
                    f"the kernel refused to raise {link.name} with MTU {link.mtu}: {refused}",
                )
    except PrivsepTimeout:
        late = TaskError(ErrorType.TIMEOUT, "the privileged helper did not raise links in time")
        raise TaskFailed(late, whole_batch=True) from None
    except OSError as exc:
        error = TaskError(ErrorType.OS_ERROR, f"links cannot be raised: {exc}")
        raise TaskFailed(error, whole_batch=True) from exc
    return errors


def _differing(links: Collection[Link]) -> list[Link]:
    wrong = verify_links(links)
    return [link for link in links if link.name in wrong]


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
