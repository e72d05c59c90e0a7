"""OVSDB: a replica to read from, transactions to write with, and notice of every change.

One connection (ovsdbapp's IDL) carries only the columns used here: the
statistics that ovs-vswitchd writes every five seconds never reach us.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovs import jsonrpc, poller, stream, timeval
from ovsdbapp import exceptions
from ovsdbapp.backend.ovs_idl import command, connection, idlutils, transaction, vlog
from ovsdbapp.schema.open_vswitch import impl_idl

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.l2 import json_stream
from agent_flows.l2.replica import Content, Listener, Replica, Row
from agent_flows.report import TaskError

_SCHEMA = "Open_vSwitch"
_COLUMNS: Mapping[str, Sequence[str]] = {
    "Open_vSwitch": ("bridges", "next_cfg", "cur_cfg"),
    "Bridge": (
        "name",
        "ports",
        "datapath_type",
        "fail_mode",
        "protocols",
        "controller",
        "external_ids",
        "other_config",
        "stp_enable",
        "rstp_enable",
    ),
    "Controller": ("target",),
    "Port": ("name", "interfaces", "tag", "trunks", "vlan_mode", "other_config"),
    "Interface": (
        "name",
        "type",
        "ofport",
        "error",
        "external_ids",
        "options",
        "mtu_request",
        # Only noticed: what the link is now, the kernel is asked.
        "admin_state",
        "mtu",
    ),
}


class OvsdbUnreachable(Exception):
    """ovsdb-server does not answer."""


class Ovsdb:
    """The switch's database. ``timeout`` in seconds bounds one transaction; ``tls`` are the files
    of a private key, its certificate and the authority, for a ``remote`` that begins with ``ssl:``.

    Safe to use from any thread, but for :meth:`start` and :meth:`stop`.
    """

    def __init__(
        self, remote: str, timeout: float, tls: tuple[str, str, str] | None = None
    ) -> None:
        self._remote = remote
        if tls is not None:
            # The library keeps one set of files for the whole process.
            key, certificate, ca = tls
            stream.Stream.ssl_set_private_key_file(key)
            stream.Stream.ssl_set_certificate_file(certificate)
            stream.Stream.ssl_set_ca_cert_file(ca)
        self._timeout = timeout
        self._api: _Api | None = None
        self._failed = ""

    def start(self, listener: Listener | None = None) -> None:
        """Connect and read the database. Raises :class:`OvsdbUnreachable`."""
        try:
            self._connect(listener)
        except OvsdbUnreachable as exc:
            self._failed = str(exc)
            raise
        self._failed = ""

    def _connect(self, listener: Listener | None) -> None:
        vlog.use_python_logger(max_level=vlog.WARN)
        json_stream.install()
        helper = idlutils.create_schema_helper(_schema(self._remote, self._timeout))
        for table, columns in _COLUMNS.items():
            helper.register_columns(table, list(columns))
        replica = Replica(self._remote, helper)
        try:
            self._api = _Api(connection.Connection(replica, self._timeout))
        except exceptions.OvsdbConnectionUnavailable as exc:
            replica.close()
            raise OvsdbUnreachable(_unanswered(self._remote, str(exc))) from exc
        replica.listener = listener
        if listener is not None:
            # Of changes before it was registered.
            listener.bridges_changed()

    def stop(self) -> None:
        if self._api is not None:
            self._api.ovsdb_connection.idl.listener = None
            self._api.ovsdb_connection.stop(self._timeout)
            self._api = None

    def check(self) -> None:
        """Raises :class:`OvsdbUnreachable` while our replica may be out of date.

        Never blocks. A connection that never existed is unreachable from the
        first :meth:`start` that failed.
        """
        api = self._api
        if api is None:
            if self._failed:
                raise OvsdbUnreachable(self._failed)
            return
        conn = api.ovsdb_connection
        if not conn.thread.is_alive():
            raise OvsdbUnreachable(f"the thread that follows {self._remote} has ended")
        if reason := conn.idl.lagging():
            raise OvsdbUnreachable(_unanswered(self._remote, reason))

    @property
    def api(self) -> Any:
        """ovsdbapp's API, to make commands with."""
        if self._api is None:
            raise RuntimeError("not started")
        return self._api

    @contextlib.contextmanager
    def reading(self) -> Iterator[Content]:
        """The content, which does not change in the block; rows must not be kept after it.

        Raises :class:`TaskFailed` if the connection is busy for too long.
        """
        lock = self.api.ovsdb_connection.lock
        # The connection's thread holds it while it commits.
        if not lock.acquire(timeout=self._timeout):
            raise _timed_out(f"ovsdb-server did not answer within {self._timeout} s")
        try:
            yield self.api.idl.content
        finally:
            lock.release()

    def set_rows(
        self, table: str, rows: Mapping[str, Mapping[str, Any]], *, if_exists: bool = False
    ) -> Any:
        """A command that sets columns of Bridge, Port or Interface rows, by name.

        Keys of a column that is a map are added to those there are.
        """
        return _SetRows(self.api, table, rows, if_exists)

    def transact(self, commands: Sequence[Any]) -> None:
        """Commit ``commands`` in one transaction and wait until ovs-vswitchd has acted on it.

        Raises :class:`TaskFailed` if the database refuses it or time runs out.
        """
        self._act(_NextCfg(self.api), commands)

    def record(self, commands: Sequence[Any]) -> None:
        """Commit what does not concern ovs-vswitchd: our own keys in external_ids.

        Raises :class:`TaskFailed` as :meth:`transact` does.
        """
        self._commit(commands)

    def settle(self) -> None:
        """Wait until ovs-vswitchd has acted on the whole database.

        After its start this means that every bridge and port exists, with its
        ofport. Raises :class:`TaskFailed` if time runs out.
        """
        self._act(_AskAgain(self.api), ())

    def _act(self, configured: "_NextCfg", commands: Sequence[Any]) -> None:
        self._commit([configured, *commands])
        # Without a number nothing has changed, so there is nothing to wait for.
        if configured.result is not None and not self.api.ovsdb_connection.idl.wait_configured(
            configured.result, self._timeout
        ):
            raise _timed_out(f"ovs-vswitchd did not act on a change within {self._timeout} s")

    def _commit(self, commands: Sequence[Any]) -> None:
        txn = transaction.Transaction(
            self.api, self.api.ovsdb_connection, self._timeout, check_error=True, log_errors=False
        )
        txn.extend(commands)
        try:
            txn.commit()
        except exceptions.TimeoutException as exc:
            raise _timed_out(f"ovsdb-server did not answer within {self._timeout} s", exc) from exc
        except RuntimeError as exc:
            raise TaskFailed(
                TaskError(ErrorType.OVSDB_ERROR, "OVSDB refused the transaction", str(exc))
            ) from exc


