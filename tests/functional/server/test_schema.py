"""Migrations on every database, and what an administrator sees."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from agent_flows.server.core import models as core
from agent_flows.server.core.database import Database
from agent_flows.server.standalone import models, schema
from lab.server_parts import configuration

BIN = Path(sys.executable).parent


@pytest.fixture
def config_file(url: str, tmp_path: Path) -> str:
    made = tmp_path / "agent_flows.conf"
    made.write_text(
        "[DEFAULT]\ntransport_url = kombu+memory://\n"
        f"[database]\nconnection = {url}\nmax_retries = 1\nretry_interval = 1\n"
        "[agent_flows_api]\nbind_port = 0\n"
    )
    return str(made)


def manage(config_file: str, action: str) -> subprocess.CompletedProcess[str]:
    argv = [BIN / "agent-flows-manage", "--config-file", config_file, "db", action]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_the_migrations_make_the_tables_of_the_models(url: str) -> None:
    database = Database(configuration(url))
    try:
        schema.upgrade(database)
        with database.connection() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            tables = [core.Base.metadata, models.Base.metadata]
            assert compare_metadata(context, tables) == []
    finally:
        database.close()


def test_the_administrator_upgrades_and_sees_the_version(config_file: str) -> None:
    assert manage(config_file, "current").stdout == f"none (newest: {schema.head()})\n"
    assert manage(config_file, "upgrade").stdout == f"{schema.head()}\n"
    assert manage(config_file, "upgrade").returncode == 0
    assert manage(config_file, "current").stdout == f"{schema.head()}\n"


def test_only_the_embedded_database_is_upgraded_by_itself(url: str) -> None:
    database = Database(configuration(url))
    try:
        if database.is_sqlite:
            schema.ensure(database)
            assert schema.current(database) == schema.head()
        else:
            with pytest.raises(schema.Outdated, match="agent-flows-manage db upgrade"):
                schema.ensure(database)
            assert schema.current(database) is None
    finally:
        database.close()


def test_a_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    made = tmp_path / "agent_flows.conf"
    made.write_text(
        "[database]\nconnection = postgresql+psycopg2://u:secret@/x?host=/nowhere\n"
        "max_retries = 1\nretry_interval = 0\n"
    )
    done = manage(str(made), "current")
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("agent-flows-manage:")]
    assert "/nowhere" in line
    assert "secret" not in done.stderr
