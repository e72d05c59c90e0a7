"""Which revision of a security group each host has realised

Revision ID: 0004
Revises: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from agent_flows.server.core.history_tables import moment

revision = "0004"
down_revision = "0003"

options: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    # Nothing is known of what came before: as if every revision were about everything.
    op.add_column(
        "security_groups",
        sa.Column("rules_revision", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.add_column(
        "security_groups",
        sa.Column("members_revision", sa.BigInteger(), nullable=False, server_default="1"),
    )
    op.execute("UPDATE security_groups SET rules_revision = revision")
    op.add_column(
        "address_groups",
        sa.Column("revision", sa.BigInteger(), nullable=False, server_default="1"),
    )
    op.add_column(
        "port_security_groups", sa.Column("proven_revision", sa.BigInteger(), nullable=True)
    )
    # Ports IN_SYNC were proven at the current revisions of their groups.
    op.execute(
        "UPDATE port_security_groups SET proven_revision = (SELECT revision FROM security_groups "
        "WHERE security_groups.id = port_security_groups.security_group_id) WHERE port_id IN "
        "(SELECT id FROM ports WHERE sync_state = 'IN_SYNC')"
    )
    op.create_table(
        "security_group_hosts",
        sa.Column("security_group_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("behind_since", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["security_group_id"],
            ["security_groups.id"],
            name=op.f("fk_security_group_hosts_security_group_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("security_group_id", "host", name=op.f("pk_security_group_hosts")),
        **options,
    )
    op.create_index(op.f("ix_security_group_hosts_host"), "security_group_hosts", ["host"])
    op.create_index(
        op.f("ix_security_group_hosts_behind_since"), "security_group_hosts", ["behind_since"]
    )
    ports = sa.table("ports", *map(sa.column, ("id", "host", "port_security_enabled")))
    memberships = sa.table(
        "port_security_groups", sa.column("port_id"), sa.column("security_group_id")
    )
    at_host = sa.table(
        "security_group_hosts",
        *map(sa.column, ("security_group_id", "host", "revision", "sequence", "failed")),
    )
    there = (
        sa.select(
            memberships.c.security_group_id, ports.c.host, sa.literal(0), sa.literal(0), sa.false()
        )
        .join_from(memberships, ports, ports.c.id == memberships.c.port_id)
        .where(ports.c.host.is_not(None), ports.c.port_security_enabled == sa.true())
        .distinct()
    )
    op.execute(sa.insert(at_host).from_select([column.name for column in at_host.c], there))
    op.create_table(
        "member_changes",
        sa.Column("security_group_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("port_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["security_group_id"],
            ["security_groups.id"],
            name=op.f("fk_member_changes_security_group_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("security_group_id", "revision", name=op.f("pk_member_changes")),
        **options,
    )
