"""Who may read what, as Neutron's policies: an operator changes them in Neutron's policy file.

Admin reads all. A project reads the tasks of its own ports, with the type of an
error and a message that shows nothing of the host (``wording``).
"""

from collections.abc import Sequence

from neutron_lib.policy import rules
from oslo_policy import policy

GET_TASK = "get_task"
GET_HOST = "get_task:host"
GET_MESSAGE = "get_task:error:message"
GET_DETAIL = "get_task:error:detail"
GET_SYNC_STATE = "get_port:sync_state"
RESYNC = "resync_port"
GET_AGENT = "get_agent_flows_agent"

_SCOPE = ["project"]
_READ: list[policy.Operation] = [
    {"method": "GET", "path": "/tasks"},
    {"method": "GET", "path": "/tasks/{id}"},
]

_RULES = [
    policy.DocumentedRuleDefault(
        GET_TASK,
        rules.ADMIN_OR_PROJECT_READER,
        "Get what an agent did for a port, task by task",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_HOST,
        rules.ADMIN,
        "Get ``host`` of a task, and filter or sort by it",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_MESSAGE,
        rules.ADMIN,
        "Get the agent's own ``message`` of a task's ``error``, which may name the host and what "
        "is on it; others get a message about the port alone",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_DETAIL,
        rules.ADMIN,
        "Get ``detail`` of a task's ``error``: the output of the tool that failed",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_SYNC_STATE,
        rules.ADMIN_OR_PROJECT_READER,
        "Get ``sync_state`` of a port",
        [{"method": "GET", "path": "/ports"}, {"method": "GET", "path": "/ports/{id}"}],
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_AGENT,
        rules.ADMIN,
        "Get the state of a host, as its agent reports it",
        [
            {"method": "GET", "path": "/agent-flows-agents"},
            {"method": "GET", "path": "/agent-flows-agents/{host}"},
        ],
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        RESYNC,
        rules.ADMIN,
        "Have a port wired again by its agent",
        [{"method": "PUT", "path": "/ports/{id}/resync"}],
        scope_types=_SCOPE,
    ),
]


def list_rules() -> Sequence[policy.DocumentedRuleDefault]:
    """For Neutron (entry point ``neutron.policies``) and oslo.policy's sample generator."""
    return _RULES
