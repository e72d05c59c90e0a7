"""Who may do what, as oslo.policy rules: admin everything, a reader of the system may read."""

from oslo_config import cfg
from oslo_policy import policy

# Nothing here belongs to a project, and in Keystone every member of a project is a reader in it.
READERS = "role:admin or (role:reader and system_scope:all)"

_RULES = [
    policy.DocumentedRuleDefault(
        "agent_flows:read",
        READERS,
        "Read networks, groups, ports, tasks and agents",
        [
            {"path": "/{collection}", "method": "GET"},
            {"path": "/{collection}/{id}", "method": "GET"},
            {"path": "/ports/{id}/specs", "method": "GET"},
            {"path": "/openapi.json", "method": "GET"},
        ],
    ),
    policy.DocumentedRuleDefault(
        "agent_flows:write",
        "role:admin",
        "Change desired state, have ports wired again, and delete agents",
        [
            {"path": "/{collection}", "method": "POST"},
            {"path": "/documents", "method": "POST"},
            {"path": "/{collection}/{id}", "method": "PUT"},
            {"path": "/{collection}/{id}", "method": "DELETE"},
            {"path": "/ports/{id}/resync", "method": "POST"},
            {"path": "/agents/{host}/resync", "method": "POST"},
        ],
    ),
    policy.DocumentedRuleDefault(
        "agent_flows:metrics", READERS, "Read metrics", [{"path": "/metrics", "method": "GET"}]
    ),
    policy.DocumentedRuleDefault(
        "agent_flows:health",
        "@",
        "Read the server's health",
        [{"path": "/healthz", "method": "GET"}],
    ),
]


def list_rules() -> list[policy.DocumentedRuleDefault]:
    """For oslo.policy's sample generator."""
    return _RULES


def enforcer(conf: cfg.ConfigOpts) -> policy.Enforcer:
    """An enforcer with our rules, overridden by the operator's policy file if there is one."""
    made = policy.Enforcer(conf)
    made.register_defaults(_RULES)
    return made
