"""After agent_flows was taken out of Neutron's configuration: what it left in Neutron's database.

A block of ours keeps a port from being ACTIVE, and nobody is left to lift it.
Neutron itself is not asked, so it need not run, nor be installed here.
"""

import sqlalchemy as sa

from agent_flows.server.core.database import Database

_ENTITY = "AGENT_FLOWS"
_BLOCKS = sa.table("provisioningblocks", sa.column("entity"))
_PORTS = sa.table("agent_flows_ports")


class NotNeutrons(Exception):
    """The database is none of Neutron's."""


def clean(database: Database) -> int:
    """Lift every block of ours and forget the ports; answers how many blocks there were.

    The history stays readable in the tables. Ports that are wired are ACTIVE
    when their agent says so next, at the latest at its restart.
    """
    tables = sa.inspect(database.engine).get_table_names()
    if _BLOCKS.name not in tables:
        raise NotNeutrons(f"there is no table {_BLOCKS.name} in {database.engine.url.database}")
    with database.connection() as connection:
        lifted = connection.execute(sa.delete(_BLOCKS).where(_BLOCKS.c.entity == _ENTITY))
        if _PORTS.name in tables:
            connection.execute(sa.delete(_PORTS))
        return lifted.rowcount
