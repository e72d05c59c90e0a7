"""Notices that ovs-vswitchd, or its bridge, is no longer the one our flows are in."""

import socket
import threading
from collections.abc import Callable

from oslo_log import log

LOG = log.getLogger(__name__)

_PAUSE = 0.1
# Of an OpenFlow message: version, type, length (2 bytes), transaction id (4).
_HEADER_BYTES = 8


class SwitchWatch:
    """Holds a connection to the bridge's management socket, which ends when the bridge does.

    The kernel closes it however ovs-vswitchd ends (SIGTERM, ``kill -9``, a
    crash), and ovs-vswitchd closes it when the bridge is deleted or made anew:
    one event for everything that takes our flows away, at the cost of one
    descriptor. OVSDB tells less: after a restart with a kept database nothing
    in it changes for certain, ofports included.
    """

    def __init__(self, run_dir: str, bridge: str, on_restart: Callable[[], None]) -> None:
        self._path = f"{run_dir}/{bridge}.mgmt"
        self._on_restart = on_restart
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._watch, name="switch-watch", daemon=True)

    def start(self) -> None:
        """Connect before anything is written to the switch. Raises :class:`OSError`."""
        self._socket = self._connect()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._socket is not None:
            self._shut(self._socket)
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            if self._socket is None:
                self._reconnect()
                continue
            if not self._hears(self._socket):
                self._socket.close()
                self._socket = None
                if not self._stopping.is_set():
                    LOG.warning("The switch behind %s has gone; waiting for it", self._path)

    @staticmethod
    def _hears(sock: socket.socket) -> bool:
        """Wait for the next word of the switch, which we do not need; False at the end."""
        try:
            return bool(sock.recv(65536))
        except OSError:
            return False

    def _reconnect(self) -> None:
        try:
            self._socket = self._connect()
        except OSError:
            # Not there yet, which is what we wait for.
            self._stopping.wait(_PAUSE)
        else:
            self._on_restart()

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(5)
            sock.connect(self._path)
            # Its own greeting back is a valid answer (OpenFlow 1.0 to 1.5,
            # "Hello"), and without one the switch hangs up after a second.
            header = sock.recv(_HEADER_BYTES, socket.MSG_WAITALL)
            rest = int.from_bytes(header[2:4]) - _HEADER_BYTES
            if rest < 0:
                raise OSError("the switch hung up")
            sock.sendall(header + (sock.recv(rest, socket.MSG_WAITALL) if rest else b""))
            sock.settimeout(None)
        except OSError:
            sock.close()
            raise
        return sock

    @staticmethod
    def _shut(sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            LOG.debug("The connection to the switch had ended already")
