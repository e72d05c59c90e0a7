"""Removes our blocks from Neutron's database after agent_flows left Neutron's configuration.

A block that stays would keep its port from being ACTIVE. Works on the tables
alone: Neutron need not run or be installed here.
"""

import sqlalchemy as sa

from agent_flows.server.core.database import Database

_ENTITY = "AGENT_FLOWS"
_BLOCKS = sa.table("provisioningblocks", sa.column("entity"))
_PORTS = sa.table("agent_flows_ports")


class NotNeutrons(Exception):
    """The database is not Neutron's."""


def clean(database: Database) -> int:
    """Remove every block of ours and our rows of ports; answers how many blocks there were.

    The history stays in the tables. Wired ports become ACTIVE when their agent
    next reports them up, at the latest at its restart.
    """
    tables = sa.inspect(database.engine).get_table_names()
    if _BLOCKS.name not in tables:
        raise NotNeutrons(f"there is no table {_BLOCKS.name} in {database.engine.url.database}")
    with database.connection() as connection:
        lifted = connection.execute(sa.delete(_BLOCKS).where(_BLOCKS.c.entity == _ENTITY))
        if _PORTS.name in tables:
            connection.execute(sa.delete(_PORTS))
        return lifted.rowcount
