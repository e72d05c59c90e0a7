"""Ports that need no proof, and ports that Neutron has taken DOWN

Revision ID: agent_flows_expand_0005
Revises: agent_flows_expand_0004
"""

import sqlalchemy as sa
from alembic import op

revision = "agent_flows_expand_0005"
down_revision = "agent_flows_expand_0004"

_TABLE = "agent_flows_ports"


def upgrade() -> None:
    op.add_column(
        _TABLE, sa.Column("ungated", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column(_TABLE, sa.Column("fell_at", sa.BigInteger(), nullable=True))
    op.create_index("ix_agent_flows_ports_ungated", _TABLE, ["ungated"])
