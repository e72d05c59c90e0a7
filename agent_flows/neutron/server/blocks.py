"""Our provisioning blocks: who of Neutron's own says that it is not done with a port yet.

Neutron's functions for it look first whether a block is there. Under
MariaDB's REPEATABLE READ that may be what was there before the transaction
waited for our row, so these leave it to the database.
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
    """What blocks name in the port's place, None if there is no such port."""
    port = models_v2.Port
    found: int | None = session.scalar(sa.select(port.standard_attr_id).where(port.id == port_id))
    return found


def add(session: Session, attributes: Collection[int]) -> None:
    """Block what these are attached to, unless it is."""
    if attributes:
        rows = [{"standard_attr_id": each, "entity": ENTITY} for each in attributes]
        session.connection().execute(_ADD, rows)


def lift(session: Session, attributes: Collection[int]) -> None:
    if attributes:
        session.execute(
            sa.delete(_Block)
            .where(_Block.standard_attr_id.in_(attributes), _Block.entity == ENTITY)
            .execution_options(synchronize_session=False)
        )
