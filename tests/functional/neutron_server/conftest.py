"""Neutron on MariaDB, one process for all tests."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.databases import MariaDB
from tests.functional.neutron_server.stage import Body, Gating, Host, Neutron, configuration

_MIGRATION_SECONDS = 300
_changes_of_gating = itertools.count(1)
_MANAGE = Path(sys.executable).parent / "agent-flows-manage"


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a Neutron whose MariaDB went through all migrations, ours included."""
    place = tmp_path_factory.mktemp("neutron-mariadb")
    made = configuration(place, f"{mariadb.new_url()}&charset=utf8")
    argv = [Path(sys.executable).parent / "neutron-db-manage", "--config-file", made]
    ran = subprocess.run(
        [*argv, "upgrade", "heads"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_MIGRATION_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    return made


@pytest.fixture(scope="session")
def process(migrated: Path) -> Iterator[Neutron]:
    with Neutron(migrated) as neutron:
        yield neutron


@pytest.fixture
def neutron(process: Neutron) -> Iterator[Neutron]:
    process.do("casts")
    process.do("nova")
    yield process
    process.do("later", seconds=0)
    process.do("choose", group="agent_flows_server", name="on_refresh_failure", value="down")


@pytest.fixture
def ours(neutron: Neutron) -> Host:
    """A host whose agent has our extension."""
    return Host(neutron, "agent_flows", "qos")


@pytest.fixture
def plain(neutron: Neutron) -> Host:
    return Host(neutron, "qos")


@pytest.fixture(scope="session")
def network(process: Neutron) -> str:
    made: str = process.create("networks", name="net")["id"]
    process.create("subnets", network_id=made, ip_version=4, cidr="10.0.0.0/16")
    return made


@pytest.fixture
def make_port(neutron: Neutron, network: str) -> Callable[..., Body]:
    def make(host: Host | None = None, **fields: Any) -> Body:
        if host is not None:
            fields["binding:host_id"] = host.name
        fields.setdefault("device_owner", "compute:nova")
        return neutron.create("ports", network_id=network, **fields)

    return make


@pytest.fixture
def active(neutron: Neutron, ours: Host, make_port: Callable[..., Body]) -> str:
    """A port that is wired, and proven to be."""
    port: str = make_port(ours)["id"]
    ours.plug(port)
    ours.reports(port)
    assert neutron.state(port) == ("ACTIVE", "IN_SYNC")
    return port


@pytest.fixture
def gating(migrated: Path, neutron: Neutron) -> Iterator[Gating]:
    """Turns it off or on by the command; Neutron sees it, and sweeps."""

    def run(*words: str) -> None:
        argv = [_MANAGE, "--config-file", str(migrated), "gating", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        # Neutron reads it again when what it read is 2 s old; in an earlier test, too.
        neutron.do("later", seconds=3 * next(_changes_of_gating))
        neutron.do("sweep")
        neutron.do("settle")

    yield run
    subprocess.run([_MANAGE, "--config-file", str(migrated), "gating", "on"], check=False)
