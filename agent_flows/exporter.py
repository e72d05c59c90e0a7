"""Serves the metrics of a process to Prometheus over HTTP, on loopback."""

import errno
import socket
import socketserver
from collections.abc import Callable
from typing import Any
from wsgiref import simple_server

from oslo_log import log
from prometheus_client import CollectorRegistry, make_wsgi_app

from agent_flows.supervision import Loop, Troubles

LOG = log.getLogger(__name__)

ADDRESS = "127.0.0.1"
# Seconds of silence after which a client has lost its turn: there is one at a time.
_PATIENCE = 5.0
# Seconds after which the loop looks whether it is to stop.
_TURN = 0.5


class Exporter:
    """Answers ``GET /metrics`` on the first of ``ports`` that is free, from ``start`` to ``stop``.

    One thread, that handles one request at a time and only waits in sockets: under eventlet it is
    a green thread that keeps no other one waiting. While no port can be used that is the trouble
    ``source``.
    """

    def __init__(
        self,
        registry: Callable[[], CollectorRegistry],
        ports: range,
        troubles: Troubles,
        source: str,
    ) -> None:
        """``registry`` is called in the thread, before the first request."""
        self._registry = registry
        self._ports = ports
        self._server: _Server | None = None
        self._loop = Loop("metrics", self._step, troubles, source, expected=(OSError,))

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        self._loop.stop(timeout)
        if self._server is not None:
            self._server.server_close()

    @property
    def port(self) -> int | None:
        """Where it listens; None as long as it does not."""
        return None if self._server is None else self._server.server_port

    def _step(self) -> None:
        if self._server is None:
            self._server = self._listen()
            LOG.info("Metrics on http://%s:%d/metrics", ADDRESS, self._server.server_port)
        # Not handle_request(): it waits in select.poll(), which eventlet does not make green.
        try:
            request, client = self._server.get_request()
        except TimeoutError:
            return
        try:
            self._server.process_request(request, client)
        except OSError as exc:
            LOG.info("A client of the metrics went away: %s", exc)
            self._server.shutdown_request(request)

    def _listen(self) -> "_Server":
        for port in self._ports:
            try:
                server = _Server((ADDRESS, port), _Handler)
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
                continue
            server.set_app(make_wsgi_app(self._registry()))
            server.socket.settimeout(_TURN)
            return server
        raise OSError(
            errno.EADDRINUSE,
            f"ports {self._ports[0]} to {self._ports[-1]} of {ADDRESS} are in use: no metrics",
        )


class _Server(simple_server.WSGIServer):
    # Of several workers each is to have a port of its own.
    allow_reuse_port = False

    def server_bind(self) -> None:
        # WSGIServer asks the resolver for the host's name here, which may take a minute.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        request, client = super().get_request()
        request.settimeout(_PATIENCE)
        return request, client


class _Handler(simple_server.WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:
        LOG.debug("Metrics: " + format, *args)

    def address_string(self) -> str:
        return ADDRESS
