"""Port ranges as value/mask pairs, the only kind of range a flow can match."""

from collections.abc import Iterable, Iterator

BITS = 16
TOP = 2**BITS - 1


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in the fewest ranges, ascending; both ends belong to a range."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], high))
        else:
            result.append((low, high))
    return result


def masks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The fewest (value, mask) pairs that together match exactly ``low`` to ``high``."""
    while low <= high:
        # The largest aligned block that starts at low and does not reach past high.
        size = low & -low if low else TOP + 1
        while low + size - 1 > high:
            size >>= 1
        yield low, TOP & ~(size - 1)
        low += size
