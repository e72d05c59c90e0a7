"""Initial tables

Revision ID: agent_flows_expand_0001
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op

from agent_flows.server.core import history_tables
from agent_flows.server.core.history_tables import moment

revision = "agent_flows_expand_0001"
down_revision = None
branch_labels = ("expand",)


def upgrade() -> None:
    # Character set and collation are the database's, as Neutron's tables have
    # them: ids are compared with and refer to ids of Neutron's.
    history_tables.create(mysql_engine="InnoDB")
    op.create_table(
        "agent_flows_ports",
        sa.Column("port_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("gated", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("unsettled", sa.Boolean(), nullable=False),
        sa.Column("sync_state", sa.String(length=16), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("proven_revision", sa.BigInteger(), nullable=True),
        sa.Column("syncing_since", moment, nullable=True),
        sa.Column("updated_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["port_id"], ["ports.id"], name="fk_agent_flows_ports_port_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("port_id", name="pk_agent_flows_ports"),
        mysql_engine="InnoDB",
    )
    table = "agent_flows_ports"
    op.create_index("ix_agent_flows_ports_host_sync_state", table, ["host", "sync_state"])
    op.create_index(
        "ix_agent_flows_ports_sync_state_syncing_since", table, ["sync_state", "syncing_since"]
    )
    op.create_index("ix_agent_flows_ports_unsettled", table, ["unsettled"])
