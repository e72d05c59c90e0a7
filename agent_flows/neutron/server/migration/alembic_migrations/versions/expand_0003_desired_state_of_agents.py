"""Desired state that agents have

Revision ID: agent_flows_expand_0003
Revises: agent_flows_expand_0002
"""

from agent_flows.server.core import history_tables

revision = "agent_flows_expand_0003"
down_revision = "agent_flows_expand_0002"


def upgrade() -> None:
    history_tables.add_desired()
