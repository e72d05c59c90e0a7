"""Our branch of ``neutron-db-manage``: entry point ``neutron.db.alembic_migrations``."""
