"""The keys by which hosts sign their calls

Revision ID: agent_flows_expand_0006
Revises: agent_flows_expand_0005
"""

from agent_flows.server.core import history_tables

revision = "agent_flows_expand_0006"
down_revision = "agent_flows_expand_0005"


def upgrade() -> None:
    history_tables.add_host_keys()
