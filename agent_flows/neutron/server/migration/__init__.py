"""Our branch of ``neutron-db-manage``: entry point ``neutron.db.alembic_migrations``."""

VERSION_TABLE = "alembic_version_agent_flows"
"""Where alembic keeps the versions of our branch."""
