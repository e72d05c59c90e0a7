"""The command itself: its help, and one line for a server that does not answer."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from agent_flows.cli.app import COMMANDS
from tests.unit.cli.stage import Run, Server


@pytest.fixture
def unused() -> Iterator[str]:
    """The URL of a port without a listener."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_without_arguments_it_lists_its_commands(shell: Run) -> None:
    ran = shell()
    assert ran.code == 0
    assert all(command in ran.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(shell: Run, command: str) -> None:
    ran = shell(*command.split(), "--help")
    assert ran.code == 0
    assert f"agent-flows {command}" in ran.out.partition("examples:")[2]


def test_help_lists_the_exit_codes(shell: Run) -> None:
    codes = shell("port", "wait", "--help").out.partition("exit codes:")[2]
    listed = [line.split()[0] for line in codes.strip().splitlines()]
    assert listed == ["0", "1", "2", "3", "4", "130"]


def test_an_unreachable_server_is_one_line_with_the_remedy(shell: Run, unused: str) -> None:
    ran = shell("--url", unused, "port", "list")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert unused in ran.err
    assert "--url" in ran.err


def test_the_url_may_be_set_in_the_environment(
    shell: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_FLOWS_URL", server.url)
    assert shell("port", "list").code == 0


class SomethingElse(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("X-Auth-Token"))  # type: ignore[attr-defined]
        ports = self.path.startswith("/ports")
        self.send_response(404 if self.path.startswith("/away") else 200)
        self.end_headers()
        self.wfile.write(b'{"ports": []}' if ports else b"<html>hello</html>")

    def log_message(self, *args: object) -> None: ...


class Other(HTTPServer):
    """An HTTP server that is not ours; it notes the tokens it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SomethingElse)
        self.tokens: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def other() -> Iterator[Other]:
    with Other() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/hello", "/away"])
def test_another_http_server_is_recognised(shell: Run, other: Other, path: str) -> None:
    ran = shell("--url", f"{other.url}{path}", "port", "list")
    assert ran.code == 1
    assert ran.err.strip().endswith("is this the API of agent_flows?")


def test_with_credentials_a_token_is_sent(shell: Run, other: Other) -> None:
    credentials = ["--os-auth-type", "admin_token", "--os-endpoint", other.url]
    words = [*credentials, "--os-token", "secret", "--url", other.url, "port", "list"]
    assert shell(*words).code == 0
    assert other.tokens == ["secret"]


def test_without_credentials_no_token_is_sent(shell: Run, other: Other) -> None:
    assert shell("--url", other.url, "port", "list").code == 0
    assert other.tokens == [None]


def test_invalid_credentials_are_one_line(
    shell: Run, unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_AUTH_URL", unused)
    monkeypatch.setenv("OS_PASSWORD", "do-not-print-me")
    ran = shell("port", "list")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "do-not-print-me" not in ran.err


def test_a_cloud_without_agents_is_an_empty_list(run: Run) -> None:
    assert run("agent", "list", "-f", "json").json == []
