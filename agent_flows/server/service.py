"""The server's process: RPC, REST and the sweeper on one database."""

import contextlib
import socket
import sys
from collections.abc import Sequence

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows import process
from agent_flows.rpc import transport as wire
from agent_flows.rpc.dispatch import listener
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from agent_flows.server.core import agent_view, clock, database, settings
from agent_flows.server.core.casts import Caster
from agent_flows.server.core.liveness import Liveness
from agent_flows.server.core.metrics import Metrics, Snapshot
from agent_flows.server.core.store import Store
from agent_flows.server.core.sweeper import Sweeper
from agent_flows.server.standalone import auth, health, schema
from agent_flows.server.standalone.api.app import application
from agent_flows.server.standalone.api.wsgi import WsgiServer
from agent_flows.server.standalone.bounded import Bounded
from agent_flows.server.standalone.directory import OwnDirectory
from agent_flows.supervision import Troubles

LOG = log.getLogger(__name__)
PROG = "agent-flows-server"


class ServerService:
    """Everything a server does, from ``start`` to ``stop``.

    ``start`` raises :class:`agent_flows.server.standalone.auth.Misconfigured`,
    :class:`agent_flows.server.standalone.schema.Outdated`, ``OSError`` if the address is
    taken, one of ``database.ERRORS`` without one, or ``MessagingException`` without a
    bus; whatever was started by then is stopped. ``rpc_threads`` handle calls of agents;
    by default as many as oslo.messaging's option has.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        transport: oslo_messaging.Transport,
        rpc_threads: int | None = None,
    ) -> None:
        self._conf = conf
        self._transport = transport
        self._rpc_threads = rpc_threads
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
        metrics = Metrics()
        directory = OwnDirectory()
        caster = Caster(AgentClient(self._transport), metrics)
        self._undo.callback(caster.stop)
        rules, troubles = settings.of_the_agents(conf), Troubles()
        store = Store(held, directory, caster, metrics, settings.of_the_gate(conf), rules=rules)
        limits = settings.limits(conf)
        sweeper = Sweeper(held, directory, caster, metrics, limits, rules=rules, troubles=troubles)
        rpc, endpoint = self._rpc_server(store)

        def snapshot() -> Snapshot:
            with held.reader() as session:
                ports = dict(directory.counts(session))
                return Snapshot(ports, agent_view.gauges(session, Liveness(rules, clock.now())))

        metrics.watch_database(Bounded(snapshot, health.DATABASE_PATIENCE))
        metrics.watch_refusals(endpoint.refusals.counts)
        checks = health.checks(held, sweeper, caster, troubles)
        metrics.watch_process(lambda: {name: check() is not None for name, check in checks.items()})
        self._api = WsgiServer(application(conf, held, caster, metrics, checks), conf)
        self._undo.callback(self._api.stop)

        rpc.start(override_pool_size=self._rpc_threads)
        self._undo.callback(rpc.wait)
        self._undo.callback(rpc.stop)
        sweeper.start()
        self._undo.callback(sweeper.stop)
        ping = health.Ping(self._transport, troubles)
        ping.start()
        self._undo.callback(ping.stop)
        self._api.start()
        LOG.info("REST on %s port %d", conf[options.API].bind_host, self._api.port)

    def _rpc_server(
        self, store: Store
    ) -> tuple[oslo_messaging.MessageHandlingServer, ServerEndpoint]:
        endpoint = ServerEndpoint(store)
        # Every process takes from the queue of the topic. The one named after the
        # server outlives it on the bus, so the name is the same after a restart.
        target = wire.server_target(socket.gethostname())
        return listener(self._transport, target, endpoint), endpoint

    def stop(self) -> None:
        self._undo.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; 1 with one line on standard error if it cannot start."""
    conf = cfg.CONF
    database.register(conf)
    process.prepare(sys.argv[1:] if argv is None else argv, PROG, conf)
    ending = process.Ending()
    service = ServerService(conf, wire.get_transport(conf))
    try:
        service.start()
    except (
        auth.Misconfigured,
        schema.Outdated,
        *database.ERRORS,
        oslo_messaging.MessagingException,
        OSError,
        ValueError,
    ) as exc:
        print(f"{PROG}: {' '.join(str(exc).split())}", file=sys.stderr)
        return 1
    process.started()
    ending.wait()
    service.stop()
    return 0
