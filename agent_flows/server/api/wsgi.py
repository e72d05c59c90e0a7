"""The production WSGI server: waitress, in threads of its own."""

import socket
import threading
from typing import Any

import waitress
from oslo_config import cfg
from waitress import wasyncore

from agent_flows import conf as options
from agent_flows.server.auth import Wsgi

# A body that is too large is to be refused in the API's own words, which takes
# receiving it; waitress keeps what is above 512 KiB in a file. Beyond this it
# is cut off.
_TAKEN_TO_BE_REFUSED = 64 * 1024 * 1024


class WsgiServer:
    """Listens at once, or raises OSError; answers from ``start`` to ``stop``."""

    def __init__(self, app: Wsgi, conf: cfg.ConfigOpts) -> None:
        settings = conf[options.API]
        # Bound before waitress starts its threads, which it leaves if it cannot bind.
        self._socket = _listen(settings.bind_host, settings.bind_port)
        self._map: dict[int, Any] = {}
        self._server = waitress.create_server(
            app,
            map=self._map,
            sockets=[self._socket],
            threads=settings.threads,
            max_request_body_size=max(_TAKEN_TO_BE_REFUSED, settings.max_body_bytes + 1),
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
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
        trigger = next(each for each in self._map.values() if hasattr(each, "pull_trigger"))
        trigger.pull_trigger(lambda: wasyncore.close_all(self._map))
        self._thread.join()


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family)
