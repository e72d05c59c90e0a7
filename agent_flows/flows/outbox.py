"""Reports kept on disk until the server has acknowledged them.

SQLite in WAL mode: what :meth:`Outbox.put` returned from survives ``kill -9``.
The file also carries the host's last sequence, so that it rises across
restarts.
"""

import json
import pathlib
import sqlite3
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any

from oslo_log import log

from agent_flows import report
from agent_flows.report import FlowReport

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
"""

_DROP_SUPERSEDED = """
DELETE FROM reports WHERE sequence IN (
    SELECT old.sequence FROM reports AS old
    WHERE old.failed = 0
      AND EXISTS (SELECT 1 FROM reports AS new
                  WHERE new.port_id = old.port_id AND new.sequence > old.sequence)
    ORDER BY old.sequence LIMIT ?)
"""


class Outbox:
    """At most ``max_reports`` reports; beyond that, superseded successes go, oldest first.

    A failure and a port's last word never go before they are acknowledged, so
    the true bound is ``max_reports`` or the ports plus their unacknowledged
    failures, whichever is larger. Safe to use from any thread. ``path`` may be
    ``":memory:"`` for an agent without a disk.
    """

    def __init__(self, path: str | pathlib.Path, max_reports: int) -> None:
        self._max_reports = max_reports
        self._changed = threading.Condition()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._sequence: int = self._one("SELECT sequence FROM last")
        # Of the last put, by id: reading back what was just written would cost as much as writing.
        self._fresh: dict[str, FlowReport] = {}

    def next_sequence(self) -> int:
        """Microseconds since the epoch or the last sequence + 1, whichever is larger."""
        with self._changed:
            self._sequence = max(time.time_ns() // 1000, self._sequence + 1)
            return self._sequence

    def raise_sequence(self, held: int) -> None:
        """Go on above ``held``, the highest sequence the server holds for this host.

        If that is beyond our own last (our file was lost, or the clock was set
        back) reports that wait are numbered anew, or the server would take them
        for old news. A report it already has is known to it by its id.
        """
        with self._changed:
            if held <= self._sequence:
                return
            self._sequence = held
            self._fresh.clear()
            with self._db:
                self._db.execute("BEGIN")
                rows = self._db.execute("SELECT sequence, body FROM reports ORDER BY sequence")
                for old, body in rows.fetchall():
                    self._sequence += 1
                    renumbered = {**json.loads(body), "sequence": self._sequence}
                    self._db.execute(
                        "UPDATE reports SET sequence = ?, body = ? WHERE sequence = ?",
                        (self._sequence, json.dumps(renumbered), old),
                    )
                self._save_sequence()

    def put(self, reports: Sequence[FlowReport]) -> None:
        """Keep ``reports``; on return they are on disk. Raises :class:`sqlite3.Error`."""
        rows = [
            (
                item.sequence,
                item.id,
                item.resource_id,
                item.failed is not None,
                json.dumps(report.to_wire(item)),
            )
            for item in reports
        ]
        with self._changed:
            with self._db:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT INTO reports VALUES (?, ?, ?, ?, ?)", rows)
                self._save_sequence()
                self._bound()
            self._fresh = {item.id: item for item in reports}
            self._changed.notify_all()

    def oldest(self, limit: int, max_bytes: int) -> list[FlowReport]:
        """The oldest ``limit`` reports, or as many as fit ``max_bytes`` (but always one)."""
        with self._changed:
            rows = self._db.execute(
                "SELECT id, body FROM reports ORDER BY sequence LIMIT ?", (limit,)
            ).fetchall()
            fresh = dict(self._fresh)
        taken: list[FlowReport] = []
        size = 0
        for report_id, body in rows:
            # Items of a JSON list are joined by two characters.
            size += len(body) + 2
            if taken and size > max_bytes:
                break
            taken.append(fresh.get(report_id) or report.from_wire(json.loads(body)))
        return taken

    def forget(self, ids: Collection[str]) -> None:
        """Drop reports the server has acknowledged or refused for good."""
        with self._changed, self._db:
            self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM reports WHERE id = ?", [(i,) for i in ids])
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
