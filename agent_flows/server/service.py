"""The server's processes: each has RPC, REST and the sweeper, all on one database."""

import contextlib
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows import process, process_report, threads, tracing
from agent_flows.rpc import transport as wire
from agent_flows.rpc.listener import Listener
from agent_flows.rpc.refusals import Refusals
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from agent_flows.server import workers
from agent_flows.server.core import agent_view, clock, database, settings
from agent_flows.server.core import metrics as prometheus
from agent_flows.server.core.casts import Caster
from agent_flows.server.core.liveness import Liveness
from agent_flows.server.core.metrics import Metrics, Snapshot
from agent_flows.server.core.store import Store
from agent_flows.server.core.sweeper import Sweeper
from agent_flows.server.standalone import auth, health, schema
from agent_flows.server.standalone.api.app import application
from agent_flows.server.standalone.api.wsgi import WsgiServer, listen
from agent_flows.server.standalone.bounded import Bounded
from agent_flows.server.standalone.directory import OwnDirectory
from agent_flows.supervision import Troubles

LOG = log.getLogger(__name__)
PROG = "agent-flows-server"
_CANNOT_START = (
    auth.Misconfigured,
    schema.Outdated,
    *database.ERRORS,
    oslo_messaging.MessagingException,
    OSError,
    ValueError,
)
# Seconds: a start waits for the message bus, a stop for the calls that are under way.
_BUS_PATIENCE = 5.0
_HANDLING_PATIENCE = 20.0


@dataclass(frozen=True)
class Shared:
    """What the workers of one server share: the socket of the API, the directory of counters."""

    listening: socket.socket
    counters: Path


class ServerService:
    """Everything a process of the server does, from ``start`` to ``stop``.

    ``worker`` is its number if there are several, which have ``shared``.

    ``start`` raises :class:`agent_flows.server.standalone.auth.Misconfigured`,
    :class:`agent_flows.server.standalone.schema.Outdated`, ``OSError`` if the address is
    taken, or one of ``database.ERRORS`` without one; whatever was started by then is stopped.
    Without a message bus it starts, and receives calls when there is one. ``rpc_threads`` handle
    calls of agents; by default as many as oslo.messaging's option has.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        transport: oslo_messaging.Transport,
        rpc_threads: int | None = None,
        *,
        worker: int = 0,
        shared: Shared | None = None,
    ) -> None:
        self._conf = conf
        self._transport = transport
        self._rpc_threads = rpc_threads
        self._shared = shared
        # Every process takes from the queue of the topic. The one named after the
        # process outlives it on the bus, so the name is the same after a restart.
        self._name = f"{socket.gethostname()}-{worker}" if worker else socket.gethostname()
        self._undo = contextlib.ExitStack()
        self._api: WsgiServer | None = None

    @property
    def api_port(self) -> int:
        """The port REST listens on; raises RuntimeError before ``start``."""
        if self._api is None:
            raise RuntimeError("not started")
        return self._api.port

    def start(self) -> None:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        conf = self._conf
        auth.check_bind(conf)
        held = database.Database(conf, conf[options.SERVER].database_timeout)
        self._undo.callback(held.close)
        schema.ensure(held)
        shared = self._shared
        metrics = Metrics(shared.counters if shared else None)
        directory = OwnDirectory()
        caster = Caster(AgentClient(self._transport), metrics)
        self._undo.callback(caster.stop)
        rules, troubles = settings.of_the_agents(conf), Troubles()
        traces = tracing.of(conf, PROG)
        gate = settings.of_the_gate(conf)
        store = Store(held, directory, caster, metrics, gate, rules=rules, traces=traces)
        limits = settings.limits(conf)
        sweeper = Sweeper(held, directory, caster, metrics, limits, rules=rules, troubles=troubles)
        wire.bound_backlog(conf)
        refusals = Refusals(lambda reason: metrics.refused.labels(reason).inc())
        rpc = Listener(
            self._transport,
            wire.server_target(self._name),
            ServerEndpoint(store, refusals, traces=traces),
            troubles,
            threads=self._rpc_threads,
            observe=metrics.called,
        )

        def snapshot() -> Snapshot:
            with held.reader() as session:
                return agent_view.snapshot(session, directory, Liveness(rules, clock.now()))

        metrics.watch_database(Bounded(snapshot, health.DATABASE_PATIENCE))
        checks = health.checks(held, sweeper, caster, rpc, troubles)
        metrics.watch_process(lambda: {name: check() is not None for name, check in checks.items()})
        process_report.add_section(
            "Server", lambda: {name: check() or "works" for name, check in checks.items()}
        )
        app = application(conf, held, caster, metrics, checks)
        self._api = WsgiServer(app, conf, shared.listening if shared else None)
        self._undo.callback(self._api.stop)

        # A signal is handled, and the API answers, while the message bus is away.
        rpc.start(_BUS_PATIENCE)
        self._undo.callback(rpc.wait, _HANDLING_PATIENCE)
        self._undo.callback(rpc.stop)
        sweeper.start()
        self._undo.callback(sweeper.stop)
        ping = health.Ping(self._transport, self._name, troubles)
        ping.start()
        self._undo.callback(ping.stop)
        self._api.start()
        LOG.info("REST on %s port %d", conf[options.API].bind_host, self._api.port)

    def stop(self) -> None:
        self._undo.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; 1 with one line on standard error if it cannot start."""
    conf = cfg.CONF
    database.register(conf)
    threads.use(PROG)
    process.prepare(sys.argv[1:] if argv is None else argv, PROG, conf)
    number = conf[options.SERVER].workers
    try:
        return _run_alone(conf) if number == 1 else _run_workers(conf, number)
    except _CANNOT_START as exc:
        print(f"{PROG}: {' '.join(str(exc).split())}", file=sys.stderr)
        return 1


def _run_alone(conf: cfg.ConfigOpts) -> int:
    ending = process.Ending()
    service = ServerService(conf, wire.get_transport(conf))
    service.start()
    process.started()
    ending.wait()
    service.stop()
    return process.bounded_end(0)


def _run_workers(conf: cfg.ConfigOpts, number: int) -> int:
    """What keeps every worker from starting is raised here, before there is one."""
    auth.check_bind(conf)
    _check_database(conf)
    # It reads the URL, and connects only when it is used.
    wire.get_transport(conf).cleanup()
    with listen(conf) as listening, tempfile.TemporaryDirectory(prefix=f"{PROG}-") as counters:
        shared = Shared(listening, Path(counters))

        def make(worker: int) -> ServerService:
            prometheus.share(shared.counters, worker)
            return ServerService(conf, wire.get_transport(conf), worker=worker, shared=shared)

        workers.supervise(number, make, _CANNOT_START, conf.reload_config_files)


def _check_database(conf: cfg.ConfigOpts) -> None:
    held = database.Database(conf, conf[options.SERVER].database_timeout)
    try:
        if held.is_sqlite:
            raise ValueError(
                f"[{options.SERVER}] workers = {conf[options.SERVER].workers} needs PostgreSQL or "
                "MariaDB in [database] connection: SQLite has one writer at a time"
            )
        schema.ensure(held)
    finally:
        held.close()
