"""``GET /v2.0/tasks``: the core's listing, with Neutron's parameters and the port's project."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from sqlalchemy.orm import Session

from agent_flows.neutron.server import native_page
from agent_flows.neutron.server.native_page import Page
from agent_flows.server.core import tasks as history
from agent_flows.server.core.listing import Listing, View, one
from agent_flows.server.core.models import Attempt
from agent_flows.server.core.shape import TEXT, nullable

_OWNER = ("tenant_id", "project_id")


def tasks(session: Session, project: str | None, request: Page) -> list[View]:
    """The tasks of ports of ``project``, None for all.

    Raises :class:`agent_flows.validation.Invalid` naming the parameter at fault.
    """
    filters = dict(request.filters)
    owners = [filters.pop(name) for name in _OWNER if name in filters]
    if project is not None:
        owners.append([project])
    asked = dataclasses.replace(request, filters=filters)
    return native_page.read(session, _listing(owners), asked)


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

    def view(session: Session, rows: Sequence[Any], fields: frozenset[str]) -> list[View]:
        views = listing.view(session, rows, fields)
        ids = {task["resource_id"] for task in views}
        query = sa.select(port.id, port.project_id).where(port.id.in_(ids))
        projects = {row.id: row.project_id for row in session.execute(query)}
        for task in views:
            task["project_id"] = task["tenant_id"] = projects.get(task["resource_id"])
        return views

    shapes = {**listing.shapes, **dict.fromkeys(_OWNER, nullable(TEXT))}
    return dataclasses.replace(listing, query=query, view=view, shapes=shapes)