def _schema(remote: str, timeout: float) -> Any:
    """The schema of ovsdb-server's database.

    ovsdbapp's own function waits for ever for a server that does not answer.
    """
    deadline = timeval.msec() + int(timeout * 1000)
    error, opened = stream.Stream.open_block(stream.Stream.open(remote), int(timeout * 1000))
    if error:
        raise OvsdbUnreachable(_unanswered(remote, os.strerror(error)))
    rpc = jsonrpc.Connection(opened)
    try:
        request = jsonrpc.Message.create_request("get_schema", [_SCHEMA])
        error = rpc.send(request)
        while not error:
            error, reply = rpc.recv()
            if reply is not None and reply.id == request.id:
                if reply.error:
                    raise OvsdbUnreachable(f"{remote} has no database {_SCHEMA}: {reply.error}")
                return reply.result
            if error and error != errno.EAGAIN:
                break
            error = 0
            if timeval.msec() >= deadline:
                raise OvsdbUnreachable(_unanswered(remote, f"no answer within {timeout} s"))
            rpc.run()
            waiting = poller.Poller()
            rpc.wait(waiting)
            rpc.recv_wait(waiting)
            waiting.timer_wait_until(deadline)
            waiting.block()
        raise OvsdbUnreachable(_unanswered(remote, "it closed the connection"))
    finally:
        rpc.close()


def _unanswered(remote: str, reason: str) -> str:
    return f"ovsdb-server does not answer at {remote}: {reason}"


def _timed_out(message: str, cause: Exception | None = None) -> TaskFailed:
    return TaskFailed(TaskError(ErrorType.TIMEOUT, message, str(cause or "")), whole_batch=True)


class _Api(impl_idl.OvsdbIdl):  # type: ignore[misc]
    """ovsdbapp's API with a connection per object, where it has one per class."""

    def __init__(self, conn: connection.Connection) -> None:
        self._conn = conn
        # :class:`Content` finds rows.
        super().__init__(conn, auto_index=False)

    @property
    def ovsdb_connection(self) -> connection.Connection:
        return self._conn

    @ovsdb_connection.setter
    def ovsdb_connection(self, conn: connection.Connection) -> None:
        self._conn = conn


class _NextCfg(command.BaseCommand):  # type: ignore[misc]
    """Asks ovs-vswitchd to act; the result is the number that it will write to cur_cfg.

    ovsdbapp's own transaction of this kind waits on the connection's thread
    with the replica locked, and only logs if ovs-vswitchd does not answer.
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
        """The number is already known."""


class _SetRows(command.BaseCommand):  # type: ignore[misc]
    """As ovsdbapp's command to set a row, for many: that one looks for each row by several means
    and took half the time of a transaction that tags 100 ports."""

    def __init__(
        self, api: Any, table: str, rows: Mapping[str, Mapping[str, Any]], if_exists: bool
    ) -> None:
        super().__init__(api)
        self.table, self.rows, self.if_exists = table, rows, if_exists

    def run_idl(self, txn: Any) -> None:
        for name, columns in self.rows.items():
            row = self.api.idl.content.row(self.table, name)
            if row is not None:
                self._set(row, columns)
            elif not self.if_exists:
                raise idlutils.RowNotFound(table=self.table, col="name", match=name)

    @staticmethod
    def _set(row: Row, columns: Mapping[str, Any]) -> None:
        for column, value in columns.items():
            if isinstance(value, Mapping):
                # Its other keys must not have changed since we read them.
                row.raw.verify(column)
                setattr(row.raw, column, {**getattr(row, column), **value})
            else:
                setattr(row.raw, column, value)
