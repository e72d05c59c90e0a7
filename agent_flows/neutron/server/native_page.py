"""Pages as Neutron asks a plugin for them, of the core's listings."""

import dataclasses
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from agent_flows.server.core import listing as core
from agent_flows.server.core.listing import Listing, Order, View

MAX_LIMIT = 1000
"""The most items in one answer, even if the request or Neutron allows more."""


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


def read(session: Session, listing: Listing, request: Page) -> list[View]:
    """Raises :class:`agent_flows.validation.Invalid` naming the parameter at fault."""
    params: dict[str, Sequence[str]] = dict(request.filters)
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
    if request.backwards:
        listing = dataclasses.replace(listing, default=_reversed(listing.default))
    found = core.page(session, listing, params, MAX_LIMIT).items
    return found[::-1] if request.backwards else found


def _reversed(orders: Sequence[Order]) -> list[Order]:
    return [dataclasses.replace(order, descending=not order.descending) for order in orders]
