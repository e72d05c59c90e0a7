"""Times for which gating is off

Revision ID: agent_flows_expand_0004
Revises: agent_flows_expand_0003
"""

from agent_flows.server.core import history_tables

revision = "agent_flows_expand_0004"
down_revision = "agent_flows_expand_0003"


def upgrade() -> None:
    history_tables.add_gating_suspensions(mysql_engine="InnoDB")
