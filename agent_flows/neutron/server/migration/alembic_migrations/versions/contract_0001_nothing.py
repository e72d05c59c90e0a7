"""Nothing to contract yet

``neutron-db-manage upgrade --contract`` asks every branch for its head.

Revision ID: agent_flows_contract_0001
Revises: nothing
"""

revision = "agent_flows_contract_0001"
down_revision = None
branch_labels = ("contract",)


def upgrade() -> None:
    return
