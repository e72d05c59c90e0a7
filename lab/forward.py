"""A port of this machine that leads into a namespace, for a browser outside of it."""

import contextlib
import socket
import socketserver
import threading

from lab.lifetime import Lifetime
from lab.namespace import Namespace

_CONNECT_SECONDS = 10.0
_LOOPBACK = "127.0.0.1"


class Forward(Lifetime):
    """Connections to a free port of loopback reach ``port`` of loopback inside ``namespace``."""

    def __init__(self, namespace: Namespace, port: int) -> None:
        super().__init__()
        self._namespace = namespace
        self._inside = (_LOOPBACK, port)
        self.port = 0

    def _start(self) -> None:
        forward = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with forward._namespace.entered():
                    inside = socket.create_connection(forward._inside, _CONNECT_SECONDS)
                inside.settimeout(None)
                with inside:
                    answers = threading.Thread(
                        target=_copy, args=(inside, self.request), daemon=True
                    )
                    answers.start()
                    _copy(self.request, inside)
                    answers.join()

        server = socketserver.ThreadingTCPServer((_LOOPBACK, 0), Handler)
        server.daemon_threads = True
        self._stack.callback(server.server_close)
        self.port = int(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._stack.callback(server.shutdown)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until ``source`` ends; either side may break off."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
