"""Runs migrations on the connection that :mod:`agent_flows.server.standalone.schema` hands over."""

from alembic import context

from agent_flows.server.core import models as core
from agent_flows.server.standalone import models

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=[core.Base.metadata, models.Base.metadata],
    # SQLite changes a table by copying it.
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
