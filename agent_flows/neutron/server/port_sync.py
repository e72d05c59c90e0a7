"""What a port shows beside its ``sync_state``, and why it is out of sync.

The first is in our row, which is read with the port. The reason is read by a statement of its own,
one for all ports of an answer, and only for a request that asks for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from agent_flows.neutron.server import api_definition, error_policy
from agent_flows.neutron.server.api_request import Reading, reading
from agent_flows.neutron.server.models import GatedPort
from agent_flows.report import ResourceType
from agent_flows.server.core import clock, failures
from agent_flows.server.core.database import Transactions
from agent_flows.server.core.listing import View

_Row = GatedPort
_REASON = api_definition.SYNC_REASON

SINCE = sa.func.coalesce(_Row.sync_since, _Row.updated_at)
"""Since when a port has its sync_state."""


def affected(*where: sa.ColumnElement[bool]) -> sa.Subquery:
    """The ports that meet ``where`` and are out of sync, with the columns of
    :func:`agent_flows.server.standalone.out_of_sync.affected`; agents report ports one by one."""
    states = [state.value for state in failures.OUT_OF_SYNC]
    return (
        sa.select(
            _Row.port_id,
            _Row.host,
            _Row.sync_state,
            SINCE.label("since"),
            sa.literal(ResourceType.PORT.value).label("resource_type"),
            _Row.port_id.label("resource_id"),
            failures.last_attempt(_Row.port_id.expression, _Row.host.expression).label("ordinal"),
        )
        .where(_Row.sync_state.in_(states), *where)
        .subquery("affected")
    )


@dataclass(frozen=True)
class _Unread:
    """In place of a reason: of several ports they are read together."""

    port_id: str
    host: str
    owner: View


class PortSync:
    """Extends ports in Neutron's answers; reads from ``database``."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def extend(self, view: View, port: Any) -> None:
        """Add our fields to the view of ``port``, Neutron's row."""
        row: GatedPort | None = port.agent_flows
        view[api_definition.SYNC_STATE] = row.sync_state if row else None
        view[api_definition.SYNC_REVISION] = row.proven_revision if row else None
        view[api_definition.SYNC_SINCE] = (
            clock.shown(row.sync_since or row.updated_at) if row else None
        )
        request = reading(api_definition.PORTS)
        if request is None or not request.asks_for(_REASON):
            return
        view[_REASON] = None
        if row is not None and row.sync_state in failures.OUT_OF_SYNC:
            owner = {"project_id": port.project_id, "tenant_id": port.project_id}
            view[_REASON] = _Unread(row.port_id, row.host, owner)
            if not view.get("bulk"):
                self._read(request, [view])

    def extend_list(self, views: Iterable[View]) -> None:
        """Called when Neutron has made all ports of an answer, each by :meth:`extend`."""
        request = reading(api_definition.PORTS)
        unread = [view for view in views if isinstance(view.get(_REASON), _Unread)]
        if request is not None and unread:
            self._read(request, unread)

    def _read(self, request: Reading, views: Sequence[View]) -> None:
        ids = [view[_REASON].port_id for view in views]
        with self._database.reader() as session:
            found = failures.of_ports(session, affected(_Row.port_id.in_(ids)))
        for view in views:
            port: _Unread = view[_REASON]
            failure = found.get(port.port_id)
            view[_REASON] = failure and {
                "type": failure.type,
                "message": error_policy.message(
                    request.context, failure.type, failure.message, port.host, port.owner
                ),
            }
