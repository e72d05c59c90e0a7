"""A port of this machine that leads into a namespace."""

import socket
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lab.forward import Forward
from lab.namespace import Namespace


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_requests_from_outside_are_answered_from_inside_until_it_ends() -> None:
    with Namespace("fwd") as namespace:
        with namespace.entered():
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Forward(namespace, server.server_address[1]) as forward:
            for path in ("/", "/page/ports"):
                address = f"http://127.0.0.1:{forward.port}{path}"
                with urllib.request.urlopen(address, timeout=30) as answer:
                    assert answer.read() == path.encode()
        with pytest.raises(OSError):  # noqa: PT011  refused or reset
            socket.create_connection(("127.0.0.1", forward.port), timeout=30)
        server.shutdown()
        server.server_close()
