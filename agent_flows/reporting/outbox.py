"""Reports kept in a file until the server has acknowledged them.

SQLite in WAL mode: what :meth:`Outbox.put` returned from survives ``kill -9``
(a power failure may take the last reports, and takes the flows they are about
with them). The file also carries the host's last sequence, so that it rises
across restarts, and the boot ids of the processes that used it.
"""

import dataclasses
import json
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from oslo_log import log

from agent_flows.report import SEQUENCE_LEAD, FlowReport, Trouble
from agent_flows.rpc import codec
from agent_flows.rpc.answers import Held
from agent_flows.rpc.identity import Identity
from agent_flows.supervision import Troubles, described, one_line
from agent_flows.validation import is_port_id

LOG = log.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    port_id TEXT NOT NULL,
    failed INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS reports_by_port ON reports (port_id, sequence);
CREATE TABLE IF NOT EXISTS last (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER);
INSERT OR IGNORE INTO last VALUES (1, 0);
CREATE TABLE IF NOT EXISTS set_aside (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sequence INTEGER NOT NULL,
    id TEXT NOT NULL,
    port_id TEXT NOT NULL,
    body TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS boots (number INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS probe (body BLOB);
"""

_DROP_SUPERSEDED = """
DELETE FROM reports WHERE sequence IN (
    SELECT old.sequence FROM reports AS old
    WHERE old.failed = 0
      AND EXISTS (SELECT 1 FROM reports AS new
                  WHERE new.port_id = old.port_id AND new.sequence > old.sequence)
    ORDER BY old.sequence LIMIT ?)
"""

_HEARD_AGAIN = """
DELETE FROM set_aside WHERE EXISTS (
    SELECT 1 FROM reports WHERE reports.id = ? AND reports.port_id = set_aside.port_id
                            AND reports.sequence > set_aside.sequence)
"""

# A disk with less room than this, in bytes, takes no batch of reports any more.
_LEAST_ROOM = 64 * 1024
_MOST_SET_ASIDE = 100
_MOST_BOOTS = 17
# 2020, in microseconds: a clock before it was never set.
_SET_CLOCK = 1_577_836_800_000_000


class Outbox:
    """At most ``max_reports`` reports; beyond that, superseded successes go, oldest first.

    A failure and a port's last report never go before they are acknowledged, so
    the true bound is ``max_reports`` or the ports plus their unacknowledged
    failures, whichever is larger. Safe to use from any thread. ``path`` may be
    ``":memory:"`` for an agent without a disk.

    ``identity`` is that of the process that opened the file now. What keeps
    reports from being kept is the trouble OUTBOX; clocks that are more than a
    day apart are the trouble CLOCK.
    """

    def __init__(
        self, path: str | pathlib.Path, max_reports: int, troubles: Troubles | None = None
    ) -> None:
        self._max_reports = max_reports
        self._troubles = troubles or Troubles()
        self._changed = threading.Condition()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Text that is no UTF-8 must not keep the other rows from being read.
        self._db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self.identity = self._begin()
        # The host's clock is more than a day ahead of the server's: it numbers nothing.
        self._clock_is_fast = False
        self._unwritten = 0
        self._disk = None if str(path) == ":memory:" else pathlib.Path(path).parent
        self._disk_is_full = False
        self._set_aside_before: int = self._one(
            "SELECT coalesce((SELECT max(number) FROM set_aside), 0)"
        )
        self._sequence: int = self._one(
            "SELECT max(last.sequence, coalesce((SELECT max(sequence) FROM reports), 0)) FROM last"
        )
        now = _now()
        if now >= _SET_CLOCK and self._sequence > now + SEQUENCE_LEAD:
            LOG.warning("The outbox' last sequence, %d, is not of our time", self._sequence)
            self._renumber(now)
        # Of the last put, by id: reading back what was just written would cost as much as writing.
        self._fresh: dict[str, FlowReport] = {}

    def raise_sequence(self, held: Held) -> None:
        """Go on above ``held.sequence``, the highest sequence the server holds for this host.

        If that is beyond our own last (our file was lost, or the clock was set
        back) reports that wait are numbered again, or the server would take them
        for old. A report it already has is known to it by its id.

        A sequence more than a day ahead of both clocks is no one's true
        number: the server's is ignored, and our own gives way to the server's.
        """
        now = _now()
        server = held.clock or now
        with self._changed:
            self._clock_is_fast = now > server + SEQUENCE_LEAD
            limit = (server if self._clock_is_fast else max(now, server)) + SEQUENCE_LEAD
            self._judge_clocks(now, server, held.sequence, limit)
            known = held.sequence if held.sequence <= limit else 0
            if known > self._sequence or self._sequence > limit:
                self._renumber(known)

    def put(self, reports: Sequence[FlowReport]) -> None:
        """Number ``reports`` and keep them; on return they are in the file.

        Raises :class:`sqlite3.Error`, and then none of them is.
        """
        if not reports:
            return
        with self._changed:
            numbered = self._numbered(reports)
            rows = [
                (
                    item.sequence,
                    item.id,
                    item.resource_id,
                    item.failed is not None,
                    json.dumps(codec.to_wire(item)),
                )
                for item in numbered
            ]
            try:
                with self._db:
                    self._db.execute("BEGIN")
                    self._db.executemany("INSERT INTO reports VALUES (?, ?, ?, ?, ?)", rows)
                    self._save_sequence()
                    self._bound()
            except sqlite3.Error as exc:
                self._unwritten = sum(len(row[-1]) for row in rows)
                self._troubles.report(Trouble.OUTBOX, _why_not_kept(exc))
                raise
            self._kept()
            self._fresh = {item.id: item for item in numbered}
            self._changed.notify_all()

    def writable(self) -> bool:
        """Whether reports can be kept, as far as is known: after a failed :meth:`put`, whether
        as much as it had to write can be written now."""
        with self._changed:
            if not self._unwritten:
                return True
            try:
                with self._db:
                    self._db.execute("BEGIN")
                    self._db.execute("INSERT INTO probe VALUES (zeroblob(?))", (self._unwritten,))
                with self._db:
                    self._db.execute("DELETE FROM probe")
            except sqlite3.Error as exc:
                self._troubles.report(Trouble.OUTBOX, _why_not_kept(exc))
                return False
            self._kept()
            return True

    def look_at_disk(self) -> None:
        """Report a full disk before a report is to be kept on it. Raises OSError."""
        if self._disk is None:
            return
        disk = os.statvfs(self._disk)
        blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
        self._disk_is_full = blocks * disk.f_frsize < _LEAST_ROOM
        if self._disk_is_full:
            self._troubles.report(
                Trouble.OUTBOX,
                f"disk full: {self._disk} has less than {_LEAST_ROOM // 1024} KiB left; reports "
                "cannot be kept",
            )
        elif not self._unwritten:
            self._troubles.clear(Trouble.OUTBOX)

    def oldest(self, limit: int, max_bytes: int) -> list[FlowReport]:
        """The oldest ``limit`` reports, or as many as fit ``max_bytes`` (but always one).

        A report that cannot be read is :attr:`set_aside`; there may be none left.
        """
        taken: list[FlowReport] = []
        size = 0
        with self._changed:
            rows = self._db.execute(
                "SELECT sequence, id, body FROM reports ORDER BY sequence LIMIT ?", (limit,)
            ).fetchall()
            for sequence, report_id, body in rows:
                # Items of a JSON list are joined by two characters.
                size += len(body) + 2
                if taken and size > max_bytes:
                    break
                try:
                    taken.append(self._fresh.get(report_id) or _read(sequence, report_id, body))
                # Whatever the row holds: an older release wrote it, a newer one, or the disk.
                except (ValueError, TypeError, RecursionError) as exc:
                    self._set_aside(sequence, described(exc))
        return taken

    def set_aside(self) -> Mapping[str, str]:
        """Ports of which this process could not read a report, and why; until a later report of
        the port was acknowledged. The rows stay in the table ``set_aside``.

        What an earlier process set aside is history: at a start every port is reported again.
        """
        select = "SELECT port_id, reason FROM set_aside WHERE number > ? ORDER BY number"
        with self._changed:
            return dict(self._db.execute(select, (self._set_aside_before,)))

    def forget(self, ids: Collection[str]) -> None:
        """Drop reports the server has acknowledged or refused for good."""
        each_id = [(i,) for i in ids]
        with self._changed, self._db:
            self._db.execute("BEGIN")
            if self._one("SELECT EXISTS (SELECT 1 FROM set_aside)"):
                self._db.executemany(_HEARD_AGAIN, each_id)
            self._db.executemany("DELETE FROM reports WHERE id = ?", each_id)
            for report_id in ids:
                self._fresh.pop(report_id, None)

    def wait(self, timeout: float | None) -> bool:
        """Wait until there is something to send; False after ``timeout`` seconds without."""
        with self._changed:
            return self._changed.wait_for(self._any, timeout)

    def wake(self) -> None:
        """Let :meth:`wait` look again."""
        with self._changed:
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    def close(self) -> None:
        with self._changed:
            self._db.close()

    def _begin(self) -> Identity:
        """A new boot id, written down beside those before it."""
        rows = self._db.execute("SELECT boot_id FROM boots ORDER BY number DESC").fetchall()
        identity = Identity.following(tuple(each for (each,) in rows if is_port_id(each)))
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO boots (boot_id) VALUES (?)", (identity.boot_id,))
            self._db.execute(
                "DELETE FROM boots WHERE number <= (SELECT max(number) FROM boots) - ?",
                (_MOST_BOOTS,),
            )
        return identity

    def _numbered(self, reports: Sequence[FlowReport]) -> list[FlowReport]:
        """The reports with sequences: microseconds since the epoch, or one more than the last."""
        numbered = []
        now = 0 if self._clock_is_fast else _now()
        for item in reports:
            self._sequence = max(now, self._sequence + 1)
            numbered.append(dataclasses.replace(item, sequence=self._sequence))
        return numbered

    def _renumber(self, held: int) -> None:
        """Number everything that waits again, from ``held`` + 1 on."""
        self._fresh = {}
        with self._db:
            self._db.execute("BEGIN")
            rows = self._db.execute("SELECT sequence FROM reports ORDER BY sequence").fetchall()
            # Out of the way first: the new numbers may be those of others.
            self._db.execute("UPDATE reports SET sequence = -sequence")
            self._db.executemany(
                "UPDATE reports SET sequence = ? WHERE sequence = ?",
                [(held + at, -old) for at, (old,) in enumerate(rows, 1)],
            )
            self._db.execute("UPDATE set_aside SET sequence = 0")
            self._sequence = held + len(rows)
            self._save_sequence()

    def _judge_clocks(self, now: int, server: int, held: int, limit: int) -> None:
        apart = abs(now - server)
        if apart > SEQUENCE_LEAD:
            direction = "ahead of" if now > server else "behind"
            self._troubles.report(
                Trouble.CLOCK,
                f"this host's clock is {apart / SEQUENCE_LEAD:.1f} days {direction} the server's",
            )
        elif held > limit:
            self._troubles.report(
                Trouble.CLOCK,
                f"the server holds sequence {held} for this host, more than a day ahead of the "
                "clock; it is ignored",
            )
        else:
            self._troubles.clear(Trouble.CLOCK)

    def _set_aside(self, sequence: int, reason: str) -> None:
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute(
                "INSERT INTO set_aside (sequence, id, port_id, body, reason) "
                "SELECT sequence, id, port_id, body, ? FROM reports WHERE sequence = ?",
                (reason, sequence),
            )
            self._db.execute("DELETE FROM reports WHERE sequence = ?", (sequence,))
            self._db.execute(
                "DELETE FROM set_aside WHERE number <= (SELECT max(number) FROM set_aside) - ?",
                (_MOST_SET_ASIDE,),
            )
        LOG.error("Report %d in the outbox cannot be read and is set aside: %s", sequence, reason)

    def _kept(self) -> None:
        self._unwritten = 0
        if not self._disk_is_full:
            self._troubles.clear(Trouble.OUTBOX)

    def _any(self) -> bool:
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM reports)"))

    def _count(self) -> int:
        return int(self._one("SELECT count(*) FROM reports"))

    def _save_sequence(self) -> None:
        self._db.execute("UPDATE last SET sequence = ?", (self._sequence,))

    def _bound(self) -> None:
        excess = self._count() - self._max_reports
        if excess > 0:
            dropped = self._db.execute(_DROP_SUPERSEDED, (excess,)).rowcount
            LOG.warning(
                "The outbox is full: %d superseded successes dropped, %d reports over its bound",
                dropped,
                excess - dropped,
            )

    def _one(self, statement: str) -> Any:
        return self._db.execute(statement).fetchone()[0]


def _now() -> int:
    return time.time_ns() // 1000


def _read(sequence: int, report_id: str, body: str) -> FlowReport:
    """Raises ValueError, TypeError or RecursionError; what renumbering changed is in the row."""
    item = codec.report_from_wire({**json.loads(body), "sequence": sequence})
    if item.id != report_id:
        raise ValueError(f"the row of report {report_id} holds report {item.id}")
    return item


def _why_not_kept(exc: sqlite3.Error) -> str:
    if exc.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return f"disk full: reports cannot be kept ({exc})"
    return one_line(f"reports cannot be kept: {described(exc)}")
