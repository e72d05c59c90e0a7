"""The tables of our migrations: all that we keep in Neutron's database."""

from neutron.db.migration.models import head

from agent_flows.neutron.server.models import GatedPort
from agent_flows.server.core.models import Base

METADATA = [head.get_metadata(), Base.metadata]
_NAMES = {GatedPort.__tablename__, *Base.metadata.tables}


def is_ours(item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
    """What to compare with the models, for alembic."""
    return kind != "table" or name in _NAMES
