"""Runs tools as root from an agent that need not be root itself."""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from typing import IO, cast

import psutil
from neutron.agent.linux import utils as agent_utils
from neutron.conf.agent.common import get_root_helper
from neutron.privileged.agent.linux import utils
from neutron_lib import exceptions
from oslo_config import cfg
from oslo_log import log
from oslo_privsep.comm import PrivsepTimeout

from agent_flows.fairness import are_green
from agent_flows.openflow import ofctl
from agent_flows.openflow.monitor import Child, LocalChild
from agent_flows.openflow.ofctl import Ran

LOG = log.getLogger(__name__)

# Seconds beyond the command's limit, in which the helper may report that it was killed.
_GRACE = 2.0
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_NOT_RUN = (126, 127)
# Seconds that a child of the root helper runs, and at most outlives the agent.
_LONGEST_RUN = 3600


def execute(argv: Sequence[str], stdin: str, limit: float) -> Ran:
    """Run it in the privsep helper that Neutron's agent uses for its own tools (section
    ``privsep``), unless the agent is root and its threads are the system's: while a program is
    started, none of eventlet's runs until it is loaded.

    Raises OSError as :data:`agent_flows.openflow.ofctl.Execute` does. timeout(1) kills the command
    in the helper, which has no limit of its own.
    """
    if os.geteuid() == 0 and not are_green():
        return ofctl.execute(argv, stdin, limit)
    command = ["timeout", "--signal=KILL", f"{limit:g}", *argv]
    try:
        ran = Ran(
            *utils.execute_process(command, stdin.encode(), None, _wrap_timeout=limit + _GRACE)
        )
    except PrivsepTimeout:
        raise TimeoutError(f"the privsep helper did not answer for {limit + _GRACE:g} s") from None
    if ran.code in _KILLED:
        raise TimeoutError(f"{argv[0]} did not end within {limit:g} s")
    if ran.code in _NOT_RUN:
        # The reason is timeout(1)'s.
        raise FileNotFoundError(ran.stderr.strip())
    return ran


def start(argv: Sequence[str]) -> Child:
    """Start a tool that runs as long as the agent. If the agent is not root, by the root helper of
    Neutron (section ``AGENT``), whose filters allow ovs-ofctl; raises OSError.

    The helper does not end its child with the agent, so that ovs-ofctl ends by itself from
    time to time; it is started again.
    """
    if os.geteuid() == 0:
        return LocalChild(argv)
    return _HelpersChild([argv[0], f"--timeout={_LONGEST_RUN}", *argv[1:]])


class _HelpersChild:
    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        # Not with Neutron's create_process: ovs-ofctl prints what it monitors to standard error.
        self._popen = subprocess.Popen(
            [*shlex.split(get_root_helper(cfg.CONF)), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._output = cast(IO[bytes], self._popen.stdout)

    def fileno(self) -> int:
        return self._output.fileno()

    def end(self) -> None:
        try:
            # None, or an error, if it has ended by itself.
            pid = agent_utils.get_root_helper_child_pid(self._popen.pid, self._argv, True)
            if pid is not None:
                agent_utils.kill_process(pid, signal.SIGKILL, True)
        except (OSError, psutil.Error, exceptions.ProcessExecutionError) as exc:
            LOG.info("%s was not ended: %s", self._argv[0], exc)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_GRACE)
        self._output.close()
