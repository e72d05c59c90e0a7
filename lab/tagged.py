"""An interface of a VM whose frames carry a VLAN tag on ``eth0``, as the module 8021q makes one.

Not every kernel that runs the tests has that module. This is a TAP device and a
thread that carries frames between it and ``eth0``.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable

from lab.namespace import Namespace

# linux/if_tun.h and linux/if_packet.h.
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_AUXDATA = struct.Struct("=IIIHHHH")
_TP_STATUS_VLAN_VALID = 1 << 4
_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4
_TAG_TYPE = b"\x81\x00"
_MACS = 12  # bytes of a frame before its type
_VLAN_ID = 0x0FFF
_LONGEST = 65536


class TaggedInterface:
    """``name`` in ``namespace``, tagged with ``vlan`` on ``parent``; up, with ``address``."""

    def __init__(
        self, namespace: Namespace, name: str, *, parent: str, vlan: int, mac: str, address: str
    ) -> None:
        self._vlan = vlan
        with namespace.entered():
            self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
            fcntl.ioctl(self._tap, _TUNSETIFF, request)
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._wire.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._wire.setblocking(False)
        self._wire.bind((parent, 0))
        self._end, self._ended = os.pipe()
        namespace.ip_batch(
            [
                f"link set {name} address {mac}",
                f"address add {address} dev {name}",
                f"link set {name} up",
            ]
        )
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.close(self._ended)
        self._thread.join()
        self._wire.close()
        os.close(self._tap)
        os.close(self._end)

    def _carry(self) -> None:
        ways: dict[int, Callable[[], None]] = {
            self._tap: self._outwards,
            self._wire.fileno(): self._inwards,
        }
        while True:
            ready, _, _ = select.select([self._end, *ways], [], [])
            if self._end in ready:
                return
            for descriptor in ready:
                # The other end may go at any time.
                with contextlib.suppress(OSError):
                    ways[descriptor]()

    def _outwards(self) -> None:
        frame = os.read(self._tap, _LONGEST)
        tag = _TAG_TYPE + self._vlan.to_bytes(2, "big")
        self._wire.send(frame[:_MACS] + tag + frame[_MACS:])

    def _inwards(self) -> None:
        frame, extras, _, address = self._wire.recvmsg(_LONGEST, 256)
        if address[2] == _PACKET_OUTGOING:
            return
        for level, kind, data in extras:
            if (level, kind) != (_SOL_PACKET, _PACKET_AUXDATA):
                continue
            # The kernel takes the tag out of the frame.
            status, *_, tag, _ = _AUXDATA.unpack(data[: _AUXDATA.size])
            if status & _TP_STATUS_VLAN_VALID and tag & _VLAN_ID == self._vlan:
                os.write(self._tap, frame)
