"""What a resource declares of each method it answers; the OpenAPI document is made of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_flows.server.core.errors import Conflict, NotFound, Unavailable
from agent_flows.server.core.listing import MAX_TEXT, Filter, Listing
from agent_flows.server.core.shape import Shape, about, many, one_of, record
from agent_flows.server.standalone.api.document import TooLarge
from agent_flows.validation import Invalid

JSON = "application/json"
PLACE = "#/components/schemas/{model}"
"""Where the document has the shape with this name."""


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error.

    ``kind`` is the ``type`` in it, ``exception`` what a request raises for it, if it is ours.
    """

    status: int
    kind: str
    meaning: str
    exception: type[Exception] | None = None


REFUSALS = (
    Refusal(400, "Invalid", "`message` explains what `field` may contain", Invalid),
    Refusal(401, "Unauthorized", "with `auth_strategy = keystone`: no token, or it is not valid"),
    Refusal(
        403,
        "Forbidden",
        "the roles of the token are not sufficient; without tokens: a page of another site, in a "
        "browser on this machine, tries to change something",
    ),
    Refusal(404, "NotFound", "there is no such resource", NotFound),
    Refusal(405, "MethodNotAllowed", "the resource does not have this method"),
    Refusal(
        409,
        "Conflict",
        "valid, but in conflict with what exists: an address in use, a group with ports in it",
        Conflict,
    ),
    Refusal(
        413,
        "TooLarge",
        "the body has more than `max_body_bytes` bytes (4 MiB) or `max_objects` objects",
        TooLarge,
    ),
    Refusal(415, "UnsupportedMediaType", "`Content-Type` is given and is not `application/json`"),
    Refusal(
        421,
        "MisdirectedRequest",
        "without tokens the API answers only under `localhost`, a loopback address or `bind_host`",
    ),
    Refusal(
        503,
        "Unavailable",
        "the database, the message bus or Keystone does not answer; try again",
        Unavailable,
    ),
)
"""Every error of the API that has a cause in the request or outside of the server."""

ANY = (401, 403, 421, 503)
"""Refusals of every operation."""
BODY = (400, 413, 415)
"""Refusals of every operation with a body."""


@dataclass(frozen=True)
class Answer:
    """``shape`` is that of the JSON in it; None for an answer without a body.

    ``first`` is where the id of the first resource of a list is in it (a JSON pointer).
    """

    meaning: str
    shape: Shape | None = None
    media_type: str = JSON
    first: str | None = None


@dataclass(frozen=True)
class Operation:
    """One method of a resource; ``body`` is the shape of the JSON that it takes."""

    summary: str
    answers: Mapping[int, Answer]
    refusals: Sequence[int] = ()
    parameters: Sequence[Mapping[str, Any]] = ()
    body: Shape | None = None
    path_shape: Shape = field(default_factory=lambda: {"type": "string", "minLength": 1})
    """What the id in the path may be; another one is refused."""


Operations = Mapping[str, Operation]
"""By method, in capitals."""


def list_parameters(listing: Listing) -> list[Mapping[str, Any]]:
    """The query parameters of a list."""
    given = [_repeated(name, _values(each)) for name, each in listing.filters.items()]
    limit = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
    return [
        *given,
        _parameter("limit", limit, "at most `max_limit` (1000), which is also the default"),
        _parameter("marker", {"type": "string"}, "the id after which the page starts"),
        _repeated("sort_key", one_of(listing.sort_keys)),
        _repeated("sort_dir", one_of(("asc", "desc"))),
        _repeated("fields", one_of(sorted(listing.fields)), "only these"),
    ]


def _values(filter_: Filter) -> Shape:
    if filter_.values is not None:
        return one_of(sorted(filter_.values))
    return {"type": "string", "maxLength": MAX_TEXT}


def _parameter(name: str, shape: Shape, meaning: str = "") -> Mapping[str, Any]:
    described = {"description": meaning} if meaning else {}
    return {"name": name, "in": "query", "schema": shape, **described}


def _repeated(name: str, shape: Shape, meaning: str = "") -> Mapping[str, Any]:
    """A parameter that may be given several times."""
    return {**_parameter(name, many(shape), meaning), "style": "form", "explode": True}


def shared(name: str, shape: Shape) -> Shape:
    """``shape`` under a name of its own, for everything that contains it."""
    return {"$ref": PLACE.format(model=name), "$defs": {name: shape}}


def having(shape: Shape, names: Collection[str]) -> Shape:
    """``shape`` with these fields, whatever else is optional."""
    return {"allOf": [shape, {"required": list(names)}]}


def shown(singular: str, listing: Listing, names: Collection[str] = ()) -> Shape:
    """A resource as it is shown: at least with the fields ``names``."""
    shape = shared(f"{singular}_shown", {**record(listing.shapes), "required": []})
    return having(shape, [name for name in listing.shapes if name in names]) if names else shape


def under(key: str, shape: Shape) -> Shape:
    """``{key: shape}``, as bodies and answers have one resource."""
    return {
        "type": "object",
        "properties": {key: shape},
        "required": [key],
        "additionalProperties": False,
    }


def page_of(listing: Listing, item: Shape) -> Shape:
    """A page of a list."""
    link = {"type": "object", "properties": {"rel": one_of(["next"]), "href": {"type": "string"}}}
    links = about(many(link), "where the next page is; not on the last page")
    shape = under(listing.plural, many(item))
    return {**shape, "properties": {**shape["properties"], f"{listing.plural}_links": links}}
