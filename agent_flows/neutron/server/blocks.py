"""Our provisioning blocks, which keep a port of Neutron from being ACTIVE.

Neutron's own functions first read whether a block exists. Under MariaDB's
REPEATABLE READ they may read what was there before the transaction waited for
our row, so these statements leave the comparison to the database.
"""

from collections.abc import Collection

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models.provisioning_block import ProvisioningBlock
from sqlalchemy.orm import Session

from agent_flows.neutron.server.block_policy import ENTITY

_Block = ProvisioningBlock
_ADD = (
    sa.insert(_Block.__table__)
    .prefix_with("IGNORE", dialect="mysql")
    .prefix_with("IGNORE", dialect="mariadb")
    .prefix_with("OR IGNORE", dialect="sqlite")
)


def attached_to(session: Session, port_id: str) -> int | None:
    """The id by which blocks name the port, None if there is no such port."""
    port = models_v2.Port
    found: int | None = session.scalar(sa.select(port.standard_attr_id).where(port.id == port_id))
    return found


def add(session: Session, attributes: Collection[int]) -> None:
    """Block the ports with these ids, unless they are blocked."""
    if attributes:
        rows = [{"standard_attr_id": number, "entity": ENTITY} for number in attributes]
        session.connection().execute(_ADD, rows)


def lift(session: Session, attributes: Collection[int]) -> None:
    if attributes:
        session.execute(
            sa.delete(_Block)
            .where(_Block.standard_attr_id.in_(attributes), _Block.entity == ENTITY)
            .execution_options(synchronize_session=False)
        )
