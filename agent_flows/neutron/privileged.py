"""Runs tools as root from an agent that need not be root itself."""

import os
import signal
from collections.abc import Sequence

from neutron.privileged.agent.linux import utils
from oslo_privsep.comm import PrivsepTimeout

from agent_flows.openflow import ofctl
from agent_flows.openflow.ofctl import Ran

# Seconds beyond the command's limit, in which the helper may report that it was killed.
_GRACE = 2.0
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_NOT_RUN = (126, 127)


def execute(argv: Sequence[str], stdin: str, limit: float) -> Ran:
    """If the agent is not root, run it in the privsep helper that Neutron's agent uses for its own
    tools (section ``privsep``).

    Raises OSError as :data:`agent_flows.openflow.ofctl.Execute` does. timeout(1) kills the command
    in the helper, which has no limit of its own.
    """
    if os.geteuid() == 0:
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
