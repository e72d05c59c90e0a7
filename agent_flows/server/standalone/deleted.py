"""The last revisions of deleted ports and security groups.

What is created again under the same id goes on from there: nothing of its past, a late report or
the revision that a host has, is taken for the new one's.
"""

import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.server.core.models import DeletedPort, table_of
from agent_flows.server.standalone.bounded_queries import in_chunks

_DELETED = table_of(DeletedPort)
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_PAST = sa.select(_DELETED.c.id, _DELETED.c.revision_number).where(_DELETED.c.id.in_(_IDS))


def note(session: Session, id_: str, revision: int, now: datetime.datetime) -> None:
    """It is deleted, at this revision; its history is kept for a while."""
    session.merge(DeletedPort(id=id_, revision_number=revision, deleted_at=now))
    session.flush()


def revive(session: Session, ids: Sequence[str]) -> dict[str, int]:
    """The last revisions of those of ``ids`` that were deleted; they are no more."""
    connection = session.connection()
    past: dict[str, int] = {}
    for some in in_chunks(ids):
        found = connection.execute(_PAST, {"ids": some})
        past |= {row.id: row.revision_number for row in found}
    if past:
        connection.execute(
            sa.delete(_DELETED).where(_DELETED.c.id == sa.bindparam("its_id")),
            [{"its_id": id_} for id_ in sorted(past)],
        )
    return past
