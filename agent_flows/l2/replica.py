"""Our copy of OVSDB's content, and notice of every change."""

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from oslo_log import log
from ovs import timeval
from ovsdbapp.backend.ovs_idl import connection

from agent_flows.supervision import described
from agent_flows.validation import is_port_id

LOG = log.getLogger(__name__)

# external_ids:iface-id names the port an interface belongs to (OVS IntegrationGuide).
IFACE_ID = "iface-id"
# A row of these is known by its name, which never changes (vswitchd.conf.db(5)).
_NAMED = frozenset({"Bridge", "Port", "Interface"})
# ovs-vswitchd empties the flow tables, or speaks otherwise, when one of these of a bridge changes
# (ofproto/connmgr.c, connmgr_set_controllers and connmgr_set_fail_mode; vswitchd/bridge.c).
_MAKE = ("fail_mode", "protocols", "datapath_type", "controller")
# What a flow of ours sets of a port, as far as OVSDB has it. ovs-vswitchd writes the two of the
# link within some 10 ms of a change in the kernel (measured on every type of interface).
_OF_WIRING = {
    "Port": frozenset({"tag", "other_config"}),
    "Interface": frozenset({"admin_state", "mtu", "ofport", "error"}),
}

# ovs-vswitchd writes this ofport for an interface it could not open (vswitchd.conf.db(5)).
NO_OFPORT = -1

# Milliseconds without data from the server before it is probed, and then before the connection
# counts as lost.
_PROBE = 2000
# Milliseconds, the shortest and the longest, until a lost connection is tried again.
_BACKOFF = (1000, 2000)
# So many milliseconds before that, it counts as lagging.
_EARLY = 500
# Seconds before a database that could not be followed is read again.
_PAUSE = 0.5


class Listener(Protocol):
    """Called on the connection's thread: must return at once."""

    def interfaces_changed(self, port_ids: frozenset[str]) -> None:
        """Interfaces of these ports came, went, or are usable now."""
        ...

    def wiring_changed(self, port_ids: frozenset[str]) -> None:
        """The tag, the link or the ofport of these ports may have changed, also by a flow of
        ours."""
        ...

    def bridges_changed(self) -> None:
        """A bridge, or a patch port, came, went or changed."""
        ...

    def database_reloaded(self) -> None:
        """The connection was lost and the whole content has been read again."""
        ...


class Row:
    """The committed columns of a row, each converted when it is first asked for.

    python-ovs' own accessor converts several times at each access: it took 5 ms
    of CPU to read the interfaces of 100 ports, and a flow reads three times.
    """

    def __init__(self, raw: Any) -> None:
        self.uuid: uuid.UUID = raw.uuid
        self.raw = raw

    def __getattr__(self, column: str) -> Any:
        datum = self.raw._data[column]
        value = self.__dict__[column] = datum.to_python(self.raw._uuid_to_row)
        return value


