"""What runs inside a virtual machine: servers, connections, pings and sniffers.

A socket belongs to the namespace it was made in, so all of it runs in this
process, in threads, and starts in well under a millisecond.
"""

import contextlib
import itertools
import os
import select
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Self

from lab.frames import checksum
from lab.namespace import Namespace

Transport = Literal["tcp", "udp"]
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4
_COUNT = itertools.count(1)
# Of a word.
_END = b"."


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class _TcpEcho(socketserver.BaseRequestHandler):
    server: "_TcpServer"

    def handle(self) -> None:
        self.server.open_sockets.add(self.request)
        begun = b""
        # Cut connections are what the tests are about.
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                # TCP sends again what was lost in other pieces, several words in one.
                *words, begun = (begun + data).split(_END)
                self.request.sendall(b"".join(self.server.greeting + w + _END for w in words))


class _UdpEcho(socketserver.BaseRequestHandler):
    server: "_UdpServer"

    def handle(self) -> None:
        data, reply = self.request
        reply.sendto(self.server.greeting + data, self.client_address)


class _TcpServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, greeting: bytes) -> None:
        self.greeting = greeting
        self.open_sockets: set[socket.socket] = set()
        super().__init__(("::", port), _TcpEcho)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.open_sockets):
            # Wakes the handler's thread, which closes it.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _UdpServer(socketserver.UDPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True

    def __init__(self, port: int, greeting: bytes) -> None:
        self.greeting = greeting
        super().__init__(("::", port), _UdpEcho)


class Listener:
    """A server that answers each word with its name and the word; IPv4 and IPv6. By TCP a word
    ends with a dot, by UDP it is a datagram."""

    def __init__(self, namespace: Namespace, port: int, protocol: Transport, name: str) -> None:
        greeting = f"{name}:".encode()
        with namespace.entered():
            self._server: socketserver.BaseServer = (
                _TcpServer(port, greeting) if protocol == "tcp" else _UdpServer(port, greeting)
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Connection:
    """An open connection to a :class:`Listener`. Raises OSError if it cannot be opened."""

    def __init__(
        self, namespace: Namespace, address: str, port: int, protocol: Transport, timeout: float
    ) -> None:
        with namespace.entered():
            self._socket = socket.socket(_family(address), _KINDS[protocol])
        self._socket.settimeout(timeout)
        try:
            self._socket.connect((address, port))
        except BaseException:
            self._socket.close()
            raise

    @property
    def local_port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        self._socket.send(data)

    def receive(self, timeout: float) -> bytes:
        """Raises OSError: TimeoutError, or what ICMP had to say about what was sent."""
        self._socket.settimeout(timeout)
        return self._socket.recv(65536)

    def ask(self, timeout: float = 1.0) -> str | None:
        """Send a word; the name of the VM that answered it, or None if none did in time.

        An answer to an earlier word that comes late is not taken for this one's.
        """
        word = f"word-{os.getpid()}-{next(_COUNT)}."
        deadline = time.monotonic() + timeout
        received = ""
        try:
            self._socket.send(word.encode())
            while word not in received:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(65536)
                if not data:
                    return None
                received += data.decode(errors="replace")
        except OSError:
            return None
        return received[: received.index(word)].rsplit(".", 1)[-1].rstrip(":")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ping(namespace: Namespace, address: str, timeout: float) -> bool:
    """Whether ``address`` answers an ICMP (ICMPv6) echo request."""
    v6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    request, reply = (128, 129) if v6 else (8, 0)
    identity = os.getpid() & 0xFFFF
    number = next(_COUNT) & 0xFFFF
    body = struct.pack("!HH", identity, number) + b"lab"
    # The kernel fills in ICMPv6's checksum (RFC 3542, section 3.1).
    code_and_sum = 0 if v6 else checksum(struct.pack("!BBH", request, 0, 0) + body)
    with namespace.entered():
        sock = socket.socket(_family(address), socket.SOCK_RAW, protocol)
    deadline = time.monotonic() + timeout
    with sock:
        try:
            sock.sendto(struct.pack("!BBH", request, 0, code_and_sum) + body, (address, 0))
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                packet = sock.recv(65536)
                answer = packet if v6 else packet[(packet[0] & 15) * 4 :]
                if answer[0] == reply and answer[4:] == body:
                    return True
        except OSError:  # unreachable, or time is up
            return False
    return False


class Wire:
    """A raw socket on a VM's interface: sends frames as they are, keeps what arrives."""

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with namespace.entered():
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)
            )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((interface, 0))
        self._frames: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def arrived(self, wanted: Callable[[bytes], Any] | bytes) -> int:
        """How many frames have come in so far that ``wanted`` is true of (or is part of)."""
        self._drain(0)
        check = (lambda frame: wanted in frame) if isinstance(wanted, bytes) else wanted
        return sum(1 for frame in self._frames if check(frame))

    def take(self) -> list[bytes]:
        """The frames that have come in so far; they are forgotten here."""
        self._drain(0)
        taken, self._frames = self._frames, []
        return taken

    def wait(self, seconds: float) -> None:
        """Until a frame has come in, or ``seconds`` are over."""
        if not self._frames:
            self._drain(seconds)

    def wait_for(self, wanted: Callable[[bytes], Any] | bytes, timeout: float = 2.0) -> bool:
        deadline = time.monotonic() + timeout
        while not self.arrived(wanted):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._drain(left)
        return True

    def _drain(self, seconds: float) -> None:
        """Take in what has arrived, waiting up to ``seconds`` for the first frame."""
        ready, _, _ = select.select([self._socket], [], [], seconds)
        if not ready:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self._socket.recvfrom(65536, socket.MSG_DONTWAIT)
                if address[2] != _PACKET_OUTGOING:
                    self._frames.append(frame)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
