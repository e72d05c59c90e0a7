"""Runs our migrations for ``neutron-db-manage``, which keeps a version of its own for them."""

from alembic import context
from neutron.db.migration.connection import DBConnection

from agent_flows.neutron.server.migration import VERSION_TABLE, tables

config = context.config
# neutron-db-manage hands its configuration over here.
database = vars(config)["neutron_config"].database


def run() -> None:
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(
        url=database.connection or None,
        dialect_name=None if database.connection else database.engine,
        version_table=VERSION_TABLE,
    )
    run()
else:
    with DBConnection(database.connection, config.attributes.get("connection")) as connection:
        context.configure(
            connection=connection,
            target_metadata=tables.METADATA,
            include_object=tables.is_ours,
            version_table=VERSION_TABLE,
            compare_type=True,
        )
        run()
