"""A server on an empty SQLite file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.model import new_id
from lab.server_parts import FakeAgent, Server, running


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'server.sqlite'}"


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    with running(url) as made:
        yield made


@pytest.fixture
def agent(server: Server) -> FakeAgent:
    return FakeAgent(server, "host-a")


@pytest.fixture
def network(server: Server) -> str:
    """A network that exists."""
    network_id = new_id()
    server.put("networks", network_id, network_type="local")
    return network_id


@pytest.fixture
def group(server: Server) -> str:
    """A security group without rules that exists."""
    group_id = new_id()
    server.put("security-groups", group_id, name="web")
    return group_id
