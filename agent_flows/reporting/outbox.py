"""Stores reports in a file until the server has acknowledged them.

SQLite in WAL mode: stored reports survive ``kill -9``. A power failure may
lose the last ones, together with the flows they are about. The file also
contains the host's last sequence, so that it rises across restarts, and the
boot ids of the processes that used it.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from oslo_log import log

from agent_flows.fairness import apart, fair
from agent_flows.report import SEQUENCE_LEAD, FlowReport, ResourceType, Trouble
from agent_flows.rpc import codec
from agent_flows.rpc.answers import Held
from agent_flows.rpc.identity import Identity
from agent_flows.supervision import Troubles, described, one_line
from agent_flows.validation import is_port_id

LOG = log.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS unsent (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    resource_type TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    failed INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS unsent_by_resource ON unsent (resource_type, resource_id, sequence);
CREATE TABLE IF NOT EXISTS last (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER);
INSERT OR IGNORE INTO last VALUES (1, 0);
CREATE TABLE IF NOT EXISTS unreadable (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sequence INTEGER NOT NULL,
    id TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    body TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS boots (number INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS probe (body BLOB);
"""

# Releases that report only ports keep them in tables of these names, and make them if they miss.
# Neither an upgrade nor a downgrade meets a table of another shape.
_HAS_EARLIER = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'reports')"
_TAKE_OVER = """
BEGIN IMMEDIATE;
INSERT OR IGNORE INTO unsent
    SELECT sequence, id, 'port', port_id, failed, body FROM reports;
INSERT INTO unreadable (sequence, id, resource_type, resource_id, body, reason)
    SELECT sequence, id, 'port', port_id, body, reason FROM set_aside ORDER BY number;
DROP TABLE reports;
DROP TABLE set_aside;
COMMIT;
"""

_DROP_SUPERSEDED = """
DELETE FROM unsent WHERE sequence IN (
    SELECT old.sequence FROM unsent AS old
    WHERE old.failed = 0
      AND EXISTS (SELECT 1 FROM unsent AS new
                  WHERE new.resource_type = old.resource_type
                    AND new.resource_id = old.resource_id AND new.sequence > old.sequence)
    ORDER BY old.sequence LIMIT ?)
"""

_DROP_REPLACED = """
DELETE FROM unreadable WHERE EXISTS (
    SELECT 1 FROM unsent WHERE unsent.id = ? AND unsent.resource_type = unreadable.resource_type
                           AND unsent.resource_id = unreadable.resource_id
                           AND unsent.sequence > unreadable.sequence)
"""

# Where this release keeps reports that the server cannot read, and where earlier ones did.
_KEPT_UNREADABLE = ("unreadable", "set_aside")

# With less free space than this, in bytes, a disk counts as full.
_LEAST_ROOM = 64 * 1024
_MOST_SET_ASIDE = 100
_MOST_BOOTS = 17
# 2020, in microseconds: an earlier clock was never set.
_SET_CLOCK = 1_577_836_800_000_000


