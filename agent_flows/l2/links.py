"""Kernel links of interfaces: raised and read back."""

import errno
import fcntl
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from agent_flows.report import TaskError

# netdevice(7). An ioctl takes 3 us to read a link and 30 us to raise one, where
# netlink in Python takes 400 us for the one and 120 us for the other.
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
_IFF_UP = 0x1
_NAME_BYTES = 16
_IFREQ = struct.Struct(f"{_NAME_BYTES}s24s")
_INT, _FLAGS = struct.Struct("i"), struct.Struct("H")


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
    errors = {}
    wrong = verify_links(links)
    with _any_socket() as sock:
        for link in links:
            if link.name in wrong:
                try:
                    _raise(sock, link)
                except OSError as exc:
                    errors[link.name] = _refused(link, exc)
    return errors


def _raise(sock: socket.socket, link: Link) -> None:
    _write(sock, _SIOCSIFMTU, link.name, _INT.pack(link.mtu))
    _write(sock, _SIOCSIFFLAGS, link.name, _FLAGS.pack(_flags(sock, link.name) | _IFF_UP))


def verify_links(links: Collection[Link]) -> dict[str, TaskError]:
    """Read links back; answers, by name, how they differ from what they should be."""
    errors = {}
    with _any_socket() as sock:
        for link in links:
            try:
                flags = _flags(sock, link.name)
                (mtu,) = _INT.unpack_from(_read(sock, _SIOCGIFMTU, link.name))
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


def _any_socket() -> socket.socket:
    """One to ask about links through, of whatever kind."""
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _flags(sock: socket.socket, name: str) -> int:
    flags: int = _FLAGS.unpack_from(_read(sock, _SIOCGIFFLAGS, name))[0]
    return flags


def _read(sock: socket.socket, request: int, name: str) -> bytes:
    """The value of a struct ifreq, which stands behind the name."""
    return fcntl.ioctl(sock, request, _IFREQ.pack(name.encode(), b""))[_NAME_BYTES:]


def _write(sock: socket.socket, request: int, name: str, value: bytes) -> None:
    fcntl.ioctl(sock, request, _IFREQ.pack(name.encode(), value))


def _refused(link: Link, exc: OSError) -> TaskError:
    if exc.errno == errno.ENODEV:
        return _not_found(link.name, exc)
    return TaskError(
        "LinkRefused",
        f"the kernel refused to raise {link.name} with MTU {link.mtu}: {exc.strerror}",
        str(exc),
    )


def _not_found(name: str, exc: Exception) -> TaskError:
    return TaskError("LinkNotFound", f"there is no link {name} on this host", str(exc))
