"""Desired state that agents have

Revision ID: 0003
Revises: 0002
"""

from agent_flows.server.core import history_tables

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    history_tables.add_desired()
