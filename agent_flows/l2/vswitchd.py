"""Notices that ovs-vswitchd, or its bridge, ended or was replaced, so that our flows are gone."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from oslo_log import log

from agent_flows.report import Trouble
from agent_flows.supervision import Backoff, Loop, Troubles

LOG = log.getLogger(__name__)

# All in seconds. How long until the next attempt to connect.
_PAUSE = 0.1
# How long without data until the switch is asked for an echo, and how long it may take.
_QUIET = 1.0
_PATIENCE = 2.5
# The shortest wait.
_SHORTEST = 0.001
# How long a new connection's greeting may take.
_GREETING = 5.0
# An OpenFlow message begins with its version, type, length and transaction id.
_HEADER = struct.Struct("!BBHI")
_ECHO_REQUEST = 2


class SwitchWatch:
    """Holds a connection to the bridge's management socket, which ends when the bridge does.

    The kernel closes it however ovs-vswitchd ends (SIGTERM, ``kill -9``, a
    crash), and ovs-vswitchd closes it when the bridge is deleted or replaced,
    and when its protocols change: one event for all that removes our flows, and
    for little else, at the cost of one descriptor.
    OVSDB does not show it: after a restart with the same database nothing in it
    need change, not even ofports. A switch that hangs keeps the connection, so
    it is asked for an echo (OpenFlow 1.0 to 1.5, "Echo").

    ``on_gone`` gets a line on what happened, ``on_restart`` is called for a new
    connection, to a bridge that is taken to be without our flows, and
    ``on_answer`` when a bridge that hung answers again, with the flows it had.
    """

    def __init__(
        self,
        run_dir: str,
        bridge: str,
        on_restart: Callable[[], None],
        *,
        on_gone: Callable[[str], None] = lambda reason: None,
        on_answer: Callable[[], None] = lambda: None,
        troubles: Troubles | None = None,
    ) -> None:
        self._path = f"{run_dir}/{bridge}.mgmt"
        self._bridge = bridge
        self._on_restart, self._on_gone, self._on_answer = on_restart, on_gone, on_answer
        self._socket: socket.socket | None = None
        self._version = 0
        self._last_data = 0.0
        self._asked: float | None = None
        self._hangs = False
        # When what the connection has shown was last passed on.
        self._seen = 0.0
        self._seen_changed = threading.Condition()
        self._loop = Loop(
            "switch-watch", self._watch, troubles or Troubles(), Trouble.OTHER, Backoff(_PAUSE, 1.0)
        )

    def start(self) -> None:
        """Connect before anything is written to the switch. Raises :class:`OSError`."""
        self._socket = self._connect()
        self._loop.start()

    @property
    def started(self) -> bool:
        return self._loop.is_alive()

    def settle(self) -> bool:
        """Wait until the bridge has answered on a connection that it holds now; False if it does
        not in time.

        One that it closed for what was done to it before is another one by then, and
        ``on_restart`` was called.
        """
        now = time.monotonic()
        # One that has ended is noticed where it is read.
        with contextlib.suppress(OSError):
            if (sock := self._socket) is not None:
                self._ask(sock)
        with self._seen_changed:
            return self._seen_changed.wait_for(lambda: self._seen > now, _PATIENCE)

    def stop(self) -> None:
        self._loop.stopping.set()
        # A read that waits ends with this; a switch that is gone has ended it already.
        with contextlib.suppress(OSError):
            if (sock := self._socket) is not None:
                sock.shutdown(socket.SHUT_RDWR)
        self._loop.stop(_GREETING)
        self._close()

    def _watch(self) -> None:
        if self._socket is None:
            self._reconnect()
        elif not self._is_connected(self._socket) and not self._loop.stopping.is_set():
            self._close()
            LOG.warning("The switch at %s is gone; waiting for it", self._path)
            self._on_gone(
                f"ovs-vswitchd does not serve bridge {self._bridge}: nothing answers at "
                f"{self._path}; is it running?"
            )

    def _is_connected(self, sock: socket.socket) -> bool:
        """Read, and ask for an echo when it is time; False if the connection has ended."""
        try:
            now = time.monotonic()
            if self._asked is None and now >= self._last_data + _QUIET:
                self._ask(sock)
                self._asked = now
            until = self._last_data + _QUIET if self._asked is None else self._asked + _PATIENCE
            # One that hangs has used its time up; 0 would mean not to wait at all.
            sock.settimeout(_PATIENCE if self._hangs else max(until - now, _SHORTEST))
            # The content does not matter.
            data = sock.recv(65536)
        except TimeoutError:
            if self._asked is not None and time.monotonic() >= self._asked + _PATIENCE:
                self._hang()
            return True
        except OSError:
            return False
        self._last_data, self._asked = time.monotonic(), None
        if data and self._hangs:
            self._hangs = False
            LOG.warning("The switch at %s answers again", self._path)
            self._on_answer()
        if data:
            self._passed_on()
        return bool(data)

    def _ask(self, sock: socket.socket) -> None:
        sock.sendall(_HEADER.pack(self._version, _ECHO_REQUEST, _HEADER.size, 0))

    def _passed_on(self) -> None:
        with self._seen_changed:
            self._seen = time.monotonic()
            self._seen_changed.notify_all()

    def _hang(self) -> None:
        if self._hangs:
            return
        self._hangs = True
        LOG.warning("The switch at %s does not answer an echo request", self._path)
        self._on_gone(
            f"ovs-vswitchd hangs: it has not answered an OpenFlow echo request at {self._path} "
            f"for {_PATIENCE:g} s (it also hangs while ovsdb-server is away)"
        )

    def _reconnect(self) -> None:
        try:
            self._socket = self._connect()
        except OSError:
            # Not there yet, which is what we wait for.
            self._loop.stopping.wait(_PAUSE)
        else:
            self._on_restart()
            self._passed_on()

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_GREETING)
            try:
                sock.connect(self._path)
            except OSError as exc:
                # Neither the kernel nor Python names it.
                exc.filename = self._path
                raise
            # Its own greeting is a valid reply (OpenFlow 1.0 to 1.5, "Hello");
            # without one the switch disconnects after a second.
            header = sock.recv(_HEADER.size, socket.MSG_WAITALL)
            if len(header) < _HEADER.size:
                raise OSError("the switch hung up")
            self._version, _, length, _ = _HEADER.unpack(header)
            rest = length - _HEADER.size
            if rest < 0:
                raise OSError("the switch does not speak OpenFlow")
            sock.sendall(header + (sock.recv(rest, socket.MSG_WAITALL) if rest else b""))
        except OSError:
            sock.close()
            raise
        self._last_data, self._asked, self._hangs = time.monotonic(), None, False
        return sock

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
