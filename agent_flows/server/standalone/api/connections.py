"""How waitress holds connections and bodies, so that one client cannot block the API for others.

waitress receives every request in one thread before a worker sees it, so an
idle or slow connection costs only a file descriptor. Two things are changed
here: waitress stops accepting when its limit is reached, and it answers a body
that is too large before it is read, so that a client still sending never sees
the answer.
"""

import json

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import RequestEntityTooLarge

# Accepted in one round of the loop, beyond the limit and before the oldest are closed.
BURST = 64
# A refused body is read to its end and discarded, so that the client reads the
# refusal; beyond this the connection is cut.
_DISCARDED = 64 * 1024 * 1024


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Accepts always: beyond ``most_connections`` the oldest that has no request is closed."""

    most_connections: int

    def handle_accept(self) -> None:
        for _ in range(BURST):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:
                break
        self._close_oldest(len(self.active_channels) - self.most_connections)

    def _close_oldest(self, surplus: int) -> None:
        if surplus <= 0:
            return
        # By age, not by the last byte: a client could send one now and then.
        waiting = [each for each in self.active_channels.values() if not each.requests]
        # One that is still being answered is closed only if there is no other.
        waiting.sort(key=lambda channel: bool(channel.total_outbufs_len))
        for channel in waiting[:surplus]:
            channel.will_close = True


class _Nowhere:
    """Discards what is received."""

    def append(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def __len__(self) -> int:
        return 0


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Reads a body that is too large to its end without keeping it."""

    completed: bool
    expect_continue: bool
    _discarded: int | None = None

    def received(self, data: bytes) -> int:
        if self._discarded is None:
            taken: int = super().received(data)
            too_large = self.completed and isinstance(self.error, RequestEntityTooLarge)
            # A client that sent Expect: 100-continue sends no body after the refusal.
            if too_large and not self.expect_continue:
                self._discarded = 0
                self.completed = False
                self.body_rcv.getbuf().close()
                self.body_rcv.buf = _Nowhere()
            elif too_large:
                self.expect_continue = False
            return taken
        taken = self.body_rcv.received(data)
        self._discarded += taken
        ended = self.body_rcv.completed or self.body_rcv.error
        self.completed = bool(ended) or self._discarded >= _DISCARDED
        return taken


class _Refusal(ErrorTask):  # type: ignore[misc]
    """What waitress itself refuses, in the form of the API's errors."""

    def execute(self) -> None:
        error = self.request.error
        message = str(error.body)
        kind = "".join(word.capitalize() for word in str(error.reason).split())
        if isinstance(error, RequestEntityTooLarge):
            kind, most = "TooLarge", self.channel.adj.max_request_body_size - 1
            message = f"a body has at most {most} bytes"
        body = json.dumps({"error": {"type": kind, "message": message, "field": None}}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]
    parser_class = _Parser
    error_task_class = _Refusal


Server.channel_class = Channel
