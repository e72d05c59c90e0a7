"""How far many ports are in sync: their number in each state, and the hosts that lag.

For whole security groups and networks, in one statement for all of an answer. The database counts,
and answers a bounded number of hosts.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.server.core import clock
from agent_flows.server.core.failures import OUT_OF_SYNC
from agent_flows.server.core.listing import View
from agent_flows.server.core.shape import INTEGER, MOMENT, TEXT, many, nullable, numbers, record

MOST_HOSTS = 20
"""The hosts that lag for longest are named, the others counted."""

_LAGGING = OUT_OF_SYNC | {SyncState.SYNCING}
_STATES = tuple(SyncState)
SHAPE = record(
    {
        "ports": numbers(_STATES),
        "lagging_hosts": many(
            record(
                {
                    "host": TEXT,
                    "ports": INTEGER,
                    "revision": nullable(INTEGER),
                    "since": nullable(MOMENT),
                }
            )
        ),
        "more_lagging_hosts": INTEGER,
    }
)
"""What :func:`of` and :func:`nothing` give."""


def nothing() -> View:
    """Of no ports."""
    return _view(dict.fromkeys(map(_label, _STATES), 0), [], 0)


def of(session: Session, ports: sa.Subquery) -> Mapping[str, View]:
    """The roll-up of ``ports`` by their ``key``, without keys that have no ports.

    ``ports`` has the columns ``key``, ``host``, ``sync_state``, ``since`` (when it began) and
    ``revision``: of the resource with that key, as the port has it there; NULL if that is not
    known.
    """
    found: dict[str, View] = {}
    for row in (each._asdict() for each in session.execute(_query(ports))):
        shown = found.get(row["key"])
        if shown is None:
            shown = found[row["key"]] = _view(row, [], int(row["hosts"]))
        if row["lagging"]:
            shown["lagging_hosts"].append(
                {
                    "host": row["host"],
                    "ports": int(row["lagging"]),
                    "revision": row["revision"],
                    "since": clock.shown(row["since"]),
                }
            )
            shown["more_lagging_hosts"] -= 1
    return found


def _view(numbers: Mapping[str, Any], hosts: list[View], more: int) -> View:
    return {
        "ports": {state.value: int(numbers[_label(state)]) for state in _STATES},
        "lagging_hosts": hosts,
        "more_lagging_hosts": more,
    }


def _label(state: SyncState) -> str:
    return f"number_{state.value.lower()}"


def _query(ports: sa.Subquery) -> sa.Select[*tuple[Any, ...]]:
    port = ports.c
    lags = sa.and_(port.sync_state.in_([state.value for state in _LAGGING]), port.host.is_not(None))
    by_host = (
        sa.select(
            port.key,
            port.host,
            *(
                sa.func.sum(sa.case((port.sync_state == state.value, 1), else_=0)).label(
                    _label(state)
                )
                for state in _STATES
            ),
            sa.func.sum(sa.case((lags, 1), else_=0)).label("lagging"),
            sa.func.min(sa.case((lags, port.since))).label("since"),
            sa.func.min(sa.case((lags, port.revision))).label("revision"),
        )
        .group_by(port.key, port.host)
        .subquery("by_host")
    )
    host = by_host.c
    order = sa.case((host.lagging > 0, 0), else_=1), host.since, host.host
    ranked = sa.select(
        host.key,
        host.host,
        host.lagging,
        host.since,
        host.revision,
        *(
            sa.func.sum(host[_label(state)]).over(partition_by=host.key).label(_label(state))
            for state in _STATES
        ),
        sa.func.sum(sa.case((host.lagging > 0, 1), else_=0))
        .over(partition_by=host.key)
        .label("hosts"),
        sa.func.row_number().over(partition_by=host.key, order_by=order).label("place"),
    ).subquery("ranked")
    return (
        sa.select(ranked).where(ranked.c.place <= MOST_HOSTS).order_by(ranked.c.key, ranked.c.place)
    )
