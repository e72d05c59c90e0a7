"""Tasks of the history, as both servers list and show them."""

import sqlalchemy as sa

from agent_flows.report import FlowName, ResourceType, Step, TaskState
from agent_flows.server.core import clock
from agent_flows.server.core.listing import (
    Filter,
    Listing,
    Order,
    View,
    each_row,
    prefix_filter,
    text_filters,
    values,
)
from agent_flows.server.core.models import Attempt, Task
from agent_flows.server.core.shape import (
    INTEGER,
    MOMENT,
    NUMBER,
    TEXT,
    UUID,
    about,
    nullable,
    one_of,
    record,
)


def view(attempt: Attempt, row: Task) -> View:
    error = None
    if row.error_type is not None:
        error = {
            "type": row.error_type,
            "message": row.error_message,
            "detail": row.error_detail,
        }
    return {
        # No dot: web frameworks take what follows one for a file's type.
        "id": f"{attempt.id}-{row.position}",
        "resource_type": attempt.resource_type,
        "resource_id": attempt.resource_id,
        "host": attempt.host,
        "flow": attempt.flow,
        "flow_id": attempt.id,
        "name": row.name,
        "step": row.step,
        "order": row.position,
        "task_state": row.task_state,
        "attempt": attempt.attempt,
        "revision": attempt.revision,
        "started_at": clock.shown(row.started_at),
        "duration": row.duration,
        "error": error,
    }


def _task_id(task_id: str) -> sa.ColumnElement[bool]:
    flow_id, _, position = task_id.rpartition("-")
    place = int(position) if position.isascii() and position.isdigit() and len(position) < 3 else -1
    return sa.and_(Attempt.id == flow_id, Task.position == place)


_started = sa.func.coalesce(Task.started_at, Attempt.started_at)
LISTING = Listing(
    plural="tasks",
    query=sa.select(Attempt, Task).join(Task, Task.ordinal == Attempt.ordinal),
    view=each_row(view),
    shapes={
        "id": TEXT,
        "resource_type": about(one_of(ResourceType), "what the attempt is about"),
        "resource_id": about(UUID, "the port, or the security group on a host"),
        "host": TEXT,
        "flow": one_of(FlowName),
        "flow_id": about(UUID, "one attempt"),
        "name": TEXT,
        "step": one_of(Step),
        "order": about(INTEGER, "place in the flow"),
        "task_state": one_of(TaskState),
        "attempt": about(INTEGER, "1 for the first one at this revision"),
        "revision": about(INTEGER, "of the port or the group"),
        "started_at": about(nullable(MOMENT), "null if the task was not reached"),
        "duration": about(nullable(NUMBER), "in seconds"),
        "error": nullable(record({"type": TEXT, "message": TEXT, "detail": nullable(TEXT)})),
    },
    filters={
        **text_filters(Attempt.resource_type, Attempt.resource_id, Attempt.host),
        "flow": Filter(Attempt.flow, values(FlowName)),
        "flow_id": Filter(Attempt.id),
        "flow_id_prefix": prefix_filter(Attempt.id),
        **text_filters(Task.name, Task.step),
        "task_state": Filter(Task.task_state, values(TaskState)),
    },
    sort_keys={
        # A task that was never reached is sorted by the start of its
        # attempt, and as if it had taken less than any other.
        "started_at": _started,
        "duration": sa.func.coalesce(Task.duration, -1.0),
        "resource_id": Attempt.resource_id,
        "host": Attempt.host,
        "flow": Attempt.flow,
        "attempt": Attempt.attempt,
        "revision": Attempt.revision,
        "name": Task.name,
        "step": Task.step,
        "order": Task.position,
        "task_state": Task.task_state,
    },
    default=(Order(Attempt.ordinal, descending=True), Order(Task.position)),
    found=_task_id,
)
