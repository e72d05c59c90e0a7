"""Who may read what, as Neutron's policies: an operator changes them in Neutron's policy file.

Admin reads all. A project reads the tasks of its own ports, with the type of an
error and a message that shows nothing of the host (``wording``).
"""

# policy.Operation came with oslo.policy 5.
from __future__ import annotations

from collections.abc import Sequence

from neutron_lib import policy as neutrons
from oslo_policy import policy

GET_TASK = "get_task"
GET_HOST = "get_task:host"
GET_MESSAGE = "get_task:error:message"
GET_DETAIL = "get_task:error:detail"
GET_SYNC_STATE = "get_port:sync_state"
RESYNC = "resync_port"
GET_AGENT = "get_agent_flows_agent"
GET_PROBLEM = "get_problem"

_ADMIN = neutrons.RULE_ADMIN_ONLY
# As in neutron/conf/policies/base.py (neutron_lib/policy/rules.py since Neutron 29).
_ADMIN_OR_PROJECT_READER = f"({_ADMIN}) or (role:reader and project_id:%(project_id)s)"

_SCOPE = ["project"]
_READ: list[policy.Operation] = [
    {"method": "GET", "path": "/tasks"},
    {"method": "GET", "path": "/tasks/{id}"},
]
_READ_PORTS: list[policy.Operation] = [
    {"method": "GET", "path": "/ports"},
    {"method": "GET", "path": "/ports/{id}"},
]
_BESIDE = {
    "sync_revision": "",
    "sync_since": "",
    "sync_reason": f"; its ``message`` is the agent's own for whom ``{GET_MESSAGE}`` allows it",
}

_RULES = [
    policy.DocumentedRuleDefault(
        GET_TASK,
        _ADMIN_OR_PROJECT_READER,
        "Get what an agent did for a port, task by task",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_HOST,
        _ADMIN,
        "Get ``host`` of a task, and filter or sort by it",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_MESSAGE,
        _ADMIN,
        "Get the agent's own ``message`` of a task's ``error``, which may name the host and what "
        "is on it; others get a message about the port alone",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_DETAIL,
        _ADMIN,
        "Get ``detail`` of a task's ``error``: the output of the tool that failed",
        _READ,
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_SYNC_STATE,
        _ADMIN_OR_PROJECT_READER,
        "Get ``sync_state`` of a port",
        _READ_PORTS,
        scope_types=_SCOPE,
    ),
    *(
        policy.DocumentedRuleDefault(
            f"get_port:{name}",
            _ADMIN_OR_PROJECT_READER,
            f"Get ``{name}`` of a port{more}",
            _READ_PORTS,
            scope_types=_SCOPE,
        )
        for name, more in _BESIDE.items()
    ),
    *(
        policy.DocumentedRuleDefault(
            f"get_{resource}:sync",
            _ADMIN_OR_PROJECT_READER,
            f"Get ``sync`` of a {name}: of its ports those of the caller's project, for admins "
            f"all; and the hosts that lag for whom ``{GET_HOST}`` allows it",
            [{"method": "GET", "path": f"/{path}/{{id}}/sync"}],
            scope_types=_SCOPE,
        )
        for resource, name, path in (
            ("security_group", "security group", "security-groups"),
            ("network", "network", "networks"),
        )
    ),
    policy.DocumentedRuleDefault(
        GET_PROBLEM,
        _ADMIN,
        "Get what is out of sync now, by cause and host",
        [{"method": "GET", "path": "/problems"}, {"method": "GET", "path": "/problems/{id}"}],
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        GET_AGENT,
        _ADMIN,
        "Get the state of a host, as its agent reports it",
        [
            {"method": "GET", "path": "/agent-flows-agents"},
            {"method": "GET", "path": "/agent-flows-agents/{host}"},
        ],
        scope_types=_SCOPE,
    ),
    policy.DocumentedRuleDefault(
        RESYNC,
        _ADMIN,
        "Have a port wired again by its agent",
        [{"method": "PUT", "path": "/ports/{id}/resync"}],
        scope_types=_SCOPE,
    ),
]


def list_rules() -> Sequence[policy.DocumentedRuleDefault]:
    """For Neutron (entry point ``neutron.policies``) and oslo.policy's sample generator."""
    return _RULES
