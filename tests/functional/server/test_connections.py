"""No client takes the API from the others, however many connections it opens and holds."""

import contextlib
import json
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication

import pytest
import requests

from agent_flows import conf as options
from agent_flows.server.standalone.api.wsgi import WsgiServer
from lab.server_parts import configuration

MOST = 100
LONGEST = 20  # seconds until a test gives up


def answer(environ: dict[str, object], start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    return [b"yes"]


@contextlib.contextmanager
def serving(application: WSGIApplication = answer, **settings: object) -> Iterator[int]:
    conf = configuration("sqlite://")
    values = {"bind_port": 0, "max_connections": MOST, "threads": 2, **settings}
    for name, value in values.items():
        conf.set_override(name, value, options.API)
    server = WsgiServer(application, conf)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


@pytest.fixture
def files() -> Iterator[None]:
    """This process may hold the client's end of all connections, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def held(port: int, number: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(number):
            made = socket.create_connection(("127.0.0.1", port), timeout=LONGEST)
            connections.append(stack.enter_context(made))
            if sent:
                made.sendall(sent)
        yield connections


HALF_A_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
HALF_A_BODY = b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n{"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("number", [MOST + 10, 5 * MOST, 2000])
@pytest.mark.parametrize("sent", [b"", HALF_A_REQUEST, HALF_A_BODY], ids=["idle", "half", "body"])
def test_connections_that_send_nothing_or_half_keep_no_client_out(number: int, sent: bytes) -> None:
    with serving() as port, held(port, number, sent):
        for _ in range(3):
            assert requests.get(f"http://127.0.0.1:{port}/", timeout=LONGEST).text == "yes"


@pytest.mark.usefixtures("files")
def test_a_byte_now_and_then_keeps_no_connection_young() -> None:
    with serving() as port, held(port, 2 * MOST, HALF_A_BODY) as connections:
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.05):
                for connection in connections:
                    with contextlib.suppress(OSError):
                        connection.send(b"x")

        trickling = threading.Thread(target=trickle)
        trickling.start()
        try:
            for _ in range(5):
                assert requests.get(f"http://127.0.0.1:{port}/", timeout=LONGEST).text == "yes"
        finally:
            stop.set()
            trickling.join()


@pytest.mark.usefixtures("files")
def test_a_request_in_work_is_answered_while_others_connect() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(environ: dict[str, object], start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            inside.set()
            go_on.wait(LONGEST)
        return answer(environ, start_response)

    found: list[str] = []
    with serving(slow, threads=8) as port:
        url = f"http://127.0.0.1:{port}"
        asking = threading.Thread(
            target=lambda: found.append(requests.get(f"{url}/slow", timeout=LONGEST).text)
        )
        asking.start()
        try:
            assert inside.wait(LONGEST)
            with held(port, 3 * MOST):
                assert requests.get(f"{url}/", timeout=LONGEST).text == "yes"
                go_on.set()
                asking.join(LONGEST)
            assert found == ["yes"]
        finally:
            go_on.set()


def test_a_body_that_is_too_large_is_read_and_thrown_away() -> None:
    """Its refusal is read; nothing of it is kept, in memory or in a file."""
    size = 40 * 1024 * 1024
    with serving(max_body_bytes=1024 * 1024) as port:
        before = files_kept()
        with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as one:
            one.sendall(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // 65536 - 1):
                one.sendall(b"x" * 65536)
            assert files_kept() == before
            one.sendall(b"x" * 65536)
            status, message = refusal(one)
        assert status == 413
        assert message == "a body has at most 1048576 bytes"
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=LONGEST).text == "yes"


def test_a_client_that_asks_before_sending_a_body_that_is_too_large_is_refused_at_once() -> None:
    with (
        serving(max_body_bytes=1024) as port,
        socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as one,
    ):
        one.sendall(
            b"PUT / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: 4096\r\n\r\n"
        )
        assert refusal(one) == (413, "a body has at most 1024 bytes")


def refusal(connection: socket.socket) -> tuple[int, str]:
    """Status and message of an answer after which the connection is closed."""
    raw = b""
    while data := connection.recv(65536):
        raw += data
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["message"]


def files_kept() -> int:
    """How many deleted files this process holds open, which is how waitress keeps a body."""
    kept = [each for each in Path("/proc/self/fd").iterdir() if " (deleted)" in target(each)]
    return len(kept)


def target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
