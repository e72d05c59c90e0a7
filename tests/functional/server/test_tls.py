"""Databases that take clients by TLS, and certificates that our configuration does not trust."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from agent_flows.server.core.database import UNREACHABLE, Database
from lab.certificates import Authority
from lab.databases import DatabaseServer, MariaDB, PostgreSQL
from lab.server_parts import FakeAgent, configuration, running

MakeUrl = Callable[[Path], str]
_ENCRYPTED = {
    "postgresql": "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SHOW SESSION STATUS LIKE 'Ssl_version'",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module", params=[PostgreSQL, MariaDB])
def database(request: pytest.FixtureRequest, authority: Authority) -> Iterator[DatabaseServer]:
    with request.param(authority) as made:
        yield made


@pytest.fixture
def url(database: PostgreSQL | MariaDB) -> MakeUrl:
    """The URL of an empty database by TLS, for those who trust an authority's file."""
    name = sa.make_url(database.new_url()).database
    if isinstance(database, PostgreSQL):
        start = f"postgresql+psycopg2://postgres@localhost:{database.port}/{name}"
        return lambda ca: f"{start}?sslmode=verify-full&sslrootcert={ca}"
    start = f"mysql+pymysql://root@127.0.0.1:{database.port}/{name}"
    return lambda ca: f"{start}?ssl_ca={ca}"


def test_the_server_works_over_tls(url: MakeUrl, authority: Authority) -> None:
    with running(url(authority.ca)) as server:
        agent = FakeAgent(server, "host-a")
        assert agent.beat(ports=3).counted
        assert server.show("agents", "host-a")["state"]["ports"] == 3
        with server.database.reader() as session:
            query = _ENCRYPTED[server.database.engine.dialect.name]
            assert "TLSv1." in str(session.execute(sa.text(query)).all())


def test_a_database_with_another_authoritys_certificate_is_refused(
    url: MakeUrl, other_authority: Authority
) -> None:
    conf = configuration(url(other_authority.ca))
    conf.set_override("max_retries", 0, "database")
    with pytest.raises(UNREACHABLE, match="certificate verify failed"):
        Database(conf)
