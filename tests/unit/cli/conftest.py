"""The real API on a real database, and commands run against it as from a shell."""

import json
import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from agent_flows.cli import app
from lab import server_parts
from tests.unit.cli.stage import CLOUD, HOST, Quiet, Ran, Run, Server


def failing(app: WSGIApplication, outage: threading.Event) -> WSGIApplication:
    """``app``, which refuses every request while ``outage`` is set."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not outage.is_set():
            return app(environ, start_response)
        start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b""]

    return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    url, outage = f"sqlite:///{tmp_path}/server.sqlite", threading.Event()
    with (
        server_parts.running(url, api={"max_limit": 10}) as parts,
        make_server("127.0.0.1", 0, failing(parts.rest.app, outage), handler_class=Quiet) as web,
    ):
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Server(f"http://127.0.0.1:{web.server_port}", parts, outage)
        web.shutdown()
        thread.join()


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs ``agent-flows`` with these words."""
    for name in ("AGENT_FLOWS_URL", "OS_AUTH_URL", "OS_AUTH_TYPE"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()

    def run(*words: str) -> Ran:
        handlers, level = list(root.handlers), root.level
        try:
            code = app.main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        seen = capsys.readouterr()
        return Ran(code, seen.out, seen.err)

    return run


@pytest.fixture
def run(shell: Run, server: Server) -> Run:
    return lambda *words: shell("--url", server.url, *words)


@pytest.fixture
def cloud(run: Run, server: Server, tmp_path: Path) -> None:
    """One network, one group, one port on HOST, whose agent is alive."""
    server.store.take_heartbeat(HOST, {})
    file = tmp_path / "cloud.json"
    file.write_text(json.dumps(CLOUD))
    assert run("apply", str(file)).code == 0
