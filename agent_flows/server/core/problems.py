"""What is out of sync now, by cause and host, oldest first: no history, and no list of ports.

A host without an agent is one problem and not one for each of its ports.
"""

from typing import Any

import sqlalchemy as sa

from agent_flows.report import ResourceType, SyncState
from agent_flows.server.core import clock, failures
from agent_flows.server.core.failures import OUT_OF_SYNC
from agent_flows.server.core.listing import Filter, Listing, Order, View
from agent_flows.server.core.models import Task, table_of
from agent_flows.server.core.shape import MOMENT, TEXT, UUID, about, nullable, numbers, one_of

RESOURCE = "resource_id"
"""A parameter of a request for problems."""

# In an id; the type of an error, which comes first, has none.
_BETWEEN = ":"

_tasks = table_of(Task).c


def listing(affected: sa.Subquery) -> Listing:
    """The problems of the ports in ``affected``: what a directory knows of ports that are out of
    sync, as :func:`agent_flows.server.standalone.out_of_sync.affected`; of all, or of those that
    the parameter RESOURCE names.
    """
    found = _found(affected)
    cause = table_of(Task).alias("cause")
    query = (
        sa.select(found, cause.c.error_message)
        .select_from(
            found.outerjoin(
                cause,
                sa.and_(cause.c.ordinal == found.c.ordinal, cause.c.position == found.c.position),
            )
        )
        # The oldest of each problem.
        .where(found.c.place == 1)
    )
    by = {name: found.c[name] for name in ("error_type", "host")}
    return Listing(
        plural="problems",
        query=query,
        view=lambda session, rows, fields: [_view(row) for row in rows],
        shapes={
            "id": about(TEXT, "`error_type:host`"),
            "error_type": about(nullable(TEXT), "null if the history has no error"),
            "message": about(nullable(TEXT), "of the oldest"),
            "host": TEXT,
            "since": about(nullable(MOMENT), "of the oldest"),
            "ports": about(numbers(sorted(OUT_OF_SYNC)), "number in each sync_state"),
            "resource_type": about(nullable(one_of(ResourceType)), "of the oldest"),
            "resource_id": about(nullable(UUID), "of the oldest: a port, or a group that failed"),
        },
        filters={
            **{name: Filter(column) for name, column in by.items()},
            # The ports were chosen by it, before they were counted.
            RESOURCE: Filter(found.c.resource_id, matches=lambda id_: sa.true()),
        },
        sort_keys={"since": found.c.since, **by},
        default=(Order(found.c.since), Order(by["error_type"]), Order(by["host"])),
        found=lambda id_: sa.and_(
            by["error_type"] == id_.partition(_BETWEEN)[0], by["host"] == id_.partition(_BETWEEN)[2]
        ),
    )


def _view(row: Any) -> View:
    numbers = {state.value: int(getattr(row, _label(state))) for state in sorted(OUT_OF_SYNC)}
    return {
        "id": f"{row.error_type}{_BETWEEN}{row.host}",
        "error_type": row.error_type or None,
        "message": row.error_message,
        "host": row.host,
        "since": clock.shown(row.since),
        "ports": {state: number for state, number in numbers.items() if number},
        "resource_type": row.resource_type,
        "resource_id": row.resource_id,
    }


def _label(state: SyncState) -> str:
    return f"number_{state.value.lower()}"


def _found(affected: sa.Subquery) -> sa.Subquery:
    """The ports, each with the number of all that have the same problem, and its place by age."""
    caused = failures.with_cause(
        affected, *affected.c, sa.func.coalesce(_tasks.error_type, "").label("error_type"),
        _tasks.position,
    )  # fmt: skip
    port = caused.subquery("caused").c
    problem = port.error_type, port.host

    def number(state: SyncState) -> sa.ColumnElement[Any]:
        mine = sa.case((port.sync_state == state.value, 1), else_=0)
        return sa.func.sum(mine).over(partition_by=problem).label(_label(state))

    return sa.select(
        port.error_type,
        port.host,
        port.since,
        port.resource_type,
        port.resource_id,
        port.ordinal,
        port.position,
        *map(number, sorted(OUT_OF_SYNC)),
        sa.func.row_number()
        .over(partition_by=problem, order_by=(port.since, port.port_id))
        .label("place"),
    ).subquery("found")
