"""Nova, as far as Neutron sends it events: a small server in place of Nova's API.

It takes ``POST /os-server-external-events`` (Nova's API reference, "Create
external events") and keeps what it was sent. Nova waits for these events when
it boots a machine and when it moves one.
"""

import http.server
import json
import threading
import time
from dataclasses import dataclass
from typing import Any

from lab.lifetime import Lifetime
from lab.namespace import Namespace

PLUGGED = "network-vif-plugged"
UNPLUGGED = "network-vif-unplugged"
DELETED = "network-vif-deleted"

NOVA_PORT = 8774
_PATH = "/v2.1/os-server-external-events"


@dataclass(frozen=True)
class Event:
    """``at`` is this process' monotonic clock, in seconds, when the event arrived
    (``time.monotonic``, and on Linux ``time.perf_counter``: the same clock)."""

    name: str
    port_id: str
    machine: str
    at: float


class Nova(Lifetime):
    """Listens in ``namespace`` on :data:`NOVA_PORT`, and answers that every event is done."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__()
        self._namespace = namespace
        self._events: list[Event] = []

    def _start(self) -> None:
        with self._namespace.entered():
            server = _Server(("127.0.0.1", NOVA_PORT), _Handler)
        server.daemon_threads = True
        server.events = self._events
        self._stack.callback(server.server_close)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)

    def events(self, port_id: str) -> list[Event]:
        """Those of the port so far, oldest first."""
        return [event for event in list(self._events) if event.port_id == port_id]

    def all(self, name: str) -> list[Event]:
        """Those of this name so far, of every port, oldest first."""
        return [event for event in list(self._events) if event.name == name]

    def names(self, port_id: str) -> list[str]:
        """Those about the interface: :data:`PLUGGED`, :data:`UNPLUGGED`, :data:`DELETED`.

        The others (``network-changed``) follow requests to the API.
        """
        about = (PLUGGED, UNPLUGGED, DELETED)
        return [event.name for event in self.events(port_id) if event.name in about]


class _Server(http.server.ThreadingHTTPServer):
    events: list[Event]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        now = time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != _PATH:
            self._answer(404, {"itemNotFound": {"code": 404, "message": self.path}})
            return
        events: list[dict[str, Any]] = json.loads(body)["events"]
        self.server.events += [
            Event(event["name"], event["tag"], event["server_uuid"], now) for event in events
        ]
        done = [{**event, "status": "completed", "code": 200} for event in events]
        self._answer(200, {"events": done})

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests read the events."""
