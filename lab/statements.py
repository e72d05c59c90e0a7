"""Counts what is sent to a database."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

# oslo.db's look whether a connection still lives: older releases send it as any other statement.
_PING = "SELECT 1"


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements that are sent to the database meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_rest: object) -> None:
        if text != _PING:
            sent.append(text)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
