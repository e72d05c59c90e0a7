"""Every metric of agents and servers: its name, type, labels, and what it counts.

The tables in the documentation are made from here, and the alert rules and the dashboard may name
nothing else. Labels are names from the code and hosts that are in the database: no id of a port
or of a group, for Prometheus keeps a series for each value.
"""

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


_SUFFIXES = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.HISTOGRAM: ("_bucket", "_count", "_sum"),
}


@dataclass(frozen=True)
class Metric:
    """``name`` is without the suffixes of a counter or histogram; ``buckets`` are in the unit of
    the name, and empty for those of Prometheus' client."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def shown(self) -> str:
        """The name as a person looks for it."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names that Prometheus stores."""
        return tuple(f"{self.name}{suffix}" for suffix in _SUFFIXES[self.kind])


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Of an agent.

FLOWS = Metric(
    "agent_flows_flows",
    Kind.COUNTER,
    "Reports made, each of one flow for one port or security group.",
    ("flow", "outcome"),
)
TASK_SECONDS = Metric(
    "agent_flows_task_seconds",
    Kind.HISTOGRAM,
    "How long a task took, once for each port of its batch.",
    ("task",),
    _SECONDS,
)
TASK_FAILURES = Metric(
    "agent_flows_task_failures", Kind.COUNTER, "Failed tasks.", ("task", "error_type")
)
DRIFTS = Metric(
    "agent_flows_drifts",
    Kind.COUNTER,
    "Ports of which another program changed something in the switch.",
)
RETRIES = Metric(
    "agent_flows_retries",
    Kind.COUNTER,
    "Reports of second and later attempts, by flow.",
    ("flow",),
)
QUEUE = Metric("agent_flows_queue", Kind.GAUGE, "Ports that wait for a flow.")
QUEUE_OLDEST = Metric(
    "agent_flows_queue_oldest_seconds",
    Kind.GAUGE,
    "For how long the port that waits longest has waited for a flow; 0 without one.",
)
OUTBOX = Metric(
    "agent_flows_outbox_reports", Kind.GAUGE, "Reports that the server has not yet taken."
)
OUTBOX_OLDEST = Metric(
    "agent_flows_outbox_oldest_seconds",
    Kind.GAUGE,
    "Age of the oldest report that the server has not yet taken; 0 without one.",
)
TROUBLE = Metric(
    "agent_flows_trouble", Kind.GAUGE, "What keeps the host from its work.", ("source",)
)
SENT_AGAIN = Metric(
    "agent_flows_reports_sent_again",
    Kind.COUNTER,
    "Reports sent once more because the server had not acknowledged them.",
)
REJECTED = Metric(
    "agent_flows_reports_rejected",
    Kind.COUNTER,
    "Reports that the server rejected for good; fault is no if the port changed in the meantime.",
    ("fault",),
)
CASTS_REFUSED = Metric(
    "agent_flows_casts_refused",
    Kind.COUNTER,
    "Refused messages of the server, by field.",
    ("field",),
)
RPC_CALL_SECONDS = Metric(
    "agent_flows_rpc_call_seconds",
    Kind.HISTOGRAM,
    "How long a call to the server took, until it was answered, refused or failed.",
    ("method", "outcome"),
    _SECONDS,
)

OF_AGENT = (
    FLOWS, TASK_SECONDS, TASK_FAILURES, DRIFTS, RETRIES, QUEUE, QUEUE_OLDEST, OUTBOX, OUTBOX_OLDEST,
    TROUBLE, SENT_AGAIN, REJECTED, CASTS_REFUSED, RPC_CALL_SECONDS,
)  # fmt: skip

# Counters of a server's processes.

