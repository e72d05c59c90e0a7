"""The one place where the server's time comes from, and what others' numbers are held against."""

import contextlib
import datetime
from collections.abc import Callable, Iterator

_MICROSECOND = datetime.timedelta(microseconds=1)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_AHEAD = datetime.timedelta(days=1)


def _of_this_machine() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


_sources: list[Callable[[], datetime.datetime]] = [_of_this_machine]


def now() -> datetime.datetime:
    return _sources[-1]()


@contextlib.contextmanager
def read_from(source: Callable[[], datetime.datetime]) -> Iterator[None]:
    """While inside, the time of this process is that of ``source``: for a simulation."""
    _sources.append(source)
    try:
        yield
    finally:
        _sources.pop()


def microseconds() -> int:
    """Now, as sequences are: microseconds since the epoch."""
    return (now() - _EPOCH) // _MICROSECOND


def shown(moment: datetime.datetime | None) -> str | None:
    """ISO 8601 with microseconds, as answers of the API have it."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def highest_sequence(now: datetime.datetime) -> int:
    """The highest sequence (microseconds since the epoch) that a report may have: a day ahead."""
    return (now + _AHEAD - _EPOCH) // _MICROSECOND


def credible(sequence: int, now: datetime.datetime) -> int:
    """A stored ``sequence``, or 0 if no report may have it: it was a lie, or a clock was wrong."""
    return sequence if sequence <= highest_sequence(now) else 0


def is_ahead(moment: datetime.datetime, now: datetime.datetime) -> bool:
    """Whether ``moment`` is further in the future than clocks may differ."""
    return moment > now + _AHEAD
