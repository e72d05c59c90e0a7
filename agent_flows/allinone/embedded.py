"""Server and agent in this process, connected by an in-process bus."""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import oslo_messaging
from oslo_config import cfg
from oslo_db.exception import DBError
from sqlalchemy.engine import make_url

from agent_flows import conf as options
from agent_flows import privileged, process
from agent_flows.agent.service import AgentService
from agent_flows.allinone import memory_bus
from agent_flows.cli.failure import CommandFailed, ExitCode
from agent_flows.rpc import transport
from agent_flows.server.core import database
from agent_flows.server.service import ServerService
from agent_flows.server.standalone import auth, schema

Say = Callable[[str], None]
PROG = "agent-flows-all-in-one"
_POLL = 0.02
# Calls of one agent at once: its reporter, its heartbeat, its control and the server's own ping.
# oslo.messaging's 64 threads cost 0.5 % of a core while they have nothing to do.
_RPC_THREADS = 4
# Their warnings (no host name, no heartbeats) are normal without a broker.
_ABOUT_BROKERS = ("kombu.connection", "oslo.messaging._drivers.impl_rabbit")


def run(argv: list[str], state_dir: str | None, say: Say) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    ``argv`` is the command line for oslo.config and oslo.log, ``say`` writes a
    line of progress. Raises :class:`CommandFailed` if it cannot start.
    """
    ending = process.Ending()
    conf = configure(argv, state_dir)
    try:
        privileged.start(ending.fail)
    except privileged.NotPermitted as exc:
        raise CommandFailed(str(exc)) from None
    began = time.monotonic()
    api = conf[options.API]
    with _bus(conf) as bus, _server(conf, bus, say) as server:
        url = f"http://{api.bind_host}:{server.api_port}"
        say(f"API: listening on {url}")
        with _agent(conf, bus) as agent, memory_bus.patience():
            bridge = conf[options.AGENT].integration_bridge
            agent.wait_for_bridge(ending, say)
            process.started()
            if not ending.is_asked():
                say(f"bridge: {bridge} is ready, {agent.waiting} ports waiting")
                say(
                    f"ready: {url}, bridge {bridge}, after {time.monotonic() - began:.1f} s; "
                    "Ctrl-C stops, flows stay in place"
                )
            ending.wait()
            say("stopping")
    say("stopped; flows stay in place")
    return ExitCode.FAILED if ending.failed else ExitCode.OK


def configure(argv: list[str], state_dir: str | None) -> cfg.ConfigOpts:
    """The configuration of this process; the default database is in ``state_dir``."""
    database.register(cfg.CONF)
    conf = process.prepare(argv, PROG)
    try:
        options.check_together(conf)
    except ValueError as exc:
        raise CommandFailed(str(exc), ExitCode.USAGE) from None
    if state_dir is not None:
        conf.set_override("state_dir", str(Path(state_dir).absolute()), options.AGENT)
    place = Path(conf[options.AGENT].state_dir)
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as exc:
        raise CommandFailed(f"state_dir {place}: {exc.strerror}", ExitCode.USAGE) from None
    conf.set_default("connection", f"sqlite:///{place / 'server.sqlite'}", "database")
    if not (conf.debug or conf.log_file or conf.log_dir or conf.use_journal or conf.use_syslog):
        # The console shows progress; warnings are still shown.
        logging.getLogger().setLevel(logging.WARNING)
    return conf


@contextlib.contextmanager
def _bus(conf: cfg.ConfigOpts) -> Iterator[oslo_messaging.Transport]:
    url = _bus_url(conf)
    if url == transport.EMBEDDED_URL:
        memory_bus.install()
        for name in _ABOUT_BROKERS:
            logging.getLogger(name).setLevel(logging.ERROR)
    bus = transport.get_transport(conf, url)
    try:
        yield bus
    finally:
        bus.cleanup()


def _bus_url(conf: cfg.ConfigOpts) -> str:
    oslo_messaging.TransportURL.parse(conf)  # registers transport_url
    found = conf.get_location("transport_url")
    if found is not None and found.location.is_user_controlled:
        return str(conf.transport_url)
    return transport.EMBEDDED_URL


@contextlib.contextmanager
def _server(
    conf: cfg.ConfigOpts, bus: oslo_messaging.Transport, say: Say
) -> Iterator[ServerService]:
    # Without the password.
    say(f"database: {make_url(conf.database.connection).render_as_string(hide_password=True)}")
    server = ServerService(conf, bus, rpc_threads=_RPC_THREADS)
    try:
        server.start()
    except (
        auth.Misconfigured,
        schema.Outdated,
        DBError,
        oslo_messaging.MessagingException,
        OSError,
        ValueError,
    ) as exc:
        api, reason = conf[options.API], " ".join(str(exc).split())
        where = f"{api.bind_host}:{api.bind_port}"
        raise CommandFailed(f"the server cannot start on {where}: {reason}") from exc
    try:
        yield server
    finally:
        server.stop()


class _Agent(AgentService):
    """The agent; shows why the bridge is not ready."""

    @property
    def waiting(self) -> int:
        return int(self._reconciler.table.waiting())

    @property
    def _runs_flows(self) -> bool:
        # Control starts the reconciler once the bridge is ready.
        return bool(self._reconciler.is_alive())

    def wait_for_bridge(self, ending: process.Ending, say: Say) -> None:
        """Return when the bridge is ready for ports, or the process has to stop."""
        shown = "starting"
        while not self._runs_flows and not ending.wait(_POLL):
            trouble = self.state()["trouble"]
            if trouble not in (None, shown):
                say(f"bridge: not ready, {trouble}")
                shown = trouble


@contextlib.contextmanager
def _agent(conf: cfg.ConfigOpts, bus: oslo_messaging.Transport) -> Iterator[_Agent]:
    agent = _Agent(conf, bus)
    try:
        agent.start()
    except (OSError, ValueError, sqlite3.Error, oslo_messaging.MessagingException) as exc:
        raise CommandFailed(f"the agent cannot start: {exc}") from exc
    try:
        yield agent
    finally:
        agent.stop()
        agent.wait()
