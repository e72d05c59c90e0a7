"""Reading a request's body: bounded, and JSON to the letter."""

import json
from collections.abc import Sequence
from typing import Any

import falcon

from agent_flows.validation import Invalid


class TooLarge(Exception):
    """The body is larger than ``max_body_bytes``, or has more than ``max_objects``."""


def read(request: falcon.Request, key: str, max_bytes: int) -> object:
    """The value under ``key`` in a body ``{key: value}``.

    Raises :class:`TooLarge` before anything is read if the body is longer than
    ``max_bytes``, and :class:`Invalid` unless it is such a document: strict
    JSON, in UTF-8, no key twice in an object.
    """
    found = read_all(request, [key], max_bytes)
    if key not in found:
        raise Invalid(key, None, "is missing")
    return found[key]


def read_all(request: falcon.Request, keys: Sequence[str], max_bytes: int) -> dict[str, Any]:
    """A body that is an object with some of ``keys``; raises as :func:`read`."""
    if (request.content_length or 0) > max_bytes:
        raise TooLarge(f"a body has at most {max_bytes} bytes, not {request.content_length}")
    raw = request.bounded_stream.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise TooLarge(f"a body has at most {max_bytes} bytes")
    document = _decode(raw)
    if not isinstance(document, dict):
        raise Invalid("", document, f"must be an object with {' or '.join(keys)}")
    for name in document:
        if name not in keys:
            raise Invalid(name, document[name], f"unknown; the body has {', '.join(keys)} alone")
    return document


def _decode(raw: bytes) -> object:
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_key_twice, parse_constant=_no_constant
        )
    except Invalid:
        raise
    except (ValueError, RecursionError) as exc:
        raise Invalid("", type(exc).__name__, f"must be JSON: {exc}") from None


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise Invalid(key, value, "the same key twice in one object")
        document[key] = value
    return document


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")
