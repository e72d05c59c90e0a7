"""Since when a host's reports of a security group have failed

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

from agent_flows.server.core.history_tables import moment

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("security_group_hosts", sa.Column("outcome_since", moment, nullable=True))
