"""Queries of many ids, as many at a time as every database takes."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# SQLite takes 32,766 parameters in a statement (SQLITE_MAX_VARIABLE_NUMBER).
_MOST = 10_000


def in_chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """``items`` in order, in parts for one query; none if there are none."""
    for start in range(0, len(items), _MOST):
        yield items[start : start + _MOST]
