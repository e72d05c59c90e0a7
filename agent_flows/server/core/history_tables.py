"""The tables of agents, of gating and of the history: their first form and their changes.

The migrations of the own database and of Neutron's both begin with them.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

# The output of a tool may be in any script; the database's character set may not.
_UNICODE: dict[str, Any] = {"charset": "utf8mb4", "collation": "utf8mb4_bin"}
text = sa.Text().with_variant(mysql.TEXT(**_UNICODE), "mysql", "mariadb")
long_text = sa.Text().with_variant(mysql.MEDIUMTEXT(**_UNICODE), "mysql", "mariadb")


def create(**options: Any) -> None:
    """Create them with ``options`` for each table."""
    op.create_table(
        "agent_flows_agents",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", moment, nullable=False),
        sa.Column("declared_dead", sa.Boolean(), nullable=False),
        sa.Column("state", long_text, nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_agent_flows_agents")),
        **options,
    )
    op.create_index(
        op.f("ix_agent_flows_agents_heartbeat_at"), "agent_flows_agents", ["heartbeat_at"]
    )

    op.create_table(
        "agent_flows_attempts",
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("resource_type", sa.String(length=16), nullable=False),
        sa.Column("resource_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("flow", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("finished_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("ordinal", name=op.f("pk_agent_flows_attempts")),
        sa.UniqueConstraint("id", name=op.f("uq_agent_flows_attempts_id")),
        **options,
    )
    op.create_index(
        op.f("ix_agent_flows_attempts_host_ordinal"), "agent_flows_attempts", ["host", "ordinal"]
    )
    op.create_index(
        op.f("ix_agent_flows_attempts_resource_id_ordinal"),
        "agent_flows_attempts",
        ["resource_id", "ordinal"],
    )

    op.create_table(
        "agent_flows_tasks",
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("task_state", sa.String(length=16), nullable=False),
        sa.Column("started_at", moment, nullable=True),
        sa.Column("duration", sa.Double(), nullable=True),
        sa.Column("error_type", sa.String(length=64), nullable=True),
        sa.Column("error_message", text, nullable=True),
        sa.Column("error_detail", long_text, nullable=True),
        sa.ForeignKeyConstraint(
            ["ordinal"],
            ["agent_flows_attempts.ordinal"],
            name=op.f("fk_agent_flows_tasks_ordinal"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("ordinal", "position", name=op.f("pk_agent_flows_tasks")),
        **options,
    )
    op.create_index(
        op.f("ix_agent_flows_tasks_task_state_ordinal"),
        "agent_flows_tasks",
        ["task_state", "ordinal"],
    )

    op.create_table(
        "agent_flows_deleted_ports",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("revision_number", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_flows_deleted_ports")),
        **options,
    )
    op.create_index(
        op.f("ix_agent_flows_deleted_ports_deleted_at"), "agent_flows_deleted_ports", ["deleted_at"]
    )


def add_identities() -> None:
    """Which process reports for a host, and which other one claims it."""
    for column in (
        sa.Column("boot_id", sa.String(length=36), nullable=True),
        sa.Column("spoke_at", moment, nullable=True),
        sa.Column("contender", sa.String(length=36), nullable=True),
        sa.Column("contended_at", moment, nullable=True),
    ):
        op.add_column("agent_flows_agents", column)


def add_desired() -> None:
    """The digest of the desired state that an agent has, and since when it differs."""
    for column in (
        sa.Column("desired", sa.String(length=32), nullable=True),
        sa.Column("differs_since", moment, nullable=True),
    ):
        op.add_column("agent_flows_agents", column)


def add_host_keys() -> None:
    """The key that speaks for a host, and the one of the process that reports."""
    for column in (
        sa.Column("host_key", sa.String(length=44), nullable=True),
        sa.Column("speaker_key", sa.String(length=44), nullable=True),
        sa.Column("call_number", sa.BigInteger(), nullable=True),
    ):
        op.add_column("agent_flows_agents", column)


def add_gating_suspensions(**options: Any) -> None:
    """The times for which gating is or was off."""
    table = "agent_flows_gating_suspensions"
    op.create_table(
        table,
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("reason", text, nullable=False),
        sa.Column("suspended_by", sa.String(length=255), nullable=False),
        sa.Column("suspended_at", moment, nullable=False),
        sa.Column("suspended_until", moment, nullable=False),
        sa.Column("ended_at", moment, nullable=True),
        sa.Column("ended_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        **options,
    )
    for column in ("suspended_at", "suspended_until"):
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
