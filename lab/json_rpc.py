"""One call of a JSON-RPC 1.0 server on a Unix socket, as Open vSwitch's and OVN's daemons are."""

import contextlib
import json
import socket
from collections.abc import Sequence
from pathlib import Path

_ANSWER_SECONDS = 30


class Failed(Exception):
    """The server answered with an error; the text is that."""


def call(path: Path, method: str, params: Sequence[object]) -> object:
    """The result. Raises :class:`Failed`, OSError, or ValueError for half an answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_ANSWER_SECONDS)
        sock.connect(str(path))
        sock.sendall(json.dumps({"id": 0, "method": method, "params": params}).encode())
        text = b""
        # The daemon leaves the connection open: only the text tells where the answer ends.
        while data := sock.recv(1 << 20):
            text += data
            if data.endswith(b"}"):
                with contextlib.suppress(json.JSONDecodeError):
                    answer = json.loads(text)
                    if answer["error"] is not None:
                        raise Failed(str(answer["error"]))
                    return answer["result"]
    raise ValueError("the daemon hung up")