class Content:
    """Rows by name and by port, valid while the connection's lock is held.

    Replaces ovsdbapp's indices, sorted lists of copies of rows, which
    cost a quarter of the time it takes to read an update.
    """

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self._tables = tables
        self._rows: dict[uuid.UUID, Row] = {}
        self._by_name: dict[tuple[str, str], uuid.UUID] = {}
        self._by_port: dict[str, set[uuid.UUID]] = {}
        self._port_ids: dict[uuid.UUID, str] = {}
        self._makes: dict[uuid.UUID, int] = {}
        self._patches: set[uuid.UUID] = set()

    def row(self, table: str, name: str) -> Row | None:
        """The row of a Bridge, Port or Interface by its name."""
        return self._row(table, self._by_name.get((table, name)))

    def interfaces_of(self, port_id: str) -> list[Row]:
        """Interface rows whose iface-id is ``port_id``."""
        rows = (self._row("Interface", each) for each in self._by_port.get(port_id, ()))
        return [row for row in rows if row and row.external_ids.get(IFACE_ID) == port_id]

    def ports_on(self, bridge: str) -> frozenset[uuid.UUID]:
        """The Port rows of a bridge; none if it does not exist."""
        row = self.row("Bridge", bridge)
        return frozenset(port.uuid for port in row.ports) if row is not None else frozenset()

    def makes(self, bridge: Row) -> int:
        """How often what empties a bridge's flow tables has changed while we were connected: after
        a fail mode was changed and changed back, the row is as before, but the flows are gone."""
        return self._makes.get(bridge.uuid, 0)

    def port_rows(self, bridge: str) -> Iterator[Row]:
        """The Port rows of a bridge themselves."""
        rows = (self._row("Port", each) for each in self.ports_on(bridge))
        return (row for row in rows if row is not None)

    def port_of(self, interface: Row) -> uuid.UUID | None:
        """The Port row of an Interface row; they share a name, but in a bond."""
        port = self.row("Port", interface.name)
        return port.uuid if port is not None else None

    def port_ids(self) -> frozenset[str]:
        """Every iface-id in the database, on any bridge."""
        return frozenset(port for port in self._by_port if self.interfaces_of(port))

    def _row(self, table: str, row_id: uuid.UUID | None) -> Row | None:
        raw = self._tables[table].rows.get(row_id)
        if raw is None:
            return None
        return self._rows.setdefault(raw.uuid, Row(raw))

    def note(self, table: str, event: str, raw: Any, old: Any = None) -> "Concerned":
        """A row was created, updated or deleted; returns the ports it concerns.

        ``old`` has the columns that an update changed.
        """
        self._rows.pop(raw.uuid, None)
        row = Row(raw)
        if event != "delete":
            self._rows[raw.uuid] = row
        if table in _NAMED and event != "update":
            self._note_name((table, row.name), row.uuid, event)
        if table not in _OF_WIRING:
            return NOBODY
        if event == "update":
            return self._note_update(table, row, frozenset(old._data), Row(old))
        if table == "Interface":
            return Concerned(plugged=self._note_port(row, event))
        return Concerned(plugged=self._ports_of(row))

    def _note_update(self, table: str, row: Row, changed: frozenset[str], old: Row) -> "Concerned":
        if table == "Port":
            ports = self._ports_of(row)
            if "interfaces" in changed:
                return Concerned(plugged=ports)
        else:
            before = self._port_ids.get(row.uuid)
            if "external_ids" in changed:
                claims = self._note_port(row, "update")
                if self._port_ids.get(row.uuid) != before:
                    return Concerned(plugged=claims)
            ports = frozenset() if before is None else frozenset({before})
            if "type" in changed or _became_usable(changed, row, old):
                return Concerned(plugged=ports)
        return Concerned(rewired=ports if changed & _OF_WIRING[table] else frozenset())

    def _ports_of(self, port: Row) -> frozenset[str]:
        """The ports whose interface is in a Port row, which came, went or changed without it."""
        interface = self._by_name.get(("Interface", port.name))
        port_id = self._port_ids.get(interface) if interface is not None else None
        return frozenset({port_id}) if port_id is not None else frozenset()

    def _note_name(self, name: tuple[str, str], row_id: uuid.UUID, event: str) -> None:
        if event == "create":
            self._by_name[name] = row_id
        elif self._by_name.get(name) == row_id:
            del self._by_name[name]

    def _note_port(self, row: Row, event: str) -> frozenset[str]:
        before = self._port_ids.pop(row.uuid, None)
        now = row.external_ids.get(IFACE_ID) if event != "delete" else None
        if not is_port_id(now):
            now = None
        if before and before != now:
            self._by_port[before].discard(row.uuid)
            if not self._by_port[before]:
                del self._by_port[before]
        if now:
            self._port_ids[row.uuid] = now
            self._by_port.setdefault(now, set()).add(row.uuid)
        return frozenset(port for port in (before, now) if port)

    def note_bridge(self, table: str, event: str, raw: Any, old: Any) -> bool:
        """Whether a row that was created, updated or deleted is a bridge's or a patch port's;
        ``old`` has the columns that an update changed."""
        if table == "Bridge":
            if old is not None and any(column in old._data for column in _MAKE):
                self._makes[raw.uuid] = self._makes.get(raw.uuid, 0) + 1
            return True
        if table == "Port":
            # Whether one came or went shows in the bridge's row.
            return (
                old is not None and self._by_name.get(("Interface", Row(raw).name)) in self._patches
            )
        if table != "Interface":
            return False
        was_patch = raw.uuid in self._patches
        if event == "delete":
            self._patches.discard(raw.uuid)
        elif old is None or "type" in old._data:
            is_patch = raw._data["type"].to_python(raw._uuid_to_row) == "patch"
            (self._patches.add if is_patch else self._patches.discard)(raw.uuid)
        return was_patch or raw.uuid in self._patches