REPORTS = Metric("agent_flows_reports", Kind.COUNTER, "Reports taken, by ruling.", ("ruling",))
REDELIVERED = Metric(
    "agent_flows_reports_redelivered",
    Kind.COUNTER,
    "Reports taken that the server had already, because its answer was lost.",
)
STORE_SECONDS = Metric(
    "agent_flows_store_seconds", Kind.HISTOGRAM, "Storing one message of reports."
)
RPC_SECONDS = Metric(
    "agent_flows_rpc_seconds",
    Kind.HISTOGRAM,
    "How long a call of an agent took, until it was answered, refused or failed.",
    ("method", "outcome"),
    _SECONDS,
)
RPC_REFUSED = Metric(
    "agent_flows_rpc_refused", Kind.COUNTER, "Refused messages of agents, by field.", ("field",)
)
CASTS_FAILED = Metric(
    "agent_flows_casts_failed",
    Kind.COUNTER,
    "Casts to agents that could not be sent.",
    ("kind",),
)
SWEEPS_FAILED = Metric("agent_flows_sweeps_failed", Kind.COUNTER, "Sweeps that ended in an error.")
HOST_TAKEN = Metric(
    "agent_flows_host_taken",
    Kind.COUNTER,
    "Calls refused because another agent reports for the host.",
)
REQUEST_SECONDS = Metric(
    "agent_flows_request_seconds",
    Kind.HISTOGRAM,
    "REST requests; of agent-flows-server only.",
    ("method", "route", "status"),
)

# What a server's database contains.

DATABASE_UP = Metric("agent_flows_database_up", Kind.GAUGE, "Whether the database answers.")
PORTS = Metric("agent_flows_ports", Kind.GAUGE, "Ports.", ("host", "status", "sync_state"))
GATING_OFF_UNTIL = Metric(
    "agent_flows_gating_off_until_timestamp_seconds",
    Kind.GAUGE,
    "Until when gating is off, in Unix time; without a host for all of them.",
    ("host",),
)
AGENT_UP = Metric(
    "agent_flows_agent_up", Kind.GAUGE, "Whether the host's agent is alive.", ("host",)
)
AGENT_HEARTBEAT_AGE = Metric(
    "agent_flows_agent_heartbeat_age_seconds",
    Kind.GAUGE,
    "Seconds since its last heartbeat.",
    ("host",),
)
AGENT_CONFLICT = Metric(
    "agent_flows_agent_conflict",
    Kind.GAUGE,
    "Whether two agents report as this host.",
    ("host",),
)
AGENT_BEHIND = Metric(
    "agent_flows_agent_behind_seconds",
    Kind.GAUGE,
    "For how long the agent's desired state has not been the server's.",
    ("host",),
)
AGENT_GATED = Metric(
    "agent_flows_agent_gated",
    Kind.GAUGE,
    "Whether ports of the host are ACTIVE only when proven.",
    ("host",),
)
AGENT_TROUBLE = Metric(
    "agent_flows_agent_trouble",
    Kind.GAUGE,
    "What keeps a host from its work.",
    ("host", "source"),
)
AGENT_WAITING = Metric(
    "agent_flows_agent_waiting",
    Kind.GAUGE,
    "Ports that wait for a flow; of hosts with agent-flows-agent only.",
    ("host",),
)
AGENT_OLDEST = Metric(
    "agent_flows_agent_oldest",
    Kind.GAUGE,
    "Seconds for which the port that waits longest has waited; of hosts with agent-flows-agent "
    "only.",
    ("host",),
)
AGENT_OLDEST_FLOW = Metric(
    "agent_flows_agent_oldest_flow",
    Kind.GAUGE,
    "Seconds for which the flow that takes longest has run; of hosts with agent-flows-agent only.",
    ("host",),
)
AGENT_UNREPORTED = Metric(
    "agent_flows_agent_unreported",
    Kind.GAUGE,
    "Reports that the server has not yet taken.",
    ("host",),
)

# What a process of the server needs.

SERVER_FAILING = Metric(
    "agent_flows_server_failing", Kind.GAUGE, "Parts of this process, 1 if failing.", ("part",)
)

OF_SERVER = (
    REPORTS, REDELIVERED, STORE_SECONDS, RPC_SECONDS, RPC_REFUSED, CASTS_FAILED, SWEEPS_FAILED,
    HOST_TAKEN, REQUEST_SECONDS, DATABASE_UP, PORTS, GATING_OFF_UNTIL, AGENT_UP,
    AGENT_HEARTBEAT_AGE, AGENT_CONFLICT, AGENT_BEHIND, AGENT_GATED, AGENT_TROUBLE, AGENT_WAITING,
    AGENT_OLDEST, AGENT_OLDEST_FLOW, AGENT_UNREPORTED, SERVER_FAILING,
)  # fmt: skip