def reasons_unreadable(path: pathlib.Path) -> list[str]:
    """Why reports in the outbox ``path`` were set aside, one reason for each. Changes nothing, and
    may be used while an agent runs. Raises sqlite3.Error if the file is damaged or unreadable."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        return [
            reason
            for table in _KEPT_UNREADABLE
            if table in tables
            for (reason,) in db.execute(f"SELECT reason FROM {table} ORDER BY number")  # noqa: S608
        ]


class Outbox:
    """At most ``max_reports`` reports; beyond that, superseded successes are dropped, oldest first.

    A failure and the last report of a port or group are never dropped, so the
    limit is ``max_reports`` or the number of ports and groups plus
    unacknowledged failures, whichever is larger. Safe from any thread. ``path``
    may be ``":memory:"``, or a URI of SQLite that names a database in memory, for an agent without
    a disk. ``clock`` gives microseconds since the epoch.

    ``identity`` is that of this process. While reports cannot be stored the
    trouble is OUTBOX; for clocks more than a day apart it is CLOCK.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        max_reports: int,
        troubles: Troubles | None = None,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._max_reports = max_reports
        self._now = clock
        self._troubles = troubles or Troubles()
        # Each is called with what was stored, after that, and returns at once.
        self.stored: tuple[Callable[[Sequence[FlowReport]], None], ...] = ()
        self._changed = threading.Condition()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, uri=True)
        # Invalid UTF-8 in one row must not make the others unreadable.
        self._db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        if self._one(_HAS_EARLIER):
            self._db.executescript(_TAKE_OVER)
        self.identity = self._begin()
        # The host's clock is more than a day ahead of the server's: it is not used for sequences.
        self._clock_is_fast = False
        self._unwritten = 0
        self._woken = False
        in_memory = str(path).startswith((":memory:", "file:"))
        self._disk = None if in_memory else pathlib.Path(path).parent
        self._disk_is_full = False
        self._set_aside_before: int = self._one(
            "SELECT coalesce((SELECT max(number) FROM unreadable), 0)"
        )
        self._sequence: int = self._one(
            "SELECT max(last.sequence, coalesce((SELECT max(sequence) FROM unsent), 0)) FROM last"
        )
        now = self._now()
        if now >= _SET_CLOCK and self._sequence > now + SEQUENCE_LEAD:
            LOG.warning(
                "The outbox' last sequence %d is ahead of the clock: numbering again",
                self._sequence,
            )
            self._renumber(now)
        # The last put, by id: reading it from the file would cost as much as writing it.
        self._fresh: dict[str, FlowReport] = {}

    def raise_sequence(self, held: Held) -> None:
        """Continue above ``held.sequence``, the highest that the server has for this host.

        If it is above our last one (the file was lost, or the clock was set back),
        stored reports are numbered again: the server would ignore them as old. It
        recognises a report that it already has by the id.

        A sequence more than a day ahead of both clocks is invalid: the server's is
        ignored, and our own is replaced by the server's.
        """
        now = self._now()
        server = held.clock or now
        with self._changed:
            self._clock_is_fast = now > server + SEQUENCE_LEAD
            limit = (server if self._clock_is_fast else max(now, server)) + SEQUENCE_LEAD
            if trouble := _clock_trouble(now, server, held.sequence, limit):
                self._troubles.report(Trouble.CLOCK, trouble)
            else:
                self._troubles.clear(Trouble.CLOCK)
            known = held.sequence if held.sequence <= limit else 0
            if known > self._sequence or self._sequence > limit:
                self._renumber(known)

    def put(self, reports: Sequence[FlowReport]) -> None:
        """Number ``reports`` and store them all.

        Raises :class:`sqlite3.Error`; then none is stored.
        """
        if not reports:
            return
        with self._changed:
            numbered = self._numbered(reports)
            rows = [
                (
                    item.sequence,
                    item.id,
                    item.resource_type,
                    item.resource_id,
                    item.failed is not None,
                    json.dumps(codec.to_wire(item)),
                )
                for item in fair(numbered)
            ]
            try:
                with self._transaction():
                    self._db.executemany("INSERT INTO unsent VALUES (?, ?, ?, ?, ?, ?)", rows)
                    self._save_sequence()
                    self._bound()
            except sqlite3.Error as exc:
                self._unwritten = sum(len(row[-1]) for row in rows)
                self._troubles.report(Trouble.OUTBOX, _why_not_stored(exc))
                raise
            self._stored()
            self._fresh = {item.id: item for item in numbered}
            self._changed.notify_all()
        for take in self.stored:
            take(numbered)

    def writable(self) -> bool:
        """Whether reports can be stored; after a failed :meth:`put` this tries to write as much
        as it had to write."""
        with self._changed:
            if not self._unwritten:
                return True
            try:
                with self._transaction():
                    self._db.execute("INSERT INTO probe VALUES (zeroblob(?))", (self._unwritten,))
                with self._transaction():
                    self._db.execute("DELETE FROM probe")
            except sqlite3.Error as exc:
                self._troubles.report(Trouble.OUTBOX, _why_not_stored(exc))
                return False
            self._stored()
            return True

    def look_at_disk(self) -> None:
        """Report a full disk before a report has to be stored. Raises OSError."""
        if self._disk is None:
            return
        disk = os.statvfs(self._disk)
        blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
        self._disk_is_full = blocks * disk.f_frsize < _LEAST_ROOM
        if self._disk_is_full:
            self._troubles.report(
                Trouble.OUTBOX,
                f"disk full: {self._disk} has less than {_LEAST_ROOM // 1024} KiB left; reports "
                "cannot be stored",
            )
        elif not self._unwritten:
            self._troubles.clear(Trouble.OUTBOX)

    def oldest(self, limit: int, max_bytes: int) -> list[FlowReport]:
        """The oldest ``limit`` reports, or as many as fit ``max_bytes`` (but at least one).

        Unreadable reports are moved to :meth:`set_aside`.
        """
        taken: list[FlowReport] = []
        size = 0
        with self._changed:
            rows = self._db.execute(
                "SELECT sequence, id, body FROM unsent ORDER BY sequence LIMIT ?", (limit,)
            ).fetchall()
            for sequence, report_id, body in fair(rows):
                # Items of a JSON list are joined by two characters.
                size += len(body) + 2
                if taken and size > max_bytes:
                    break
                try:
                    taken.append(self._fresh.get(report_id) or _read(sequence, report_id, body))
                # Another release wrote the row, or the file is damaged.
                except (ValueError, TypeError, RecursionError) as exc:
                    self._set_aside(sequence, described(exc))
        return taken

    def set_aside(self) -> Mapping[str, str]:
        """Ports with an unreadable report, and the reason; until the server acknowledges a later
        report of the port.

        Rows of earlier processes do not count: after a start every port is reported again. Nor do
        groups: the server asks for the reports of their ports.
        """
        select = (
            "SELECT resource_id, reason FROM unreadable "
            "WHERE number > ? AND resource_type = ? ORDER BY number"
        )
        with self._changed:
            return dict(self._db.execute(select, (self._set_aside_before, ResourceType.PORT)))

    def forget(self, ids: Collection[str]) -> None:
        """Delete reports that the server has accepted or rejected."""
        rows = [(report_id,) for report_id in ids]
        with self._changed, self._transaction():
            if self._one("SELECT EXISTS (SELECT 1 FROM unreadable)"):
                self._db.executemany(_DROP_REPLACED, rows)
            self._db.executemany("DELETE FROM unsent WHERE id = ?", rows)
            for report_id in ids:
                self._fresh.pop(report_id, None)

    def wait(self, timeout: float | None) -> bool:
        """Wait for a report to send; False if there is none after ``timeout`` seconds, or when
        another thread calls :meth:`wake`."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._any(), timeout)
            self._woken = False
            return self._any()

    def wake(self) -> None:
        """Have :meth:`wait` return, now or when it is called next."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return int(self._one("SELECT count(*) FROM unsent"))

    def backlog(self) -> tuple[int, float | None]:
        """How many reports wait, and when the oldest was stored in seconds of Unix time.

        None without one; by its sequence, so not exact after the clock was set.
        """
        with self._changed:
            row = self._db.execute("SELECT count(*), min(sequence) FROM unsent").fetchone()
        return row[0], None if row[1] is None else row[1] / 1_000_000

    def close(self) -> None:
        with self._changed:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that the block writes, or nothing."""
        self._db.execute("BEGIN")
        try:
            yield
            # From time to time this writes the file itself, and waits for the disk.
            apart(self._db.commit)
        except BaseException:
            self._db.rollback()
            raise

    def _begin(self) -> Identity:
        """Store a new boot id beside the earlier ones."""
        rows = self._db.execute("SELECT boot_id FROM boots ORDER BY number DESC").fetchall()
        identity = Identity.following(tuple(boot_id for (boot_id,) in rows if is_port_id(boot_id)))
        with self._transaction():
            self._db.execute("INSERT INTO boots (boot_id) VALUES (?)", (identity.boot_id,))
            self._db.execute(
                "DELETE FROM boots WHERE number <= (SELECT max(number) FROM boots) - ?",
                (_MOST_BOOTS,),
            )
        return identity

    def _numbered(self, reports: Sequence[FlowReport]) -> list[FlowReport]:
        """The reports with sequences: microseconds since the epoch, or the last one plus 1."""
        numbered = []
        now = 0 if self._clock_is_fast else self._now()
        for item in fair(reports):
            self._sequence = max(now, self._sequence + 1)
            numbered.append(dataclasses.replace(item, sequence=self._sequence))
        return numbered

    def _renumber(self, held: int) -> None:
        """Number all stored reports again, from ``held`` + 1 on."""
        self._fresh = {}
        with self._transaction():
            rows = self._db.execute("SELECT sequence FROM unsent ORDER BY sequence").fetchall()
            # Negative first: a new number may be the old one of another report.
            self._db.execute("UPDATE unsent SET sequence = -sequence")
            self._db.executemany(
                "UPDATE unsent SET sequence = ? WHERE sequence = ?",
                [(held + at, -old) for at, (old,) in enumerate(rows, 1)],
            )
            self._db.execute("UPDATE unreadable SET sequence = 0")
            self._sequence = held + len(rows)
            self._save_sequence()

    def _set_aside(self, sequence: int, reason: str) -> None:
        with self._transaction():
            self._db.execute(
                "INSERT INTO unreadable (sequence, id, resource_type, resource_id, body, reason) "
                "SELECT sequence, id, resource_type, resource_id, body, ? FROM unsent "
                "WHERE sequence = ?",
                (reason, sequence),
            )
            self._db.execute("DELETE FROM unsent WHERE sequence = ?", (sequence,))
            self._db.execute(
                "DELETE FROM unreadable WHERE number <= (SELECT max(number) FROM unreadable) - ?",
                (_MOST_SET_ASIDE,),
            )
        LOG.error("Set aside unreadable report %d of the outbox: %s", sequence, reason)

    def _stored(self) -> None:
        self._unwritten = 0
        if not self._disk_is_full:
            self._troubles.clear(Trouble.OUTBOX)

    def _any(self) -> bool:
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM unsent)"))

    def _save_sequence(self) -> None:
        self._db.execute("UPDATE last SET sequence = ?", (self._sequence,))

    def _bound(self) -> None:
        excess = len(self) - self._max_reports
        if excess > 0:
            dropped = self._db.execute(_DROP_SUPERSEDED, (excess,)).rowcount
            LOG.warning(
                "The outbox is full: dropped %d superseded successes, %d reports above the limit",
                dropped,
                excess - dropped,
            )

    def _one(self, statement: str) -> Any:
        return self._db.execute(statement).fetchone()[0]


def _clock_trouble(now: int, server: int, held: int, limit: int) -> str | None:
    apart = abs(now - server)
    if apart > SEQUENCE_LEAD:
        direction = "ahead of" if now > server else "behind"
        return f"this host's clock is {apart / SEQUENCE_LEAD:.1f} days {direction} the server's"
    if held > limit:
        return (
            f"the server has sequence {held} for this host, more than a day ahead of the clock; "
            "it is ignored"
        )
    return None


def _read(sequence: int, report_id: str, body: str) -> FlowReport:
    """Raises ValueError, TypeError or RecursionError. The row has the current sequence."""
    item = codec.report_from_wire({**json.loads(body), "sequence": sequence})
    if item.id != report_id:
        raise ValueError(f"the row of report {report_id} holds report {item.id}")
    return item


def _why_not_stored(exc: sqlite3.Error) -> str:
    if exc.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return f"disk full: reports cannot be stored ({exc})"
    return one_line(f"reports cannot be stored: {described(exc)}")
