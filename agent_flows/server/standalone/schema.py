"""The schema's version: bringing it up to date, or saying that it is not."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from agent_flows.server.core.database import Database

_SCRIPTS = Path(__file__).parent / "migrations"


class Outdated(Exception):
    """The database's schema is not the one this program works with."""


def head() -> str:
    """The newest version there is."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    if newest is None:
        raise RuntimeError(f"no migrations in {_SCRIPTS}")
    return newest


def current(database: Database) -> str | None:
    """The version the database has, None for an empty one."""
    with database.connection() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database) -> None:
    """Bring the schema to :func:`head`. On SQLite at once or not at all."""
    with database.connection() as connection:
        command.upgrade(_config(connection), "head")


def ensure(database: Database) -> None:
    """Before serving: the embedded database is upgraded, any other has to be up to date.

    Raises :class:`Outdated` with the command that helps.
    """
    found, wanted = current(database), head()
    if found == wanted:
        return
    if not database.is_sqlite:
        raise Outdated(
            f"the database's schema is at version {found or 'none'}, not {wanted}; "
            "run: agent-flows-manage db upgrade"
        )
    upgrade(database)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    if connection is not None:
        config.attributes["connection"] = connection
    return config
