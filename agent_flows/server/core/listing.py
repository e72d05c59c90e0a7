"""Lists: filters, order, pages and fields, as in OpenStack's APIs.

A page ends where the next begins: the marker is the last item's id, and the
order always ends in something unique.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.server.core.shape import Shape
from agent_flows.validation import Invalid

View = dict[str, Any]
Params = Mapping[str, Sequence[str]]
ViewRows = Callable[[Session, Sequence[Any], frozenset[str]], list[View]]
"""Shows rows, with at least these fields."""
_DIRECTIONS = {"asc": False, "desc": True}
RESERVED = ("limit", "marker", "sort_key", "sort_dir", "fields")
"""The parameters of every list beside its filters."""
MAX_TEXT = 255
"""The characters of a filter's value at most."""
# Shown by one query.
_TOGETHER = 1000


@dataclass(frozen=True)
class Filter:
    """A column one may filter by; ``values`` are those it can have, None for any text.

    ``matches`` is the condition of one value, if it is not that the column has it.
    """

    column: sa.SQLColumnExpression[Any]
    values: frozenset[str] | None = None
    matches: Callable[[str], sa.ColumnElement[bool]] | None = None


@dataclass(frozen=True)
class Order:
    """Sorted by ``column``, which is never null."""

    column: sa.SQLColumnExpression[Any]
    descending: bool = False


@dataclass(frozen=True)
class Listing:
    """How one kind of resource is listed.

    ``query`` selects rows that ``view`` shows, ``default`` is an order that
    ends in something unique, ``found`` the condition that a marker's row meets.
    ``view`` may leave out fields other than the id that are not asked for; of ``shapes``, the
    fields and what they contain, those ``on_request`` are shown by a list that names them, and
    by one resource.
    """

    plural: str
    query: sa.Select[*tuple[Any, ...]]
    view: ViewRows
    shapes: Mapping[str, Shape]
    filters: Mapping[str, Filter]
    sort_keys: Mapping[str, sa.SQLColumnExpression[Any]]
    default: Sequence[Order]
    found: Callable[[str], sa.ColumnElement[bool]]
    on_request: frozenset[str] = frozenset()

    @property
    def fields(self) -> frozenset[str]:
        """All fields that can be shown."""
        return frozenset(self.shapes)

    @property
    def unasked(self) -> frozenset[str]:
        """The fields that are shown if none is named."""
        return self.fields - self.on_request


def each_row(view: Callable[..., View]) -> ViewRows:
    return lambda session, rows, fields: [view(*row) for row in rows]


def text_filters(*columns: Any) -> dict[str, Filter]:
    return {column.key: Filter(column) for column in columns}


def prefix_filter(column: Any) -> Filter:
    """Takes the beginning of a value, for ids that a person shortened."""
    return Filter(column, matches=lambda text: column.startswith(text, autoescape=True))


def values(enumeration: Any) -> frozenset[str]:
    return frozenset(each.value for each in enumeration)


@dataclass(frozen=True)
class Page:
    """``marker`` is where the next page starts, None if this is the last."""

    items: list[View]
    marker: str | None


def page(session: Session, listing: Listing, params: Params, max_limit: int) -> Page:
    """The page that ``params`` ask for; raises :class:`Invalid` naming the parameter at fault."""
    for name in params:
        if name not in listing.filters and name not in RESERVED:
            known = ", ".join([*listing.filters, *RESERVED])
            raise Invalid(name, params[name][0], f"unknown parameter; there are {known}")
    fields = _fields(listing, params)
    limit = _limit(params, max_limit)
    order = _order(listing, params)
    query = listing.query.where(*_conditions(listing, params))
    marker = _last(params, "marker")
    if marker is not None:
        query = query.where(_behind(session, listing, order, marker))
    query = query.order_by(
        *(each.column.desc() if each.descending else each.column.asc() for each in order)
    )
    rows = session.execute(query.limit(limit + 1)).all()
    items = listing.view(session, rows[:limit], fields)
    more = items[-1]["id"] if len(rows) > limit else None
    return Page([{key: item[key] for key in item if key in fields} for item in items], more)


