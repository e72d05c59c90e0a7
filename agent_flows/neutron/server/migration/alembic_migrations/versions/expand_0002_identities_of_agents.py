"""Identities of agents

Revision ID: agent_flows_expand_0002
Revises: agent_flows_expand_0001
"""

from agent_flows.server.core import history_tables

revision = "agent_flows_expand_0002"
down_revision = "agent_flows_expand_0001"


def upgrade() -> None:
    history_tables.add_identities()
