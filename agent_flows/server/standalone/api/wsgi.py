"""The production WSGI server: waitress, in threads of its own."""

import resource
import socket
import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from agent_flows import conf as options
from agent_flows.server.standalone import auth
from agent_flows.server.standalone.api.connections import BURST, Server
from agent_flows.server.standalone.auth import Wsgi

LOG = log.getLogger(__name__)

# A connection that is silent for so many seconds is closed.
_SILENT_SECONDS = 30
# Beyond this a body that is being received is kept in a file.
_BODY_IN_MEMORY = 64 * 1024
# The largest are those with a token, of some KiB.
_HEADERS = 64 * 1024
# Besides connections: the database, the message bus, what libraries open.
_OTHER_FILES = 256


class WsgiServer:
    """Answers from ``start`` to ``stop`` on ``listening``, which other processes may share.

    Without one it listens at once, or raises OSError.
    """

    def __init__(
        self, app: Wsgi, conf: cfg.ConfigOpts, listening: socket.socket | None = None
    ) -> None:
        settings = conf[options.API]
        # Bound before waitress starts its threads, which it leaves if it cannot bind.
        self._socket = listening or listen(conf)
        self._map: dict[int, Any] = {}
        most = _affordable(settings.max_connections)
        adjustments = Adjustments(
            sockets=[self._socket],
            threads=settings.threads,
            max_request_body_size=settings.max_body_bytes + 1,
            max_request_header_size=_HEADERS,
            inbuf_overflow=_BODY_IN_MEMORY,
            # Never reached: beyond max_connections the oldest is closed.
            connection_limit=most + 2 * BURST,
            channel_timeout=_SILENT_SECONDS,
            cleanup_interval=5,
            # select() takes no file descriptor above 1023.
            asyncore_use_poll=True,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(settings.threads)
        self._server = Server(
            auth.with_known_hosts(app, conf),
            self._map,
            _sock=self._socket,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=(self._socket.family, self._socket.type, 0, self._socket.getsockname()),
            bind_socket=False,
        )
        self._server.most_connections = most
        self._thread = threading.Thread(target=self._server.run, name="api", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on, which the kernel chose if 0 was configured."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests being answered, for 5 seconds at most, and close."""
        self._server.task_dispatcher.shutdown(timeout=5)
        if not self._thread.is_alive():
            self._server.close()
            return
        # Sockets are closed in the loop that watches them, which then ends.
        self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._map))
        self._thread.join()


def _affordable(connections: int) -> int:
    """``connections``, or fewer if this process may not have so many open files.

    Each may need a second one, for the body it sends.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            connections = max((soft - _OTHER_FILES) // 2, 10)
            LOG.warning(
                "The API holds %d connections: this process may have %d open files",
                connections,
                soft,
            )
    return connections


def listen(conf: cfg.ConfigOpts) -> socket.socket:
    """A socket that listens on the API's address; raises OSError."""
    host, port = conf[options.API].bind_host, conf[options.API].bind_port
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family, backlog=1024)
