"""The tables of our migrations, of all that stand in Neutron's database."""

import sqlalchemy as sa
from neutron.db.migration.models import head

from agent_flows.neutron.server.models import GatedPort
from agent_flows.server.models import Agent, Attempt, Base, DeletedPort, Task

# Our own server has tables that are called as Neutron's are; these are not among them.
_SHARED = sa.MetaData(naming_convention=Base.metadata.naming_convention)
for _model in (Agent, Attempt, Task, DeletedPort):
    _model.metadata.tables[_model.__tablename__].to_metadata(_SHARED)

METADATA = [head.get_metadata(), _SHARED]
_NAMES = {GatedPort.__tablename__, *_SHARED.tables}


def is_ours(item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
    """What to compare with the models, for alembic."""
    return kind != "table" or name in _NAMES
