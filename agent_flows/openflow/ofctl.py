"""Open vSwitch's tool ovs-ofctl: writes flows in atomic bundles, and reads them.

``ovs-ofctl --bundle add-flows`` sends all lines in one OpenFlow bundle, atomic
and ordered: packets see the tables before it or after it, and a refused line
leaves the tables as they were (ovs-ofctl(8)). Lines go over standard input.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from agent_flows.errors import ErrorType
from agent_flows.fairness import fair
from agent_flows.openflow import cookie, dump
from agent_flows.openflow.dump import Differences, FlowEntry
from agent_flows.report import TaskError
from agent_flows.watchdog import Watch, unwatched

SLOW_CALL = 5.0
"""Seconds that a call of ovs-ofctl may run before it is reported as a trouble of the host."""

_OFCTL = ("ovs-ofctl", "-O", "OpenFlow14", "--no-names")
_REFUSED = re.compile(
    r"^Error (?P<error>OFP\w+) for: OFPT_FLOW_MOD.*?(?:\bcookie:(?P<cookie>0x[0-9a-f]+|0)\b.*)?$",
    re.MULTILINE,
)
_UNREADABLE = re.compile(r"^ovs-ofctl: -:(?P<line>\d+): (?P<reason>.*)$", re.MULTILINE)
_FLOW_COUNT = re.compile(r"\bflow_count=(\d+)")
_SEALED = re.compile(r"^ (\d+)\(.*\n\s+config: +.*NO_FWD", re.MULTILINE)
_CONFIG = re.compile(r"^ (\d+)\(.*\n\s+config: +(.*)$", re.MULTILINE)
# Bits of a port's configuration that stop its packets whatever the flows say, and what undoes each
# (ovs-ofctl(8), "mod-port").
_BLOCKS = {"NO_RECV": "receive", "NO_FWD": "forward"}
_UNREACHABLE = re.compile(r"^ovs-ofctl: .*(?:connecting to|failed to connect).*$", re.MULTILINE)


@dataclass(frozen=True)
class Refusal:
    """One flow-mod that the switch, or the tool, refused.

    ``error`` is OpenFlow's name (OFPFMFC_TABLE_FULL) or the tool's message.
    ``cookie`` identifies the flow, or ``line``, counted from 0 in the bundle,
    one that the tool could not read; ``text`` is the whole message.
    """

    error: str
    text: str
    cookie: int | None = None
    line: int | None = None


class SwitchError(Exception):
    """The switch refused the bundle; none of it is in the tables."""

    type: ClassVar[ErrorType] = ErrorType.SWITCH_ERROR

    def __init__(self, message: str, detail: str, refusals: Sequence[Refusal] = ()) -> None:
        self.message = message
        self.detail = detail
        self.refusals = tuple(refusals)
        super().__init__(message)

    @property
    def task_error(self) -> TaskError:
        return TaskError(self.type, self.message, self.detail)


class SwitchUnreachable(SwitchError):
    """ovs-vswitchd does not listen: nothing was sent."""

    type = ErrorType.SWITCH_UNREACHABLE


class BridgeNotFound(SwitchUnreachable):
    """The bridge does not exist: nothing was sent."""

    type = ErrorType.BRIDGE_NOT_FOUND


class ToolMissing(SwitchError):
    """ovs-ofctl cannot be run on this host: nothing was sent."""

    type = ErrorType.TOOL_MISSING


class Timeout(Exception):
    """ovs-ofctl took longer than allowed: the bundle may be in the tables or not."""

    type: ClassVar[ErrorType] = ErrorType.TIMEOUT

    @property
    def task_error(self) -> TaskError:
        return TaskError(self.type, str(self))


class ToolStuck(Timeout):
    """ovs-ofctl did not end at its own time limit and was killed: no sign that the switch is at
    fault."""


@dataclass(frozen=True)
class Ran:
    """A command that ended; ``code`` is negative if a signal ended it, as in subprocess."""

    stdout: str
    stderr: str
    code: int


Execute = Callable[[Sequence[str], str, float], Ran]
"""Runs a command with that standard input for at most so many seconds.

Raises TimeoutError after that, when the command and all that it started have
been killed. Raises another OSError if it cannot be run.
"""

# Seconds beyond its own time limit in which ovs-ofctl may report that it has passed.
_GRACE = 1.0


def execute(argv: Sequence[str], stdin: str, limit: float) -> Ran:
    """With this process's own rights."""
    # A session of its own, so that what the command starts is killed with it.
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = child.communicate(stdin, timeout=limit)
    except BaseException as exc:
        _kill(child)
        if isinstance(exc, subprocess.TimeoutExpired):
            raise TimeoutError(f"{argv[0]} did not end within {limit:g} s") from None
        raise
    return Ran(stdout, stderr, child.returncode)


def _kill(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout, child.stderr):
        # It need not get the rest of its input.
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    # With a limit: a process that waits for a device cannot be killed.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)


