"""What agents have stored to be reported, and what the server has of it."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from pathlib import Path

import sqlalchemy as sa

_SECONDS = 120
# Every report that the agent has stored, in the same transaction. What it deletes once the server
# has it stays here.
_WITNESS = """
CREATE TABLE IF NOT EXISTS witness (id TEXT PRIMARY KEY, failed INTEGER);
CREATE TRIGGER IF NOT EXISTS see AFTER INSERT ON unsent BEGIN
    INSERT OR IGNORE INTO witness VALUES (NEW.id, NEW.failed);
END;
INSERT OR IGNORE INTO witness SELECT id, failed FROM unsent;
"""
# But for those that the server writes in place of a missing report.
_ATTEMPTS = sa.text("""
    SELECT a.id, count(t.ordinal) FROM agent_flows_attempts a
    LEFT JOIN agent_flows_tasks t ON t.ordinal = a.ordinal
    WHERE a.host IN :hosts AND NOT EXISTS (
        SELECT 1 FROM agent_flows_tasks s WHERE s.ordinal = a.ordinal AND s.name = 'await-report')
    GROUP BY a.id
""").bindparams(sa.bindparam("hosts", expanding=True))
_NUMBER = sa.text("SELECT count(*) FROM agent_flows_attempts WHERE resource_id = :port")
_NEWEST = sa.text("SELECT max(ordinal) FROM agent_flows_attempts")
# As the server writes the desired state of a port, each time another one, in a transaction each.
_UPDATE = sa.text("""
    CREATE OR REPLACE PROCEDURE pg_temp.update_port(port text, number int, seconds float)
    LANGUAGE plpgsql AS $$
    DECLARE began timestamptz = clock_timestamp();
    BEGIN
        FOR n IN 1..number LOOP
            UPDATE ports SET device_owner = concat('compute:', n), admin_state_up = n % 2 = 0,
                revision_number = revision_number + 1, updated_at = clock_timestamp(),
                sync_state = 'SYNCING', syncing_since = clock_timestamp()
            WHERE id = port;
            COMMIT;
            IF n % 100 = 0 THEN
                PERFORM pg_sleep_until(began + make_interval(secs => seconds * n / number));
            END IF;
        END LOOP;
    END $$
""")
_CALL = sa.text("CALL pg_temp.update_port(:port, :number, :seconds)")


class Records:
    """The outbox of each host, and the server's database at ``url``, read behind their backs."""

    def __init__(self, outboxes: Mapping[str, Path], url: str) -> None:
        self._outboxes = outboxes
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)

    def watch(self) -> None:
        """From now on every report that is stored is noted."""
        for outbox in self._opened():
            outbox.executescript(_WITNESS)

    def starts(self) -> int:
        """How often an agent has opened its outbox."""
        numbers = [
            box.execute("SELECT max(number) FROM boots").fetchone() for box in self._opened()
        ]
        return sum(int(number) for (number,) in numbers)

    def made(self) -> Mapping[str, bool]:
        """The ids of all reports that agents have stored; whether each is of a failure."""
        return {
            id_: bool(failed)
            for outbox in self._opened()
            for id_, failed in outbox.execute("SELECT id, failed FROM witness")
        }

    def unsent(self) -> Set[str]:
        """The ids of those that the server has not answered yet."""
        return {
            id_ for outbox in self._opened() for (id_,) in outbox.execute("SELECT id FROM unsent")
        }

    def failures(self) -> int:
        """How many of them are of failures."""
        return sum(self.made().values())

    def attempts(self, port_id: str) -> int:
        """How many attempts at the port the server has."""
        with self._engine.connect() as connection:
            return int(connection.scalar(_NUMBER, {"port": port_id}))

    def update(self, port_id: str, number: int, seconds: float) -> float:
        """Commit so many desired states of the port, spread over ``seconds``; how many it took."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(_UPDATE)
            began = time.monotonic()
            connection.execute(_CALL, {"port": port_id, "number": number, "seconds": seconds})
            return time.monotonic() - began

    @contextlib.contextmanager
    def next_commit(self) -> Iterator[Callable[[], bool]]:
        """Whether the server has committed a report since then."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            before = connection.scalar(_NEWEST)
            yield lambda: bool(connection.scalar(_NEWEST) != before)

    def uncounted(self, ids: Collection[str]) -> Set[str]:
        """Those of these reports that are not in the database."""
        return set(ids) - self._kept().keys()

    def damage(self) -> list[str]:
        """Where the outbox or the database is not consistent in itself, or they with each other."""
        verdicts = {
            str(verdict)
            for outbox in self._opened()
            for (verdict,) in outbox.execute("PRAGMA quick_check(1)")
        }
        found = [f"an outbox is damaged: {verdict}" for verdict in verdicts - {"ok"}]
        kept = self._kept()
        found += [f"attempt {id_} has no task" for id_, tasks in kept.items() if not tasks]
        made = self.made()
        return found + [f"attempt {id_} was never reported" for id_ in kept if id_ not in made]

    def _kept(self) -> Mapping[str, int]:
        with self._engine.connect() as connection:
            rows = connection.execute(_ATTEMPTS, {"hosts": list(self._outboxes)})
            return {str(id_): tasks for id_, tasks in rows}

    def _opened(self) -> Iterator[sqlite3.Connection]:
        """One after the other."""
        for path in self._outboxes.values():
            with contextlib.closing(sqlite3.connect(path, timeout=_SECONDS)) as outbox:
                yield outbox
