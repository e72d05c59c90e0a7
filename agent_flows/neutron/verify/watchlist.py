"""Which ports are looked at, and how long the other firewall driver is given for each.

The phases are the engine's: a port is AWAITED until a look finds it as it must
be, or until its driver's time is over; then its flow runs. PROVEN ports are
looked at again from time to time; one that is not right is AWAITED, and returns
to PROVEN without a flow if its driver mends it in time.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from agent_flows.engine.port_life import Event, Phase
from agent_flows.engine.port_table import PortTable
from agent_flows.neutron.verify.plugged_port import PluggedPort

_PORTS_IN_PATIENCE = 100
"""Neutron's driver takes about 130 ms for a port, and writes the flows of all at the end."""


@dataclass(frozen=True)
class Watched:
    """A port as the agent passed it; ``leaving``: the agent reported it gone since. ``since``: when
    its driver was last given time, in seconds of the watchlist's clock."""

    port: PluggedPort
    leaving: bool = False
    since: float = 0.0


class Watchlist:
    """Safe from any thread. ``news`` is set when there is something to look at.

    ``patience``: seconds a driver may take for up to 100 ports, and for more
    ports as many times more. PROVEN ports are looked at again as often.
    """

    def __init__(
        self, table: PortTable, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.news = threading.Event()
        self._table, self._patience, self._clock = table, patience, clock
        self._lock = threading.Lock()
        self._watched: dict[str, Watched] = {}
        self._next_audit = 0.0
        # When the look that runs began, if it is one at every PROVEN port; and the last that ended.
        self._auditing: float | None = None
        self._audited: float | None = None

    def watched(self, port_ids: Iterable[str]) -> dict[str, Watched]:
        """The ports of ``port_ids`` that the agent passed."""
        with self._lock:
            return {id_: self._watched[id_] for id_ in port_ids if id_ in self._watched}

    # What the agent reports.

    def here(self, port: PluggedPort, *, settled: bool) -> None:
        """The agent takes the port up; ``settled``: the server needs no report of it."""
        with self._lock:
            port_id, watched = port.port_id, self._watched.get(port.port_id)
            phase = self._table.life(port_id).phase
            if watched is None or watched.leaving or watched.port != port:
                self._await([Watched(port)], forced=True)
            elif phase is Phase.DELAYED or (phase is Phase.PROVEN and not settled):
                # The driver tries a port that failed again now, too.
                self._await([watched], forced=not settled)
            elif phase is Phase.AWAITED and not settled:
                self._table.submit([port_id], forced=True, asked=True, event=Event.AWAIT)
            elif phase is Phase.READY and not settled:
                self._table.submit([port_id], forced=True)

    def gone(self, port_id: str) -> None:
        with self._lock:
            watched = self._watched.get(port_id)
            if watched is not None and not watched.leaving:
                self._await([replace(watched, leaving=True)])

    def rules_changed(self, group_id: str) -> None:
        """The rules of a security group changed."""
        with self._lock:
            self._await(entry for entry in self._staying() if group_id in entry.port.groups)

    def again(self, port_ids: Collection[str] | None) -> frozenset[str]:
        """Look at ports (None: all) and report them, changed or not. Returns those that the agent
        never passed. The driver gets no more time for a port it has not finished: it would never
        be reported if this was called again and again."""
        with self._lock:
            chosen = self._watched.keys() if port_ids is None else frozenset(port_ids)
            ports = {w.port.port_id: w for w in self._staying() if w.port.port_id in chosen}
            unfinished = ports.keys() & self._in({Phase.AWAITED}).keys()
            self._table.submit(unfinished, forced=True, asked=True, event=Event.AWAIT)
            self._await((ports[id_] for id_ in ports.keys() - unfinished), forced=True)
            return frozenset(chosen - self._watched.keys())

    def audit(self) -> None:
        """Look at every PROVEN port now."""
        self._next_audit = 0.0
        self.news.set()

    # What looks find.

    def pause(self) -> float:
        """Seconds until there is something to look at."""
        with self._lock:
            self._forget_unwired()
            return 0.0 if self._in({Phase.AWAITED}) else max(0.0, self._next_audit - self._clock())

    def to_look_at(self) -> dict[str, Watched]:
        """The AWAITED ports, and the PROVEN ones if it is time for those."""
        with self._lock:
            phases, now = {Phase.AWAITED}, self._clock()
            self._auditing = now if now >= self._next_audit else None
            if self._auditing is not None:
                phases.add(Phase.PROVEN)
                self._next_audit = now + self._patience
            return self._in(phases)

    def could_look(self) -> None:
        """What was to be looked at was there to be seen."""
        with self._lock:
            self._audited = self._audited if self._auditing is None else self._auditing

    def audit_age(self) -> float | None:
        """Seconds since the last look at every PROVEN port, None if there was none."""
        with self._lock:
            return None if self._audited is None else self._clock() - self._audited

    def looked(self, seen: Mapping[str, Watched], good: Collection[str]) -> None:
        """Nothing is wrong with the ``good`` ones of the ports ``seen``. Run the flows that are
        due now."""
        with self._lock:
            # Of what changed during the look, nothing is known.
            same = {id_: entry for id_, entry in seen.items() if self._watched.get(id_) == entry}
            proven = same.keys() & self._in({Phase.PROVEN})
            right = same.keys() & self._in({Phase.AWAITED}) & set(good)
            due = {port_id for port_id in right if self._table.life(port_id).request.asked}
            self._table.submit(due)
            self._table.submit(right - due, event=Event.LOOK_RIGHT)
            self._await((same[port_id] for port_id in proven - set(good)), asked=False)
            awaited = self._in({Phase.AWAITED})
            patience = self._patience * max(1.0, len(awaited) / _PORTS_IN_PATIENCE)
            latest = self._clock() - patience
            self._table.submit(id_ for id_, entry in awaited.items() if entry.since <= latest)

    # The caller holds the lock.

    def _await(self, ports: Iterable[Watched], *, forced: bool = False, asked: bool = True) -> None:
        """Give the driver time for these ports from now on."""
        awaited = {entry.port.port_id: replace(entry, since=self._clock()) for entry in ports}
        self._watched |= awaited
        self._table.submit(awaited, forced=forced, asked=asked, event=Event.AWAIT)
        self.news.set()

    def _staying(self) -> list[Watched]:
        return [entry for entry in self._watched.values() if not entry.leaving]

    def _in(self, phases: Collection[Phase]) -> dict[str, Watched]:
        lives = self._table.lives()
        return {
            port_id: entry
            for port_id, entry in self._watched.items()
            if port_id in lives and lives[port_id].phase in phases
        }

    def _forget_unwired(self) -> None:
        lives = self._table.lives()
        self._watched = {
            port_id: entry
            for port_id, entry in self._watched.items()
            if port_id in lives or not entry.leaving
        }
