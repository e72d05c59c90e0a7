"""``GET /v2.0/tasks``: the core's listing, with Neutron's parameters and the port's project."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from sqlalchemy.orm import Session

from agent_flows.server.core import tasks as history
from agent_flows.server.core.listing import Listing, Order, View, one, page
from agent_flows.server.core.models import Attempt

MAX_LIMIT = 1000
"""The most tasks in one answer, even if the request or Neutron allows more."""

_OWNER = ("tenant_id", "project_id")


@dataclasses.dataclass(frozen=True)
class Page:
    """The parameters that Neutron passes to a plugin: ``sorts`` are keys and whether they ascend.

    ``backwards`` asks for the page that ends before ``marker``.
    """

    filters: Mapping[str, Sequence[str]]
    sorts: Sequence[tuple[str, bool]] = ()
    limit: int | None = None
    marker: str | None = None
    backwards: bool = False


def tasks(session: Session, project: str | None, request: Page) -> list[View]:
    """The tasks of ports of ``project``, None for all.

    Raises :class:`agent_flows.validation.Invalid` naming the parameter at fault.
    """
    filters = dict(request.filters)
    owners = [filters.pop(name) for name in _OWNER if name in filters]
    if project is not None:
        owners.append([project])
    params: dict[str, Sequence[str]] = dict(filters)
    if request.limit is not None:
        params["limit"] = [str(request.limit)]
    if request.marker is not None:
        params["marker"] = [request.marker]
    # Neutron adds the id for a unique order; ours is unique without it.
    sorts = [(key, ascending) for key, ascending in request.sorts if key != "id"]
    if sorts:
        params["sort_key"] = [key for key, _ in sorts]
        params["sort_dir"] = [
            "asc" if ascending is not request.backwards else "desc" for _, ascending in sorts
        ]
    listing = _listing(owners)
    if request.backwards:
        listing = dataclasses.replace(listing, default=_reversed(listing.default))
    found = page(session, listing, params, MAX_LIMIT).items
    return found[::-1] if request.backwards else found


def task(session: Session, project: str | None, task_id: str) -> View | None:
    """The task with this id, None if there is none of ``project``'s."""
    return one(session, _listing([] if project is None else [[project]]), task_id)


def _listing(owners: Sequence[Sequence[str]]) -> Listing:
    listing = history.LISTING
    port = models_v2.Port
    query = listing.query
    for projects in owners:
        theirs = sa.select(port.id).where(port.project_id.in_(projects))
        query = query.where(Attempt.resource_id.in_(theirs))

    def view(session: Session, rows: Sequence[Any]) -> list[View]:
        views = listing.view(session, rows)
        ids = {task["resource_id"] for task in views}
        query = sa.select(port.id, port.project_id).where(port.id.in_(ids))
        projects = {row.id: row.project_id for row in session.execute(query)}
        for task in views:
            task["project_id"] = task["tenant_id"] = projects.get(task["resource_id"])
        return views

    return dataclasses.replace(
        listing, query=query, view=view, fields=listing.fields | frozenset(_OWNER)
    )


def _reversed(orders: Sequence[Order]) -> list[Order]:
    return [dataclasses.replace(order, descending=not order.descending) for order in orders]
