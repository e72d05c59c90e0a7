"""Running tools as root, in an agent that need not be root itself."""

import os
from collections.abc import Sequence

from neutron.privileged.agent.linux import utils

from agent_flows.secgroups import ofctl
from agent_flows.secgroups.ofctl import Ran


def execute(argv: Sequence[str], stdin: str, limit: float) -> Ran:
    """By the privsep helper that Neutron's agent has for its own tools (section ``privsep``), if
    the agent is not root."""
    if os.geteuid() == 0:
        return ofctl.execute(argv, stdin, limit)
    return Ran(*utils.execute_process(list(argv), stdin.encode(), None))