class Ofctl:
    """One bridge. ``timeout`` in whole seconds bounds one call. ``run`` is for a process that may
    not use the bridge's management socket itself. ``is_missing``: whether a bridge that does not
    answer does not exist. ``watch`` watches each call."""

    def __init__(
        self,
        run_dir: str,
        bridge: str,
        timeout: int,
        run: Execute = execute,
        *,
        is_missing: Callable[[], bool] = lambda: False,
        watch: Watch = unwatched,
    ) -> None:
        self._bridge = bridge
        self._is_missing = is_missing
        self._watch = watch
        self._target = f"unix:{run_dir}/{bridge}.mgmt"
        self._timeout = timeout
        self._execute = run

    def bundle(self, lines: Sequence[str]) -> None:
        """All of ``lines`` (``add``, ``delete``, ``delete_strict`` ...) or none.

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        if lines:
            self._run("--bundle", "add-flows", self._target, "-", stdin="\n".join(lines) + "\n")

    def dump(self, value: int = cookie.OURS[0], mask: int = cookie.OURS[1]) -> list[FlowEntry]:
        """The flows whose cookie is ``value`` under ``mask``.

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        selector = cookie.selector(value, mask)
        out = self._run("--no-stats", "dump-flows", self._target, selector)
        # The other lines are headings. A flow with a cookie of 0 is printed without it.
        return [dump.read(line) for line in fair(out.splitlines()) if "actions=" in line]

    def count(self, value: int, mask: int) -> int:
        """How many flows have the cookie ``value`` under ``mask``.

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        out = self._run("dump-aggregate", self._target, cookie.selector(value, mask))
        found = _FLOW_COUNT.search(out)
        if not found:
            raise SwitchError("ovs-ofctl dump-aggregate printed no number of flows", out)
        return int(found[1])

    def differences(self, expected: Iterable[str]) -> Differences:
        """Where the bridge does not hold exactly the flows ``expected``, each with its cookie.

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        # Actions are compared as printed, and since OpenFlow 1.1 this one has another name.
        text = "\n".join(expected).replace("strip_vlan", "pop_vlan")
        out = self._run("diff-flows", self._target, "/dev/stdin", stdin=f"{text}\n", done=(0, 2))
        return dump.read_differences(line for line in out.splitlines() if line)

    def probe(self) -> None:
        """Have the switch answer one OpenFlow echo. Raises :class:`SwitchError` or
        :class:`Timeout`."""
        self._run("probe", self._target)

    def seal(self, ofport: int) -> None:
        """Let no flow send to this port, NORMAL included (OpenFlow's no-forward).

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        self._run("mod-port", self._target, str(ofport), "no-forward")

    def unseal(self, ofport: int) -> None:
        """Undo :meth:`seal`."""
        self._run("mod-port", self._target, str(ofport), "forward")

    def sealed(self) -> frozenset[int]:
        """The ports that are sealed. Raises :class:`SwitchError` or :class:`Timeout`."""
        output = self._run("dump-ports-desc", self._target)
        return frozenset(int(found[1]) for found in _SEALED.finditer(output))

    def blocked(self) -> dict[int, tuple[str, ...]]:
        """The ports whose configuration forbids to receive or to forward their packets, and which
        of both. Raises :class:`SwitchError` or :class:`Timeout`."""
        output = self._run("dump-ports-desc", self._target)
        words = {int(found[1]): found[2].split() for found in _CONFIG.finditer(output)}
        blocked = {
            ofport: tuple(undo for bit, undo in _BLOCKS.items() if bit in config)
            for ofport, config in words.items()
        }
        return {ofport: forbidden for ofport, forbidden in blocked.items() if forbidden}

    def unblock(self, ofport: int, forbidden: Collection[str]) -> None:
        """Undo what :meth:`blocked` found of a port."""
        for each in forbidden:
            self._run("mod-port", self._target, str(ofport), each)

    def flush_connections(self, zone: int, field: str = "") -> None:
        """End the connections in a conntrack zone, or those of it with ``field``, as
        ``ct_nw_src=192.0.2.1`` (ovs-ofctl(8), "ct-flush"; Open vSwitch 3.1).

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        self._run("ct-flush", self._target, f"zone={zone:d}", *([field] if field else []))

    def _run(self, *args: str, stdin: str = "", done: Collection[int] = (0,)) -> str:
        command = f"ovs-ofctl {_command(args)}"
        # Its own limit, so that it reports the timeout itself; and ours, if it hangs.
        argv = [*_OFCTL, f"--timeout={self._timeout}", *args]
        try:
            with self._watch(f"{command} on {self._bridge}"):
                ran = self._execute(argv, stdin, self._timeout + _GRACE)
        except TimeoutError:
            raise ToolStuck(f"{command} did not end within {self._timeout} s; killed") from None
        except (FileNotFoundError, PermissionError) as exc:
            raise ToolMissing("ovs-ofctl cannot be run on this host", str(exc)) from exc
        if ran.code == -signal.SIGALRM:
            raise Timeout(f"{command} took longer than {self._timeout} s")
        if ran.code not in done:
            error = error_from(ran.stderr)
            if isinstance(error, SwitchUnreachable) and self._is_missing():
                raise BridgeNotFound(f"bridge {self._bridge} does not exist", error.detail)
            raise error
        return ran.stdout


def _command(args: Sequence[str]) -> str:
    return next(each for each in args if not each.startswith("-"))


def error_from(stderr: str) -> SwitchError:
    """The error to raise, from what ovs-ofctl printed."""
    detail = stderr.strip()
    refusals = [
        Refusal(m["error"], m[0], cookie=int(m["cookie"] or "0", 16))
        for m in _REFUSED.finditer(stderr)
    ]
    refusals += [
        Refusal(m["reason"], m[0], line=int(m["line"]) - 1) for m in _UNREADABLE.finditer(stderr)
    ]
    if refusals:
        return SwitchError(f"the switch refused a flow: {refusals[0].error}", detail, refusals)
    if _UNREACHABLE.search(stderr):
        return SwitchUnreachable(
            "the bridge's management socket does not answer: is ovs-vswitchd running?", detail
        )
    last = detail.splitlines()[-1] if detail else "ovs-ofctl failed without a message"
    return SwitchError(last, detail)
