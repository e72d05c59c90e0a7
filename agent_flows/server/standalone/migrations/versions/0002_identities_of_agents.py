"""Identities of agents

Revision ID: 0002
Revises: 0001
"""

from agent_flows.server.core import history_tables

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    history_tables.add_identities()
