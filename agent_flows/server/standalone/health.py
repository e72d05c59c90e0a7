"""Whether what this process needs works: its database, its bus, its threads."""

from collections.abc import Callable, Mapping

import oslo_messaging
import sqlalchemy

from agent_flows.report import Trouble
from agent_flows.rpc import transport as wire
from agent_flows.rpc.listener import Listener
from agent_flows.server.core.casts import Caster
from agent_flows.server.core.database import ERRORS, Database
from agent_flows.server.core.sweeper import TROUBLE as SWEEPER
from agent_flows.server.core.sweeper import Sweeper
from agent_flows.server.standalone.bounded import Bounded
from agent_flows.supervision import Loop, Troubles

Check = Callable[[], str | None]

BUS = "bus"
# Seconds. Monitors give up after ten.
DATABASE_PATIENCE = 3.0
_PING_INTERVAL = 10.0
_PING_PATIENCE = 5


class Ping:
    """Calls this process, which listens as ``name``, over the bus again and again.

    If a call fails, that is the trouble :data:`BUS`.
    """

    def __init__(self, transport: oslo_messaging.Transport, name: str, troubles: Troubles) -> None:
        target = wire.server_target(name)
        self._name = name
        self._client = oslo_messaging.get_rpc_client(
            transport, target, timeout=_PING_PATIENCE, retry=0
        )
        self._loop = Loop(
            BUS, self._step, troubles, BUS, expected=(oslo_messaging.MessagingException,)
        )

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop(_PING_PATIENCE + 1)

    def _step(self) -> None:
        self._client.prepare(server=self._name).call({}, "ping")
        self._loop.stopping.wait(_PING_INTERVAL)


def checks(
    held: Database, sweeper: Sweeper, caster: Caster, rpc: Listener, troubles: Troubles
) -> Mapping[str, Check]:
    """What ``/healthz`` looks at: each answers what fails, None if nothing does."""
    reach = Bounded(lambda: _reach(held), DATABASE_PATIENCE)

    def database() -> str | None:
        try:
            reach()
        except TimeoutError:
            return f"no answer within {DATABASE_PATIENCE:g} s"
        except ERRORS as exc:
            return type(exc).__name__
        return None

    def sweeps() -> str | None:
        ended = None if sweeper.is_alive() else "its thread has ended"
        return troubles.current().get(SWEEPER) or ended

    def bus() -> str | None:
        if not rpc.is_receiving():
            return troubles.current().get(Trouble.LISTENER) or "not connected yet"
        return troubles.current().get(BUS)

    return {
        "database": database,
        "sweeper": sweeps,
        "casts": lambda: caster.failure,
        "bus": bus,
    }


def _reach(held: Database) -> None:
    with held.reader() as session:
        session.execute(sqlalchemy.text("SELECT 1"))
