"""Servers on SQLite, PostgreSQL and MariaDB: every test runs on each."""

import datetime
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_flows.server.core import clock
from lab.databases import DatabaseServer, MariaDB, PostgreSQL, SQLite
from lab.model import new_id
from lab.server_parts import FakeAgent, Server, running

Manage = Callable[..., subprocess.CompletedProcess[str]]
MANAGE = Path(sys.executable).parent / "agent-flows-manage"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DatabaseServer]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[DatabaseServer]:
    with MariaDB() as server:
        yield server


@pytest.fixture
def sqlite(tmp_path: Path) -> DatabaseServer:
    return SQLite(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    made: DatabaseServer = request.getfixturevalue(request.param)
    return made.new_url()


@pytest.fixture
def another(url: str) -> Iterator[Callable[..., Server]]:
    """Makes servers on the same database; the arguments are those of :class:`Server`."""
    with ExitStack() as stack:
        yield lambda **kwargs: stack.enter_context(running(url, **kwargs))


@pytest.fixture
def server(another: Callable[..., Server]) -> Server:
    return another()


@pytest.fixture
def agent(server: Server) -> FakeAgent:
    return FakeAgent(server, "host-a")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass; the clock may also be set back."""
    began, passed = clock.now(), [0.0]

    def pass_by(seconds: float) -> None:
        passed[0] += seconds
        moment = began + datetime.timedelta(seconds=passed[0])
        monkeypatch.setattr(clock, "now", lambda: moment)

    pass_by(0)
    return pass_by


@pytest.fixture
def group(server: Server) -> str:
    """A security group whose members reach each other."""
    group_id = new_id()
    server.put("security-groups", group_id)
    rules = [{"direction": "ingress", "remote_group_id": group_id}]
    server.put("security-groups", group_id, security_group_rules=rules)
    return group_id


@pytest.fixture
def make_port(server: Server, group: str) -> Callable[..., str]:
    """Makes ports in ``group``, bound to host-a by default."""
    network = new_id()
    server.put("networks", network, network_type="local")
    made: list[str] = []

    def make(on: Server = server, **fields: Any) -> str:
        port_id = new_id()
        made.append(port_id)
        high, low = divmod(len(made), 250)
        body = {
            "network_id": network,
            "mac_address": f"fa:16:3e:00:{high:02x}:{low:02x}",
            "fixed_ips": [{"ip_address": f"10.0.{high}.{low + 1}"}],
            "security_groups": [group],
            "binding:host_id": "host-a",
            **fields,
        }
        on.put("ports", port_id, **body)
        return port_id

    return make


@pytest.fixture
def manage(url: str, tmp_path: Path) -> Manage:
    """Runs agent-flows-manage on the database."""
    made = tmp_path / "agent_flows.conf"
    made.write_text(f"[database]\nconnection = {url}\nmax_retries = 1\nretry_interval = 1\n")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [MANAGE, "--config-file", str(made), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    return run
