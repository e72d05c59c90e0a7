"""OVSDB: a replica to read from, transactions to write with, and word of every change.

One connection (ovsdbapp's IDL) carries only the columns used here: the
statistics that ovs-vswitchd writes every five seconds never reach us.
"""

import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ovs import stream
from ovsdbapp import exceptions
from ovsdbapp.backend.ovs_idl import command, connection, idlutils, transaction, vlog
from ovsdbapp.schema.open_vswitch import impl_idl

from agent_flows.flows.task import TaskFailed
from agent_flows.l2 import json_stream
from agent_flows.report import TaskError

_SCHEMA = "Open_vSwitch"
_COLUMNS: Mapping[str, Sequence[str]] = {
    "Open_vSwitch": ("bridges", "next_cfg", "cur_cfg"),
    "Bridge": ("name", "ports", "datapath_type", "fail_mode", "protocols", "external_ids"),
    "Port": ("name", "interfaces", "tag", "other_config"),
    "Interface": ("name", "type", "ofport", "error", "external_ids", "options", "mtu_request"),
}
# external_ids:iface-id names the port an interface belongs to (OVS IntegrationGuide).
IFACE_ID = "iface-id"


class OvsdbUnreachable(Exception):
    """ovsdb-server does not answer."""


class Listener(Protocol):
    """Told about the database, on the connection's thread: must return at once."""

    def interfaces_changed(self, port_ids: frozenset[str]) -> None:
        """Interfaces of these ports came, went or changed."""
        ...

    def database_reloaded(self) -> None:
        """The connection was lost and the whole content has been read anew."""
        ...


class Ovsdb:
    """The switch's database. ``timeout`` in seconds bounds one transaction.

    Safe to use from any thread, but for :meth:`start` and :meth:`stop`.
    """

    def __init__(self, remote: str, timeout: float) -> None:
        self._remote = remote
        self._timeout = timeout
        self._api: _Api | None = None

    def start(self, listener: Listener | None = None) -> None:
        """Connect and read the database. Raises :class:`OvsdbUnreachable`."""
        error, probe = stream.Stream.open_block(stream.Stream.open(self._remote))
        if error:
            raise OvsdbUnreachable(f"{self._remote}: errno {error}")
        probe.close()
        vlog.use_python_logger(max_level=vlog.WARN)
        json_stream.install()
        helper = idlutils.get_schema_helper(self._remote, _SCHEMA)
        for table, columns in _COLUMNS.items():
            helper.register_columns(table, list(columns))
        conn = connection.Connection(_Replica(self._remote, helper), self._timeout)
        try:
            self._api = _Api(conn)
        except exceptions.OvsdbConnectionUnavailable as exc:
            raise OvsdbUnreachable(str(exc)) from exc
        conn.idl.listener = listener

    def stop(self) -> None:
        if self._api is not None:
            self._api.ovsdb_connection.idl.listener = None
            self._api.ovsdb_connection.stop(self._timeout)
            self._api = None

    @property
    def api(self) -> Any:
        """ovsdbapp's API, to make commands with."""
        if self._api is None:
            raise RuntimeError("not started")
        return self._api

    @contextlib.contextmanager
    def reading(self) -> Iterator["Reader"]:
        """The replica, held still: rows must not be kept beyond the block."""
        with self.api.ovsdb_connection.lock:
            yield Reader(self.api)

    def transact(self, commands: Sequence[Any]) -> None:
        """Commit ``commands`` in one transaction and wait until ovs-vswitchd has acted on it.

        Raises :class:`TaskFailed` if the database refuses it or time runs out.
        """
        self._commit(_NextCfg(self.api), commands)

    def settle(self) -> None:
        """Wait until ovs-vswitchd has acted on all the database says.

        After a start of it that means: every bridge and port is there, with
        its ofport. Raises :class:`TaskFailed` if time runs out.
        """
        self._commit(_AskAgain(self.api), ())

    def _commit(self, configured: "_NextCfg", commands: Sequence[Any]) -> None:
        txn = transaction.Transaction(
            self.api,
            self.api.ovsdb_connection,
            self._timeout,
            check_error=True,
            log_errors=False,
        )
        txn.extend([configured, *commands])
        try:
            txn.commit()
        except exceptions.TimeoutException as exc:
            raise _timed_out(f"ovsdb-server did not answer within {self._timeout} s", exc) from exc
        except RuntimeError as exc:
            raise TaskFailed(
                TaskError("OvsdbError", "OVSDB refused the transaction", str(exc))
            ) from exc
        # Without a number nothing has changed, so there is nothing to wait for.
        if configured.result is not None and not self.api.ovsdb_connection.idl.wait_configured(
            configured.result, self._timeout
        ):
            raise _timed_out(f"ovs-vswitchd did not act on a change within {self._timeout} s")


def _timed_out(message: str, cause: Exception | None = None) -> TaskFailed:
    return TaskFailed(TaskError("Timeout", message, str(cause or "")), whole_batch=True)


