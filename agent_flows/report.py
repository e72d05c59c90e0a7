"""What happened: the words that agent and server share.

A task's states and the moves between them::

    PENDING --> RUNNING --> SUCCEEDED --> REVERTED
       |           |------> FAILED      |
       |           `------> SKIPPED     `-> FAILED (its revert failed)
       `--> (never reached: stays PENDING)

A report contains the states at the end of an attempt, so RUNNING only occurs
while a flow runs.
"""

import dataclasses
import datetime
import enum
from collections.abc import Mapping
from typing import Annotated, Self

import pydantic
from pydantic.dataclasses import dataclass

from agent_flows.errors import ErrorType
from agent_flows.validation import STRICT, FieldError, Hostname, Revision, Uuid

MAX_DETAIL_BYTES = 4096
MAX_MESSAGE_CHARS = 512
SEQUENCE_LEAD = 24 * 3600 * 1_000_000
"""How far a valid sequence may be ahead of the clock, in microseconds."""
_EARLIEST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_LATEST = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
_MAX_SECONDS = 7 * 24 * 3600.0


class TaskState(enum.StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REVERTED = "REVERTED"
    SKIPPED = "SKIPPED"


TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset({TaskState.RUNNING}),
    TaskState.RUNNING: frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED}),
    TaskState.SUCCEEDED: frozenset({TaskState.REVERTED, TaskState.FAILED}),
    TaskState.FAILED: frozenset(),
    TaskState.REVERTED: frozenset(),
    TaskState.SKIPPED: frozenset(),
}


class Step(enum.StrEnum):
    L2 = "l2"
    SECURITY_GROUPS = "security_groups"


class FlowName(enum.StrEnum):
    WIRE = "wire"
    REFRESH = "refresh"
    UNWIRE = "unwire"
    RESYNC = "resync"
    AUDIT = "audit"
    """What was found, before it is repaired; it proves nothing."""


class ResourceType(enum.StrEnum):
    """What a report is about."""

    PORT = "port"
    SECURITY_GROUP = "security_group"
    """As all ports of the host that depend on it have it."""


class SyncState(enum.StrEnum):
    """Whether the switch has a port's desired state; beside its status, not instead of it."""

    IN_SYNC = "IN_SYNC"
    SYNCING = "SYNCING"
    OUT_OF_SYNC = "OUT_OF_SYNC"
    ABSENT = "ABSENT"
    UNKNOWN = "UNKNOWN"


class PortStatus(enum.StrEnum):
    ACTIVE = "ACTIVE"
    DOWN = "DOWN"


class Trouble(enum.StrEnum):
    """What may keep a host from working; a heartbeat contains one line for each that it has."""

    SWITCH = "switch"
    """ovs-vswitchd does not run or does not answer."""
    BRIDGE = "bridge"
    """The integration bridge is missing or wrong."""
    FLOOR = "floor"
    """Packets may pass without security groups: the flow below the pipeline could not be written.
    """
    UPLINK = "uplink"
    """A physical network's bridge, or a patch port to it, is missing."""
    OVSDB = "ovsdb"
    """ovsdb-server does not answer."""
    OPENFLOW = "openflow"
    """A call of ovs-ofctl takes too long."""
    FLOW = "flow"
    """A flow takes too long."""
    PORTS = "ports"
    """A batch of ports could not be processed."""
    OUTBOX = "outbox"
    """Reports cannot be stored: the disk is full, or the file is damaged."""
    REPORTER = "reporter"
    """Reports cannot be delivered."""
    LISTENER = "listener"
    """The server's casts are not received."""
    HEARTBEAT = "heartbeat"
    """Heartbeats cannot be sent."""
    IDENTITY = "identity"
    """Another agent reports for this host."""
    CLOCK = "clock"
    """The clocks of this host and the server differ by more than a day."""
    DRIFT = "drift"
    """Another program changes the switch again and again, or that could not be compared."""
    MONITOR = "monitor"
    """Changes of flows by other programs are not seen at once, only by the audit."""
    CONTROL = "control"
    """Work for the whole host failed."""
    RESYNC = "resync"
    """The ports of this host could not be read from the server."""
    METRICS = "metrics"
    """Metrics cannot be served."""
    OTHER = "other"
    """Any trouble that only a newer agent knows."""


UNTRUE = frozenset({Trouble.SWITCH, Trouble.BRIDGE})
"""With one of these, earlier reports of the host's ports prove nothing any more."""


