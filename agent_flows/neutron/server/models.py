"""The table of the ports on hosts with our extension.

It repeats of Neutron's tables only what must not change while a report is
judged: ``host``, ``revision`` and ``admin_state_up`` are written in the
transaction that changes them, under this row's lock.
"""

from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron_lib.db import model_base
from sqlalchemy import orm

from agent_flows.server.core.models import Host, PortRow, Uuid


class GatedPort(PortRow, model_base.BASEV2):  # type: ignore[misc]
    """A port bound to a host whose agent has our extension.

    ``revision`` is Neutron's revision number at which something the wiring
    depends on last changed, ``status`` the gate's verdict. ``gated`` is false
    for ports that Neutron never blocks (those of its own services): reports
    about them are kept, but their status is Neutron's. ``unsettled``: ``status``
    has changed and Neutron's may not have followed yet. ``ungated``: while gating was off, the port
    got no block, or lost it. ``fell_at``: the last report's sequence when Neutron itself took the
    port DOWN.
    """

    __tablename__ = "agent_flows_ports"
    __table_args__ = (
        sa.Index("ix_agent_flows_ports_host_sync_state", "host", "sync_state"),
        sa.Index("ix_agent_flows_ports_sync_state_syncing_since", "sync_state", "sync_since"),
        sa.Index("ix_agent_flows_ports_unsettled", "unsettled"),
        sa.Index("ix_agent_flows_ports_ungated", "ungated"),
        model_base.BASEV2.__table_args__,
    )

    port_id: orm.Mapped[str] = orm.mapped_column(
        Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True
    )
    host: orm.Mapped[str] = orm.mapped_column(Host)
    gated: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())
    revision: orm.Mapped[int] = orm.mapped_column(sa.BigInteger())
    unsettled: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())
    ungated: orm.Mapped[bool] = orm.mapped_column(sa.Boolean(), server_default=sa.false())
    fell_at: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger())

    # Read with the port, so that a list of ports is one query. Never written
    # through: rows are deleted with their ports by the foreign key.
    port: orm.Mapped[Any] = orm.relationship(
        models_v2.Port,
        viewonly=True,
        backref=orm.backref(
            "agent_flows", lazy="joined", uselist=False, viewonly=True, sync_backref=False
        ),
        sync_backref=False,
    )
