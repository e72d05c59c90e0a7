"""Notices changes of a bridge's flows as they happen: ``ovs-ofctl monitor BRIDGE watch:...``.

The switch reports each flow that is added, modified or deleted, with its cookie,
within milliseconds (ovs-ofctl(8), "monitor"). Our own bundles cause such events, too. They
only add and delete flows, with cookies of ours, so most of what others do shows.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Protocol, cast

from oslo_log import log

from agent_flows.openflow import cookie
from agent_flows.report import Trouble
from agent_flows.supervision import Backoff, Loop, Troubles

LOG = log.getLogger(__name__)

_READ = 1 << 16
# Seconds that a killed child may take to end.
_PATIENCE = 2.0
_BACKOFF = Backoff(0.1, 5.0)
# Seconds between two looks whether a missing bridge exists.
_MISSING_PAUSE = 0.5
# Each line of an update, as ovs-ofctl prints it (lib/ofp-monitor.c, ofputil_flow_update_format).
_EVENT = rb"^ event=%s (?:reason=\w+ )?table=\d+ (?:\w+_timeout=\d+ )*cookie=%s(?= |$)"
_OURS = b"0x%x[0-9a-f]{12}" % cookie.OWNER
_ANY = rb"(0x[0-9a-f]+|0)"
_PAUSED = b" event=PAUSED"
# The switch answers the request with an empty list of flows.
_FOLLOWS = b"FLOW_MONITOR reply"


@dataclass(frozen=True)
class Changes:
    """What the switch reported of a bridge since the last call.

    ``deleted``: cookies of ours of which flows were deleted, by us or by others; ``added``: with
    which flows were added, perhaps in place of others.
    ``modified``: another program modified flows of ours: we only add and delete.
    ``foreign``: cookies that are not ours, with which flows were written.
    ``paused``: the switch left out what was added and deleted again while we were slow.
    ``missed``: the monitor was not connected before, so anything may have changed.
    """

    deleted: frozenset[int] = frozenset()
    modified: bool = False
    foreign: frozenset[int] = frozenset()
    paused: bool = False
    missed: bool = False
    added: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return self != _NOTHING


_NOTHING = Changes()


def _reader(ours: bytes) -> Callable[[bytes], Changes]:
    """``ours``: a pattern of the cookies that are ours."""
    foreign = re.compile(
        _EVENT % (rb"(?:ADDED|MODIFIED)", rb"(?!" + ours + rb"(?: |$))" + _ANY), re.M
    )
    modified = re.compile(_EVENT % (rb"MODIFIED", ours), re.M)
    deleted = re.compile(_EVENT % (rb"DELETED", b"(" + ours + b")"), re.M)
    added = re.compile(_EVENT % (rb"ADDED", b"(" + ours + b")"), re.M)

    def read(text: bytes) -> Changes:
        return Changes(
            frozenset(int(found, 16) for found in set(deleted.findall(text))),
            modified.search(text) is not None,
            frozenset(int(found, 0) for found in set(foreign.findall(text))),
            _PAUSED in text,
            added=frozenset(int(found, 16) for found in set(added.findall(text))),
        )

    return read


_ours = _reader(_OURS)


def changes(text: bytes) -> Changes:
    """What whole lines of ``ovs-ofctl monitor`` report. 22,000 lines take about 25 ms."""
    return _ours(text)


def changes_of(value: int) -> Callable[[bytes], Changes]:
    """As :func:`changes`, where another program's flows are looked after: in place of our
    cookies that one."""
    return _reader(b"0x%x" % value)


class Child(Protocol):
    """A process, as :class:`subprocess.Popen` has it."""

    def fileno(self) -> int:
        """Where its standard output can be read."""
        ...

    def end(self) -> None:
        """Kill it and wait for it."""
        ...


Start = Callable[[Sequence[str]], Child]
"""Starts a command whose standard output and error are read. Raises OSError."""


class LocalChild:
    """A process with this one's own rights."""

    def __init__(self, argv: Sequence[str]) -> None:
        # Killed by the kernel when the thread that started it ends, as with the agent.
        dying = ("setpriv", "--pdeathsig", "KILL", "--")
        self._popen = subprocess.Popen(
            [*dying, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._output = cast(IO[bytes], self._popen.stdout)

    def fileno(self) -> int:
        return self._output.fileno()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_PATIENCE)
        self._output.close()


class MonitorEnded(Exception):
    """ovs-ofctl monitor ended: the switch or the bridge is gone, or something killed it."""


class FlowMonitor:
    """One bridge's changes, given to ``on_changes`` in the monitor's thread.

    A monitor that ends is started again, and reports that changes may have been missed.
    While there is none, that is the trouble MONITOR, unless the bridge ``is_missing``. The
    switch buffers 128 KiB for a slow reader and then pauses (ofproto/connmgr.c,
    ``ofmonitor_report``), so ``on_changes`` may take its time.
    """

    def __init__(
        self,
        run_dir: str,
        bridge: str,
        on_changes: Callable[[Changes], None],
        troubles: Troubles,
        *,
        start: Start = LocalChild,
        is_missing: Callable[[], bool] = lambda: False,
        read: Callable[[bytes], Changes] = changes,
    ) -> None:
        """``read`` makes the changes of whole lines: another owner's than ours
        (:func:`changes_of`)."""
        self._bridge, self._on_changes, self._start = bridge, on_changes, start
        self._changes = read
        target = f"unix:{run_dir}/{bridge}.mgmt"
        # The actions would make it print twice as much, and are read by the comparison.
        self._argv = (
            "ovs-ofctl", "-O", "OpenFlow14", "--no-names", "--unixctl=none",
            "monitor", target, "watch:!initial,!actions",
        )  # fmt: skip
        self._is_missing = is_missing
        self._child: Child | None = None
        # What it has printed since its last whole line.
        self._rest = b""
        self._loop = Loop(
            f"flow-monitor-{bridge}",
            self._step,
            troubles,
            Trouble.MONITOR,
            _BACKOFF,
            expected=(MonitorEnded, OSError),
        )

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        self._loop.stopping.set()
        child = self._child
        if child is not None:
            # Its end ends the read.
            child.end()
        self._loop.stop(timeout)

    def _step(self) -> None:
        """Connect, or one piece of what the child prints."""
        try:
            if self._child is not None:
                self._read_changes(self._child)
            elif self._is_missing():
                self._loop.stopping.wait(_MISSING_PAUSE)
            else:
                self._connect()
        except MonitorEnded:
            if not self._loop.stopping.is_set():
                raise

    def _connect(self) -> None:
        child = self._child = self._start(self._argv)
        self._rest = b""
        while _FOLLOWS not in self._rest:
            self._rest += self._read(child)
        self._on_changes(Changes(missed=True))

    def _read_changes(self, child: Child) -> None:
        whole, _, self._rest = (self._rest + self._read(child)).rpartition(b"\n")
        found = self._changes(whole)
        if found:
            self._on_changes(found)

    def _read(self, child: Child) -> bytes:
        """Raises :class:`MonitorEnded`."""
        data = b""
        # The child is closed by stop().
        with contextlib.suppress(OSError, ValueError):
            if not self._loop.stopping.is_set():
                data = os.read(child.fileno(), _READ)
        if not data:
            self._child = None
            child.end()
            last = self._rest.rstrip().rpartition(b"\n")[2].decode(errors="replace")
            raise MonitorEnded(f"ovs-ofctl monitor of {self._bridge} ended: {last[:200]}")
        return data
