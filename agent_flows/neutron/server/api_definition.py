"""What the API extension ``agent-flows`` adds: tasks, problems, agents, and of a port its state and
``resync``."""

from typing import Any

ALIAS = "agent-flows"
NAME = "Agent flows"
DESCRIPTION = (
    "What agents did to wire each port and its security groups, task by task, and whether the "
    "switch holds the desired state"
)
UPDATED_TIMESTAMP = "2026-01-01T00:00:00-00:00"
IS_SHIM_EXTENSION = False
IS_STANDARD_ATTR_EXTENSION = False
REQUIRED_EXTENSIONS: list[str] = []
OPTIONAL_EXTENSIONS: list[str] = []

# The type under which Neutron finds the plugin.
PLUGIN_TYPE = "AGENT_FLOWS"

TASK, TASKS = "task", "tasks"
PROBLEM, PROBLEMS = "problem", "problems"
AGENT, AGENTS = "agent_flows_agent", "agent_flows_agents"
PORT, PORTS = "port", "ports"
NETWORK, SECURITY_GROUP = "network", "security_group"
RESYNC = "resync"
SYNC = "sync"
SYNC_STATE = "sync_state"
SYNC_REVISION = "sync_revision"
SYNC_SINCE = "sync_since"
SYNC_REASON = "sync_reason"


def _read_only(*, filtered: bool = False, sorted_by: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "allow_post": False,
        "allow_put": False,
        "is_visible": True,
        "is_filter": filtered,
        "is_sort_key": sorted_by,
        **more,
    }


_SORTED_AND_FILTERED = ("resource_id", "host", "flow", "name", "step", "task_state")

RESOURCE_ATTRIBUTE_MAP: dict[str, dict[str, Any]] = {
    TASKS: {
        "id": _read_only(primary_key=True),
        # The port's project; empty once the port is deleted.
        "tenant_id": _read_only(filtered=True, required_by_policy=True),
        "resource_type": _read_only(filtered=True),
        "flow_id": _read_only(filtered=True),
        **{name: _read_only(filtered=True, sorted_by=True) for name in _SORTED_AND_FILTERED},
        **{
            name: _read_only(sorted_by=True)
            for name in ("order", "attempt", "revision", "started_at", "duration")
        },
        "error": _read_only(),
    },
    PROBLEMS: {
        "id": _read_only(primary_key=True),
        **{name: _read_only(filtered=True, sorted_by=True) for name in ("error_type", "host")},
        "resource_id": _read_only(filtered=True),
        "since": _read_only(sorted_by=True),
        **{name: _read_only() for name in ("message", "ports", "resource_type")},
    },
    AGENTS: {
        "id": _read_only(primary_key=True, filtered=True),
        "host": _read_only(filtered=True),
        **{
            name: _read_only()
            for name in (
                "alive",
                "heartbeat_at",
                "state",
                "conflict",
                "host_key",
                "desired",
                "gating_off",
                "ports",
            )
        },
    },
    PORTS: {
        SYNC_STATE: _read_only(filtered=True),
        **{name: _read_only() for name in (SYNC_REVISION, SYNC_SINCE, SYNC_REASON)},
    },
}
SUB_RESOURCE_ATTRIBUTE_MAP: dict[str, Any] = {}
ACTION_MAP: dict[str, Any] = {PORT: {RESYNC: "PUT"}}
ACTION_STATUS: dict[str, Any] = {}
