"""Which ports are to be looked at, and which of them have waited long enough.

::

    here, gone, rules ---> AWAITED --- as it should be, or too late ---> SUBMITTED
                             ^  |                                            |
        no longer so, quietly|  | quietly, and as it should be               | its flow ran
                             |  v                                            v
                           STANDING <------------- succeeded ----------- reported
                                                                             |
                           FAILING (tried again after a pause) <--- failed --'

It decides and remembers; it neither looks nor waits. Times are seconds of one
clock. Not safe from several threads at once.
"""

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.verify.plugged_port import PluggedPort
from agent_flows.report import FlowName

_PORTS_IN_PATIENCE = 100
"""Neutron's driver takes about 130 ms for a port, and writes what it has for all at the end."""


class State(enum.Enum):
    AWAITED = "the driver is given time"
    SUBMITTED = "its flow is due, or runs"
    STANDING = "it was as it should be when it was last seen"
    FAILING = "it was not, and its flow is run again after a pause"


@dataclass
class _Entry:
    port: PluggedPort
    since: float
    state: State = State.AWAITED
    leaving: bool = False
    # Whether something is to be reported even if all is as before.
    owed: bool = True
    # Where it was plugged in when all of its wiring was last proven.
    proven: Interface | None = None


@dataclass(frozen=True)
class Sight:
    """What is to be looked at: ports, and those that are gone."""

    present: Mapping[str, PluggedPort]
    gone: Mapping[str, PluggedPort]


class Watchlist:
    """``patience``: seconds a driver may take for up to 100 ports; for more, as many times more.
    As often are ports looked at again that stand."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._entries: dict[str, _Entry] = {}
        self._audit_at = 0.0

    # What is heard.

    def here(self, port: PluggedPort, now: float, *, settled: bool) -> None:
        """The agent takes the port up; ``settled``: the server needs no report of it."""
        entry = self._entries.get(port.port_id)
        if entry is None or entry.leaving or entry.port != port:
            self._entries[port.port_id] = _Entry(port, now)
            return
        if not settled:
            entry.proven, entry.owed = None, True
        # One that failed is tried by its driver, too, at this moment.
        if entry.state is State.FAILING or (entry.state is State.STANDING and not settled):
            self._await(entry, now)

    def gone(self, port_id: str, now: float) -> None:
        entry = self._entries.get(port_id)
        if entry is not None and not entry.leaving:
            self._entries[port_id] = _Entry(entry.port, now, leaving=True)

    def rules_changed(self, group_id: str, now: float) -> None:
        """Of a security group."""
        for entry in self._entries.values():
            if group_id in entry.port.groups and not entry.leaving:
                self._await(entry, now)

    def again(self, port_ids: Collection[str] | None, now: float) -> None:
        """Look at ports (None: all) and report, whatever is known of them."""
        for port_id in list(self._entries) if port_ids is None else port_ids:
            entry = self._entries.get(port_id)
            if entry is not None and not entry.leaving:
                entry.proven = None
                self._await(entry, now)

    def known(self) -> frozenset[str]:
        """The ports of which something was heard, those that leave included."""
        return frozenset(self._entries)

    def audit(self) -> None:
        """Look soon at everything that stands."""
        self._audit_at = 0.0

    def _await(self, entry: _Entry, now: float) -> None:
        entry.state, entry.since, entry.owed = State.AWAITED, now, True

    # What is seen.

    def sight(self, now: float) -> Sight:
        """What is awaited, and from time to time what stands, too."""
        states = {State.AWAITED}
        if now >= self._audit_at:
            states.add(State.STANDING)
            self._audit_at = now + self._patience
        chosen = {id_: each for id_, each in self._entries.items() if each.state in states}
        return Sight(
            {id_: each.port for id_, each in chosen.items() if not each.leaving},
            {id_: each.port for id_, each in chosen.items() if each.leaving},
        )

    def seen(self, sight: Sight, good: Collection[str], now: float) -> list[str]:
        """Of what was looked at, this is as it should be. Returns whose flow is to be run."""
        looked = {**sight.present, **sight.gone}
        due = []
        for port_id, port in looked.items():
            entry = self._entries.get(port_id)
            if entry is None or entry.port != port or entry.leaving != (port_id in sight.gone):
                continue
            if entry.state is State.STANDING and port_id not in good:
                entry.state, entry.since, entry.owed = State.AWAITED, now, False
            elif entry.state is State.AWAITED and port_id in good and not entry.owed:
                entry.state = State.STANDING
            elif entry.state is State.AWAITED and port_id in good:
                entry.state = State.SUBMITTED
                due.append(port_id)
        return due + self._overdue(now)

    def _overdue(self, now: float) -> list[str]:
        awaited = {id_: e for id_, e in self._entries.items() if e.state is State.AWAITED}
        patience = self._patience * max(1.0, len(awaited) / _PORTS_IN_PATIENCE)
        late = [port_id for port_id, entry in awaited.items() if now - entry.since >= patience]
        for port_id in late:
            self._entries[port_id].state = State.SUBMITTED
        return late

    @property
    def waits(self) -> bool:
        """Whether anything is awaited."""
        return any(entry.state is State.AWAITED for entry in self._entries.values())

    def rest(self, now: float) -> float:
        """Seconds until what stands is looked at again."""
        return max(0.0, self._audit_at - now)

    # What is done.

    def claim(self, port_ids: Iterable[str]) -> Sight:
        """Those whose flow may run now: not those that are awaited (again)."""
        chosen = {
            port_id: entry
            for port_id in port_ids
            if (entry := self._entries.get(port_id)) is not None
            and entry.state in (State.SUBMITTED, State.FAILING)
        }
        return Sight(
            {id_: each.port for id_, each in chosen.items() if not each.leaving},
            {id_: each.port for id_, each in chosen.items() if each.leaving},
        )

    def flow(self, port_id: str, interface: Interface | None) -> FlowName:
        """Which flow a present port's is: what was proven where it is now is only refreshed."""
        entry = self._entries.get(port_id)
        proven = entry.proven if entry is not None else None
        return FlowName.REFRESH if proven and proven == interface else FlowName.WIRE

    def settle(self, port: PluggedPort, interface: Interface | None, *, succeeded: bool) -> bool:
        """The flow of ``port`` as it was claimed has run. Whether it is to be run again."""
        entry = self._entries.get(port.port_id)
        if entry is None or entry.port != port or entry.state is State.AWAITED:
            return False  # something newer is under way
        if not succeeded:
            entry.state = State.FAILING
            return True
        if entry.leaving:
            del self._entries[port.port_id]
        else:
            entry.state, entry.proven = State.STANDING, interface
        return False
