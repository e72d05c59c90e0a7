"""What a caller reads of an agent's error."""

from typing import Any

from neutron import policy

from agent_flows.neutron.server import policies, wording
from agent_flows.server.core.listing import View


def message(context: Any, error_type: str, text: str, host: str, owned: View) -> str:
    """The agent's own ``text``, or what the project of ``owned`` may read instead."""
    if policy.check(context, policies.GET_MESSAGE, owned):
        return text
    return wording.for_project(error_type, text, host)
