"""Lists: filters, order, pages and fields, as in OpenStack's APIs.

A page ends where the next begins: the marker is the last item's id, and the
order always ends in something unique.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.validation import Invalid

View = dict[str, Any]
Params = Mapping[str, Sequence[str]]
_DIRECTIONS = {"asc": False, "desc": True}
_RESERVED = ("limit", "marker", "sort_key", "sort_dir", "fields")
_MAX_TEXT = 255


@dataclass(frozen=True)
class Filter:
    """A column one may filter by; ``values`` are those it can have, None for any text."""

    column: sa.SQLColumnExpression[Any]
    values: frozenset[str] | None = None


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
    """

    plural: str
    query: sa.Select[*tuple[Any, ...]]
    view: Callable[[Session, Sequence[Any]], list[View]]
    fields: frozenset[str]
    filters: Mapping[str, Filter]
    sort_keys: Mapping[str, sa.SQLColumnExpression[Any]]
    default: Sequence[Order]
    found: Callable[[str], sa.ColumnElement[bool]]


def each_row(view: Callable[..., View]) -> Callable[[Session, Sequence[Any]], list[View]]:
    return lambda session, rows: [view(*row) for row in rows]


def text_filters(*columns: Any) -> dict[str, Filter]:
    return {column.key: Filter(column) for column in columns}


def names(names: str) -> frozenset[str]:
    return frozenset(names.split())


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
        if name not in listing.filters and name not in _RESERVED:
            known = ", ".join([*listing.filters, *_RESERVED])
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
    items = listing.view(session, rows[:limit])
    more = items[-1]["id"] if len(rows) > limit else None
    return Page([{key: item[key] for key in item if key in fields} for item in items], more)


def one(session: Session, listing: Listing, resource_id: str) -> View | None:
    """The resource with this id, None if there is none."""
    rows = session.execute(listing.query.where(_found(listing, resource_id))).all()
    return listing.view(session, rows)[0] if rows else None


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
                raise Invalid(name, value, f"must be printable, at most {_MAX_TEXT} characters")
        conditions.append(filter_.column.in_(wanted))
    return conditions


def _plain(text: str) -> bool:
    """Whether every database takes it: PostgreSQL refuses NUL even in a question."""
    return len(text) <= _MAX_TEXT and text.isprintable()


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
    return frozenset(wanted) or listing.fields


def _last(params: Params, name: str) -> str | None:
    values = params.get(name)
    return values[-1] if values else None
