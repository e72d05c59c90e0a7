"""What commands show on a terminal while they are at work, and `agent-flows top`."""

import io
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from agent_flows.cli import progress
from lab.product import PROGRAM
from lab.terminal import Terminal
from tests.unit.cli.stage import HOST, REFUSED, Server

SECONDS = 30
ALTERNATE_SCREEN = "\x1b[?1049h"
FIRST_SCREEN = "\x1b[?1049l"


class Slow(HTTPServer):
    """An API without ports, which answers once it may."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SlowAnswers)
        self.may_answer = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class SlowAnswers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.may_answer.wait(SECONDS)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"ports": []}).encode())

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def slow() -> Iterator[Slow]:
    with Slow() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


def test_a_slow_command_shows_that_it_is_at_work_until_it_is_done(slow: Slow) -> None:
    with Terminal([str(PROGRAM), "--url", slow.url, "port", "list", "-f", "json"]) as terminal:
        terminal.shows("reading", SECONDS)
        slow.may_answer.set()
        assert terminal.ends() == 0
        # The line is erased before the answer is written.
        before, erased, answer = terminal.written.rpartition("\x1b[2K")
        assert "reading" in before
        assert erased
        assert "[]" in answer


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize("columns", [100, 120])
def test_names_of_tasks_and_hosts_are_whole_on_a_terminal(server: Server, columns: int) -> None:
    server.wire(error=REFUSED)
    argv = [str(PROGRAM), "--url", server.url, "task", "list"]
    with Terminal(argv, columns=columns) as terminal:
        assert terminal.ends() == 0
        rows = [line for line in terminal.text.splitlines() if line.startswith("|")]
    assert max(map(len, rows)) <= columns
    header, *_ = rows
    cells = {cell.strip() for row in rows for cell in row.split("|")}
    assert {"locate-interface", "apply-security-groups", "bind-vlan"} <= cells
    assert ("host" in header) is (HOST in cells) is (columns == 120)


def test_to_a_file_a_slow_command_writes_only_its_answer(slow: Slow) -> None:
    argv = [str(PROGRAM), "--url", slow.url, "port", "list", "-f", "json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        with pytest.raises(subprocess.TimeoutExpired):
            ran.wait(3)
        slow.may_answer.set()
        assert ran.communicate(timeout=SECONDS) == ("[]\n", "")


class OnTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_quick_command_shows_nothing_but_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", float(SECONDS))
    stream = OnTerminal()
    with progress.shown(stream, "reading"):
        pass
    assert stream.getvalue() == ""
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_an_error_ends_the_progress(slow: Slow) -> None:
    with Terminal([str(PROGRAM), "--url", slow.url, "port", "show", "web1"]) as terminal:
        terminal.shows("reading", SECONDS)
        slow.may_answer.set()
        assert terminal.ends() == 4
        assert "There is no port with the name web1" in terminal.written.rpartition("\x1b[2K")[2]


def top(server: Server) -> Terminal:
    return Terminal([str(PROGRAM), "--url", server.url, "top", "--interval", "0.5"])


@pytest.mark.usefixtures("cloud")
def test_top_shows_what_changes_until_ctrl_c(server: Server) -> None:
    with top(server) as terminal:
        terminal.shows("1 of 1 agents alive; ports: 1 SYNCING", SECONDS)
        assert ALTERNATE_SCREEN in terminal.written
        server.wire(REFUSED)
        terminal.shows("1 of 1 agents alive; ports: 1 OUT_OF_SYNC", SECONDS)
        terminal.shows(REFUSED.message, SECONDS)
        assert HOST in terminal.text
        server.wire()
        terminal.shows("1 of 1 agents alive; ports: 1 IN_SYNC", SECONDS)
        terminal.type("\x03")
        assert terminal.ends() == 0
        assert terminal.written.rstrip().endswith(("\x1b[?25h", FIRST_SCREEN))
        assert "Traceback" not in terminal.text


@pytest.mark.usefixtures("cloud")
def test_top_keeps_the_last_look_while_the_server_refuses(server: Server) -> None:
    with top(server) as terminal:
        terminal.shows("1 of 1 agents alive", SECONDS)
        server.outage.set()
        terminal.shows("Not read again", SECONDS)
        # The rest of the same screen may be written a moment later.
        terminal.shows(HOST, SECONDS, terminal.text.index("Not read again"))
        server.outage.clear()
        seen = len(terminal.text)
        server.wire()
        terminal.shows("ports: 1 IN_SYNC", SECONDS, seen)


@pytest.mark.usefixtures("cloud")
def test_top_into_a_pipe_prints_once(server: Server) -> None:
    argv = [str(PROGRAM), "--url", server.url, "top"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert ran.stdout.count("agents alive") == 1
    assert "\x1b" not in ran.stdout
    assert HOST in ran.stdout


@pytest.mark.parametrize("interval", ["0", "0.1", "inf", "soon"])
def test_top_refuses_an_interval_that_would_flood_the_server(interval: str) -> None:
    argv = [str(PROGRAM), "top", "--interval", interval]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert ran.returncode == 2
    assert "--interval" in ran.stderr