class Reader:
    """Looks rows up in the replica."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def row(self, table: str, name: str) -> Any | None:
        """The row of a Bridge, Port or Interface by its name."""
        return idlutils.row_by_value(self._api.idl, table, "name", name, None)

    def interfaces_of(self, port_id: str) -> list[Any]:
        """Interface rows whose iface-id is ``port_id``."""
        rows = self._api.tables["Interface"].rows
        found = (rows[each] for each in self._api.idl.by_port.get(port_id, ()) if each in rows)
        return [row for row in found if row.external_ids.get(IFACE_ID) == port_id]

    def ports_on(self, bridge: str) -> frozenset[uuid.UUID]:
        """The Port rows of a bridge; none if there is no such bridge."""
        row = self.row("Bridge", bridge)
        return frozenset(port.uuid for port in row.ports) if row is not None else frozenset()

    def port_of(self, interface: Any) -> uuid.UUID | None:
        """The Port row of an Interface row; they share a name, but in a bond."""
        port = self.row("Port", interface.name)
        return port.uuid if port is not None else None

    def port_ids(self) -> frozenset[str]:
        """Every iface-id in the database, on whatever bridge."""
        return frozenset(
            port_id for port_id in list(self._api.idl.by_port) if self.interfaces_of(port_id)
        )


# ovsdbapp publishes no types, so its classes are Any to mypy.
class _Replica(connection.OvsdbIdl):  # type: ignore[misc]
    """Keeps an index by iface-id and tells the listener once per update of the database.

    One ``ovs-vsctl`` that plugs 100 ports is one update: told at once, they
    become one batch, where ovsdbapp's RowEvents would trickle in one by one.
    """

    def __init__(self, remote: str, helper: Any) -> None:
        super().__init__(remote, helper)
        self.listener: Listener | None = None
        self.by_port: dict[str, set[uuid.UUID]] = {}
        self._touched: set[str] = set()
        self._reloaded = False
        self._configured = threading.Condition()
        self._cur_cfg = 0

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        table = row._table.name
        if table == "Interface":
            self._interface(event, row, updates)
        elif table == "Open_vSwitch" and event != "delete":
            # Its row is created once; created again, the whole content was read anew.
            self._reloaded = event == "create"
            with self._configured:
                self._cur_cfg = row.cur_cfg
                self._configured.notify_all()

    def _interface(self, event: str, row: Any, updates: Any) -> None:
        now = row.external_ids.get(IFACE_ID)
        before = getattr(updates, "external_ids", {}).get(IFACE_ID, now)
        self._touched.update(port for port in (now, before) if port)
        if before and (before != now or event == "delete"):
            self.by_port.get(before, set()).discard(row.uuid)
            if not self.by_port.get(before):
                self.by_port.pop(before, None)
        if now and event != "delete":
            self.by_port.setdefault(now, set()).add(row.uuid)

    def run(self) -> bool:
        changed: bool = super().run()
        touched, self._touched = frozenset(self._touched), set()
        reloaded, self._reloaded = self._reloaded, False
        if self.listener is not None:
            if reloaded:
                self.listener.database_reloaded()
            if touched:
                self.listener.interfaces_changed(touched)
        return changed

    def cooperative_yield(self) -> None:
        """Nothing: python-ovs gives way to green threads here, once for each row, and to real
        threads that means: to wait for the interpreter's lock again."""

    def wait_configured(self, cfg: int, timeout: float) -> bool:
        with self._configured:
            return self._configured.wait_for(lambda: self._cur_cfg >= cfg, timeout)


class _Api(impl_idl.OvsdbIdl):  # type: ignore[misc]
    """ovsdbapp's API with a connection per object, where it has one per class."""

    def __init__(self, conn: connection.Connection) -> None:
        self._conn = conn
        super().__init__(conn)

    @property
    def ovsdb_connection(self) -> connection.Connection:
        return self._conn

    @ovsdb_connection.setter
    def ovsdb_connection(self, conn: connection.Connection) -> None:
        self._conn = conn


class _NextCfg(command.BaseCommand):  # type: ignore[misc]
    """Asks ovs-vswitchd to act and learns the number it will answer with in cur_cfg.

    ovsdbapp's own transaction of this kind waits on the connection's thread
    with the replica locked, and only logs if ovs-vswitchd stays silent.
    """

    def run_idl(self, txn: Any) -> None:
        self.api._ovs.increment("next_cfg")
        # ovsdbapp's command to add a port notes its interface here.
        txn.expected_ifaces = set()

    def post_commit(self, txn: Any) -> None:
        self.result = txn.get_increment_new_value()


class _AskAgain(_NextCfg):
    """The same with nothing else in the transaction: the IDL drops an increment that is alone."""

    def run_idl(self, txn: Any) -> None:
        row = self.api._ovs
        row.verify("next_cfg")
        self.result = row.next_cfg + 1
        row.next_cfg = self.result

    def post_commit(self, txn: Any) -> None:
        """The number is known already."""
