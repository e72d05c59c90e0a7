"""Neutron's database for our store: the same engine, transactions of its own."""

import contextlib
from collections.abc import Iterator
from functools import cached_property

from neutron_lib.db import api
from sqlalchemy import orm


class NeutronDatabase:
    """As :class:`agent_flows.server.core.database.Database`, on Neutron's connections.

    Made in one process and used in its children: the engine is taken when it
    is first needed.
    """

    @cached_property
    def _sessions(self) -> orm.sessionmaker[orm.Session]:
        engine = api.get_context_manager().writer.get_engine()
        if engine.dialect.name in ("mysql", "mariadb"):
            # Under the default (REPEATABLE READ) a transaction that waited for a lock
            # would go on reading the state before it waited.
            engine = engine.execution_options(isolation_level="READ COMMITTED")
        return orm.sessionmaker(engine, expire_on_commit=False)

    @contextlib.contextmanager
    def reader(self) -> Iterator[orm.Session]:
        """A transaction that only reads."""
        with self._sessions() as session:
            yield session

    @contextlib.contextmanager
    def writer(self) -> Iterator[orm.Session]:
        """A transaction that commits at the end of the block, or rolls back if it raises."""
        with self._sessions() as session, session.begin():
            yield session