def one(
    session: Session, listing: Listing, resource_id: str, fields: frozenset[str] | None = None
) -> View | None:
    """The resource with this id, None if there is none; with at least ``fields``, or all."""
    rows = session.execute(listing.query.where(_found(listing, resource_id))).all()
    return listing.view(session, rows, fields or listing.fields)[0] if rows else None


def some(session: Session, listing: Listing, resource_ids: Sequence[str]) -> list[View]:
    """The resources with these ids, in their order; those that exist."""
    column = listing.filters["id"].column
    views = {
        view["id"]: view
        for start in range(0, len(resource_ids), _TOGETHER)
        for view in listing.view(
            session,
            session.execute(
                listing.query.where(column.in_(resource_ids[start : start + _TOGETHER]))
            ).all(),
            listing.unasked,
        )
    }
    return [views[each] for each in resource_ids if each in views]


def _conditions(listing: Listing, params: Params) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    for name, filter_ in listing.filters.items():
        wanted = params.get(name)
        if not wanted:
            continue
        for value in wanted:
            if filter_.values is not None and value not in filter_.values:
                raise Invalid(name, value, f"must be one of {', '.join(sorted(filter_.values))}")
            if not _plain(value):
                raise Invalid(name, value, f"must be printable, at most {MAX_TEXT} characters")
        matches = filter_.matches
        conditions.append(
            filter_.column.in_(wanted) if matches is None else sa.or_(*map(matches, wanted))
        )
    return conditions


def _plain(text: str) -> bool:
    """Whether every database takes it: PostgreSQL refuses NUL even in a question."""
    return len(text) <= MAX_TEXT and text.isprintable()


def _found(listing: Listing, resource_id: str) -> sa.ColumnElement[bool]:
    return listing.found(resource_id) if _plain(resource_id) else sa.false()


def _limit(params: Params, max_limit: int) -> int:
    text = _last(params, "limit")
    if text is None:
        return max_limit
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise Invalid("limit", text, "must be a number from 1")
    return min(int(text), max_limit)


def _order(listing: Listing, params: Params) -> list[Order]:
    keys, directions = params.get("sort_key", ()), params.get("sort_dir", ())
    if len(directions) > len(keys):
        raise Invalid("sort_dir", directions[-1], "needs a sort_key of its own")
    for key in keys:
        if key not in listing.sort_keys:
            raise Invalid("sort_key", key, f"must be one of {', '.join(listing.sort_keys)}")
    for direction in directions:
        if direction not in _DIRECTIONS:
            raise Invalid("sort_dir", direction, "must be asc or desc")
    descending = [_DIRECTIONS[each] for each in directions]
    descending += [False] * (len(keys) - len(descending))
    chosen = [
        Order(listing.sort_keys[key], down) for key, down in zip(keys, descending, strict=True)
    ]
    return [*chosen, *listing.default]


def _behind(
    session: Session, listing: Listing, order: Sequence[Order], marker: str
) -> sa.ColumnElement[bool]:
    """The rows that come after the marker's in this order."""
    columns = [each.column for each in order]
    row = session.execute(
        listing.query.with_only_columns(*columns).where(_found(listing, marker))
    ).first()
    if row is None:
        raise Invalid("marker", marker, f"there is no such item among {listing.plural}")
    steps = []
    for place, (each, value) in enumerate(zip(order, row, strict=True)):
        same = [columns[i] == row[i] for i in range(place)]
        beyond = each.column < value if each.descending else each.column > value
        steps.append(sa.and_(*same, beyond))
    return sa.or_(*steps)


def _fields(listing: Listing, params: Params) -> frozenset[str]:
    wanted = {name for value in params.get("fields", ()) for name in value.split(",")}
    for name in sorted(wanted - listing.fields):
        raise Invalid("fields", name, f"must be of {', '.join(sorted(listing.fields))}")
    return frozenset(wanted) or listing.unasked


def _last(params: Params, name: str) -> str | None:
    values = params.get(name)
    return values[-1] if values else None
