"""Alembic's migrations; run by :mod:`agent_flows.server.standalone.schema`."""