@dataclass(frozen=True)
class Concerned:
    """The ports that a change concerns.

    ``plugged``: their interfaces came, went, or are usable now. ``rewired``: what
    a flow of ours sets may have changed.
    """

    plugged: frozenset[str] = frozenset()
    rewired: frozenset[str] = frozenset()


NOBODY = Concerned()


def _became_usable(changed: frozenset[str], now: Row, old: Row) -> bool:
    """Whether an interface that ovs-vswitchd had not opened, or could not, was opened or failed."""
    if changed.isdisjoint(("ofport", "error")):
        return False
    ofport = (old if "ofport" in changed else now).ofport
    error = (old if "error" in changed else now).error
    return bool(error) or next(iter(ofport), NO_OFPORT) == NO_OFPORT


# ovsdbapp publishes no types, so its classes are Any to mypy.
class Replica(connection.OvsdbIdl):  # type: ignore[misc]
    """Keeps ``content`` and notifies the listener once per update of the database.

    One ``ovs-vsctl`` that plugs 100 ports is one update: notified at once, they
    become one batch, where ovsdbapp's RowEvents come one by one.
    """

    def __init__(self, remote: str, helper: Any) -> None:
        super().__init__(remote, helper)
        # Not among the arguments, where python-ovs leaves it out for a Unix socket, on which a
        # server that is stopped looks like one with nothing to say.
        self._session.reconnect.set_probe_interval(_PROBE)
        self._session.reconnect.set_backoff(*_BACKOFF)
        self._broken = ""
        self.content = Content(self.tables)
        self.listener: Listener | None = None
        self._plugged: set[str] = set()
        self._rewired: set[str] = set()
        self._bridges = False
        self._reloaded = False
        self._configured = threading.Condition()
        self._cur_cfg = 0

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        table = row._table.name
        concerned = self.content.note(table, event, row, updates)
        self._plugged |= concerned.plugged
        self._rewired |= concerned.rewired
        self._bridges |= self.content.note_bridge(table, event, row, updates)
        if table == "Open_vSwitch" and event != "delete":
            # Its row is created once; if again, the whole content was read again. An update of it
            # may be read together with that.
            self._reloaded |= event == "create"
            with self._configured:
                self._cur_cfg = row.cur_cfg
                self._configured.notify_all()

    def run(self) -> bool:
        try:
            changed = self._follow()
        # The only handler in the thread that follows the database: ovsdbapp would go on with half
        # an update. Everything is read again instead, and until then we are lagging.
        except Exception as exc:
            LOG.exception("An update of the database could not be followed; reading it again")
            self._broken = described(exc)
            self.force_reconnect()
            time.sleep(_PAUSE)
            return True
        if self.state == self.IDL_S_MONITORING:
            self._broken = ""
        return changed

    def lagging(self) -> str:
        """Why our copy may be out of date; "" if it is not."""
        session = self._session
        if self._broken:
            return self._broken
        if not session.is_connected():
            return "not connected"
        if self.state != self.IDL_S_MONITORING or session.get_seqno() != self._last_seqno:
            return "it has not sent its content yet"
        # Data come at least once in every probe interval.
        silent = timeval.msec() - max(
            session.reconnect.last_activity, session.reconnect.last_connected or 0
        )
        return f"silent for {silent / 1000:.0f} s" if silent > 2 * _PROBE - _EARLY else ""

    def _follow(self) -> bool:
        changed: bool = super().run()
        plugged, self._plugged = frozenset(self._plugged), set()
        rewired, self._rewired = frozenset(self._rewired), set()
        reloaded, self._reloaded = self._reloaded, False
        bridges, self._bridges = self._bridges, False
        if self.listener is not None:
            if reloaded:
                self.listener.database_reloaded()
            if bridges:
                self.listener.bridges_changed()
            if plugged:
                self.listener.interfaces_changed(plugged)
            if rewired:
                self.listener.wiring_changed(rewired)
        return changed

    def cooperative_yield(self) -> None:
        """Do nothing: python-ovs yields to green threads here, once for each row; with real
        threads that only means to wait for the interpreter's lock."""

    def wait_configured(self, cfg: int, timeout: float) -> bool:
        """Whether ovs-vswitchd has acted on change ``cfg``, waited for ``timeout`` seconds."""
        with self._configured:
            return self._configured.wait_for(lambda: self._cur_cfg >= cfg, timeout)