# Tasks that may be SKIPPED in a report that proves a port, because not every
# kind of interface needs them (a vhost-user port has no kernel link). A task of
# the security groups may never be skipped.
SKIPPABLE_TASKS = frozenset({"raise-link"})


def moment(clock: datetime.datetime) -> datetime.datetime:
    """``clock`` within the limits of a report, for a host whose clock was never set."""
    return min(max(clock, _EARLIEST), _LATEST)


def _one_line(value: object) -> object:
    return " ".join(value.split())[:MAX_MESSAGE_CHARS] if isinstance(value, str) else value


def _bounded(value: object) -> object:
    if not isinstance(value, str):
        return value
    # A lone surrogate can be neither stored nor sent.
    encoded = value.encode("utf-8", "replace")
    if len(encoded) <= MAX_DETAIL_BYTES:
        return encoded.decode()
    marker = b"\n[...]"
    return (encoded[: MAX_DETAIL_BYTES - len(marker)] + marker).decode("utf-8", "ignore")


Name = Annotated[
    str, pydantic.Strict(), pydantic.StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")
]
Moment = Annotated[pydantic.AwareDatetime, pydantic.Field(ge=_EARLIEST, le=_LATEST)]
Seconds = Annotated[float, pydantic.Field(ge=0, le=_MAX_SECONDS, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class TaskError:
    """Why a task failed.

    ``type`` is a short name a script can compare, in our code always an :class:`ErrorType`;
    ``message`` one line for a person, ``detail`` the tool's own output, cut at 4 KiB.
    """

    type: Name
    message: Annotated[str, pydantic.BeforeValidator(_one_line), pydantic.Strict()]
    detail: Annotated[str, pydantic.BeforeValidator(_bounded), pydantic.Strict()] = ""


@dataclass(frozen=True, config=STRICT)
class TaskOutcome:
    """How one task ended for one port; ``duration`` in seconds.

    A task that never ran is PENDING and has neither start nor duration.
    """

    name: Name
    step: Step
    state: TaskState
    started_at: Moment | None = None
    duration: Seconds | None = None
    error: TaskError | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.error is not None) != (self.state is TaskState.FAILED):
            raise FieldError("error", self.error, "must be set for FAILED and for no other state")
        return self


@dataclass(frozen=True, config=STRICT)
class FlowReport:
    """All outcomes of one attempt of one flow for one port, or for one security group on the host,
    in the order of its tasks. Of a group ``revision`` is the group's.

    ``sequence`` is 0 until the outbox has numbered the report; such a report is
    never sent.
    """

    id: Uuid
    host: Hostname
    resource_id: Uuid
    flow: FlowName
    revision: Revision
    attempt: Annotated[int, pydantic.Strict(), pydantic.Field(ge=1, lt=2**31)]
    started_at: Moment
    finished_at: Moment
    tasks: Annotated[tuple[TaskOutcome, ...], pydantic.Field(min_length=1, max_length=64)]
    sequence: Annotated[int, pydantic.Strict(), pydantic.Field(ge=0, lt=2**62)] = 0
    security_group_revisions: Annotated[dict[Uuid, Revision], pydantic.Field(max_length=1024)] = (
        dataclasses.field(default_factory=dict)
    )
    resource_type: ResourceType = ResourceType.PORT

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.finished_at < self.started_at:
            raise FieldError("finished_at", str(self.finished_at), "must not be before started_at")
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise FieldError("tasks", names, "must not contain a task twice")
        return self

    @property
    def failed(self) -> TaskOutcome | None:
        """The task that caused the failure, if one failed: not a revert that failed after it."""
        failed = [task for task in self.tasks if task.state is TaskState.FAILED]
        causes = (
            task for task in failed if task.error and task.error.type != ErrorType.REVERT_FAILED
        )
        return next(causes, failed[0] if failed else None)

    @property
    def log_fields(self) -> Mapping[str, object]:
        """What a line of the log about this report carries as fields of its own, beside its text:
        for ``extra`` of a logger."""
        return {
            self.resource_type.value: self.resource_id,
            "host": self.host,
            "flow": self.flow.value,
            "attempt": self.attempt,
        }

    def proves(self, step: Step) -> bool:
        """Whether every task of ``step`` succeeded, and there is at least one."""
        states = [
            task.state
            for task in self.tasks
            if task.step is step
            and not (task.state is TaskState.SKIPPED and task.name in SKIPPABLE_TASKS)
        ]
        return bool(states) and all(state is TaskState.SUCCEEDED for state in states)
