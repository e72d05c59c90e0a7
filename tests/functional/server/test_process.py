"""agent-flows-server as it runs: one process, REST through a real HTTP server."""

import http.client
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.process import free_port, wait_until

PROGRAM = Path(sys.executable).parent / "agent-flows-server"
SECONDS = 30
MEMORY = "kombu+memory://"
HEALTHY = (200, {"status": "ok", "failures": {}})
BUS_AWAY = (503, {"status": "failing", "failures": {"bus": "not connected yet"}})


def config_file(directory: Path, port: int, bus: str = MEMORY, **api: object) -> Path:
    made = directory / "agent_flows.conf"
    lines = [f"{name} = {value}" for name, value in {"bind_port": port, **api}.items()]
    made.write_text(
        f"[DEFAULT]\ntransport_url = {bus}\n"
        f"[database]\nconnection = sqlite:///{directory / 'new' / 'server.sqlite'}\n"
        "[agent_flows_api]\n" + "\n".join(lines) + "\n"
    )
    return made


def request(
    port: int, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


@contextmanager
def serving(
    directory: Path,
    bus: str = MEMORY,
    health: tuple[int, object] = HEALTHY,
    **api: object,
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """It runs until the block ends; it has this health when the block begins."""
    port = free_port()
    config = config_file(directory, port, bus, **api)
    with subprocess.Popen(
        [PROGRAM, "--config-file", config], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(lambda: has(health, process, port), SECONDS, "it answers")
            yield process, port
        finally:
            process.kill()


def has(health: tuple[int, object], process: "subprocess.Popen[str]", port: int) -> bool:
    assert process.poll() is None, process.stderr and process.stderr.read()
    try:
        return request(port, "GET", "/healthz") == health
    except OSError:
        return False


def test_it_makes_its_database_serves_and_ends_when_asked(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, port):
        network = str(uuid.uuid4())
        body = json.dumps({"network": {"network_type": "local"}})
        assert request(port, "PUT", f"/networks/{network}", body)[0] == 201
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        idle.request("GET", "/networks")
        assert json.loads(idle.getresponse().read())["networks"][0]["id"] == network
        process.terminate()  # though somebody keeps a connection open
        assert process.wait(SECONDS) == 0
        idle.close()
    with serving(tmp_path) as (_, port):
        assert request(port, "GET", f"/networks/{network}")[0] == 200


def test_without_a_message_bus_it_answers_and_ends_when_asked(tmp_path: Path) -> None:
    nobody = f"rabbit://guest:guest@127.0.0.1:{free_port()}//"
    with serving(tmp_path, nobody, BUS_AWAY) as (process, port):
        assert request(port, "GET", "/ports") == (200, {"ports": []})
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, port):
        made = [str(uuid.uuid4()) for _ in range(20)]
        for network in made:
            body = json.dumps({"network": {"network_type": "local"}})
            assert request(port, "PUT", f"/networks/{network}", body)[0] == 201
        os.kill(process.pid, signal.SIGKILL)
    with serving(tmp_path) as (_, port):
        _, answer = request(port, "GET", "/networks")
        assert {network["id"] for network in answer["networks"]} == set(made)


def test_a_10_mib_body_is_refused_in_words_however_it_is_sent(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, port):
        raw = b'{"network": {"name": "' + b"x" * 10 * 1024 * 1024 + b'"}}'
        path = f"/networks/{uuid.uuid4()}"
        for body in (raw, iter([raw[:70_000], raw[70_000:]])):
            status, answer = request(port, "PUT", path, body)
            assert status == 413
            assert "4194304 bytes" in answer["error"]["message"]
        assert request(port, "GET", "/networks") == (200, {"networks": []})
        assert process.poll() is None


def test_it_refuses_to_be_open_to_the_network(tmp_path: Path) -> None:
    config = config_file(tmp_path, 0, bind_host="0.0.0.0")
    done = subprocess.run(
        [PROGRAM, "--config-file", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("agent-flows-server:")]
    assert "auth_strategy = keystone" in line
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, port):
        done = subprocess.run(
            [PROGRAM, "--config-file", config_file(tmp_path, port)],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 1
        assert "Address already in use" in done.stderr
        assert "Traceback" not in done.stderr
