"""The port directory: where ports come from, and where what is known of them goes.

An interface, because ports may live in our own tables or in somebody else's.
The caller owns the transaction: every method takes its session.
"""

import abc
import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.server.core.gate import PortState
from agent_flows.spec import Spec

# What is said of a port whose host's agent looked, reported or is to report.
CLAIMED = frozenset(SyncState) - {SyncState.UNKNOWN}


@dataclass(frozen=True)
class KnownPort:
    """A port as the directory holds it.

    ``syncing_since`` is when the clock of ``report_timeout`` started, None if
    it does not run; ``updated_at`` when something one can read of it last
    changed.
    """

    state: PortState
    syncing_since: datetime.datetime | None
    updated_at: datetime.datetime


class PortDirectory(abc.ABC):
    """Ports by id, with what the gate needs to know of them."""

    @abc.abstractmethod
    def lock(self, session: Session, port_ids: Collection[str], host: str) -> dict[str, KnownPort]:
        """Those of ``port_ids`` that exist, as they are for ``host``, which reports on them.

        Nobody else changes them until the transaction ends, and what is
        answered is true while they are locked.
        """

    @abc.abstractmethod
    def move(self, session: Session, ports: Sequence[KnownPort]) -> None:
        """Write what became of locked ports."""

    def moved(self, ports: Sequence[KnownPort]) -> None:
        """Called after the transaction of :meth:`move` committed."""
        return

    def settle(self) -> None:
        """Bring about what was decided and may not have been; called with every sweep."""
        return

    @abc.abstractmethod
    def specs(self, session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
        """The ports bound to ``host`` (of those in ``port_ids``), and once each group they name.

        A group's revision is never newer than its content: reports that name
        it prove no more than the agent has seen.
        """

    @abc.abstractmethod
    def asked_for(
        self, session: Session, host: str, port_ids: Collection[str], now: datetime.datetime
    ) -> None:
        """An agent found interfaces for these ports: from ABSENT they become SYNCING."""

    @abc.abstractmethod
    def overdue(
        self,
        session: Session,
        before: datetime.datetime,
        ahead: datetime.datetime,
        limit: int,
    ) -> list[KnownPort]:
        """At most ``limit`` ports, locked, SYNCING with a clock that started before ``before``.

        Or after ``ahead``, which has not come yet: the server's clock was set back.
        """

    @abc.abstractmethod
    def in_states(
        self,
        session: Session,
        hosts: Collection[str],
        states: Collection[SyncState],
        limit: int | None = None,
    ) -> list[KnownPort]:
        """At most ``limit`` ports bound to one of ``hosts``, locked, in one of ``states``."""

    @abc.abstractmethod
    def hosts_in_states(self, session: Session, states: Collection[SyncState]) -> set[str]:
        """The hosts to which a port in one of ``states`` is bound."""

    @abc.abstractmethod
    def with_ports(self, session: Session, hosts: Collection[str]) -> set[str]:
        """Those of ``hosts`` to which a port is bound."""

    @abc.abstractmethod
    def counts(self, session: Session) -> Mapping[tuple[str, str, str], int]:
        """How many ports there are, by host ("" for none), status and sync_state."""
