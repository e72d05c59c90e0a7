"""The table of the ports agent_flows looks after in Neutron.

What Neutron itself knows of a port is not repeated, but for what must stand
still while a report is judged: ``host``, ``revision`` and ``admin_state_up``
are written in the transaction that changes them, under this row's lock.
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
    depends on last changed, ``status`` what the reports make of the port.
    ``gated`` is false for ports that Neutron never waits for (those of its
    own services): reports about them are kept, their status is not ours.
    ``unsettled`` says that ``status`` has changed and may not have been
    brought about.
    """

    __tablename__ = "agent_flows_ports"
    __table_args__ = (
        sa.Index("ix_agent_flows_ports_host_sync_state", "host", "sync_state"),
        sa.Index("ix_agent_flows_ports_sync_state_syncing_since", "sync_state", "syncing_since"),
        sa.Index("ix_agent_flows_ports_unsettled", "unsettled"),
        model_base.BASEV2.__table_args__,
    )

    port_id: orm.Mapped[str] = orm.mapped_column(
        Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True
    )
    host: orm.Mapped[str] = orm.mapped_column(Host)
    gated: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())
    revision: orm.Mapped[int] = orm.mapped_column(sa.BigInteger())
    unsettled: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())

    # Read with the port, so that a list of ports stays one query. Never written
    # through: the rows go with their ports by the foreign key.
    port: orm.Mapped[Any] = orm.relationship(
        models_v2.Port,
        viewonly=True,
        backref=orm.backref(
            "agent_flows", lazy="joined", uselist=False, viewonly=True, sync_backref=False
        ),
        sync_backref=False,
    )
