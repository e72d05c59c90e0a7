"""Asks ovs-vswitchd what it would do with a packet: ofproto/trace (ovs-vswitchd(8))."""

import re
from dataclasses import dataclass
from pathlib import Path

from agent_flows.openflow.ofctl import Execute, SwitchError, Timeout, execute
from agent_flows.openflow.pipeline import Table

_GRACE = 1.0
_TABLE = re.compile(r"^ *(\d+)\. ", re.MULTILINE)
# What follows an output that the switch skips, as back to where the packet came from.
_OUTPUT = re.compile(r"^ +output:(\d+)\n(?! +>>)", re.MULTILINE)


@dataclass(frozen=True)
class Trace:
    """What ovs-appctl printed."""

    text: str

    @property
    def tables(self) -> frozenset[int]:
        """The tables that the packet came to."""
        return frozenset(map(int, _TABLE.findall(self.text)))

    @property
    def outputs(self) -> frozenset[int]:
        """The ofports that it left by."""
        return frozenset(map(int, _OUTPUT.findall(self.text)))


class Tracer:
    """One bridge. ``timeout`` in whole seconds bounds one call."""

    def __init__(self, run_dir: str, bridge: str, timeout: int, run: Execute = execute) -> None:
        self._run_dir, self._bridge = Path(run_dir), bridge
        self._timeout, self._execute = timeout, run

    def received(self, packet: str) -> Trace:
        """Of a packet that comes in at its ``in_port``; connections that conntrack is asked about
        are new.

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        return self._trace("ofproto/trace", packet)

    def handed_to(self, table: Table, packet: str, *before: str) -> Trace:
        """Of a packet that actions ``before`` and then this table are applied to; it ends where
        conntrack is asked about an untracked one.

        Raises as :meth:`received` does.
        """
        actions = ",".join([*before, f"resubmit(,{table:d})"])
        return self._trace("ofproto/trace-packet-out", packet, actions)

    def _trace(self, command: str, *args: str) -> Trace:
        target = f"--target={self._control_socket()}"
        argv = ["ovs-appctl", f"--timeout={self._timeout}", target, command, self._bridge, *args]
        try:
            ran = self._execute(argv, "", self._timeout + _GRACE)
        except TimeoutError:
            raise Timeout(f"ovs-appctl {command} did not end within {self._timeout} s") from None
        if ran.code < 0:
            raise Timeout(f"ovs-appctl {command} took longer than {self._timeout} s")
        if ran.code != 0:
            reason, _, _ = ran.stderr.strip().partition("\n")
            raise SwitchError(f"{command}: {reason}", ran.stderr)
        return Trace(ran.stdout)

    def _control_socket(self) -> Path:
        """As ovs-appctl finds it, in a run directory that need not be its own."""
        try:
            pid = (self._run_dir / "ovs-vswitchd.pid").read_text().strip()
        except OSError:
            return self._run_dir / "ovs-vswitchd.ctl"
        return self._run_dir / f"ovs-vswitchd.{pid}.ctl"
