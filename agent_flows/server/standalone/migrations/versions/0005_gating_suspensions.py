"""Times for which gating is off

Revision ID: 0005
Revises: 0004
"""

from typing import Any

from agent_flows.server.core import history_tables

revision = "0005"
down_revision = "0004"

options: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    history_tables.add_gating_suspensions(**options)
