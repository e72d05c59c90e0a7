"""The keys by which hosts sign their calls

Revision ID: 0007
Revises: 0006
"""

from agent_flows.server.core import history_tables

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    history_tables.add_host_keys()
