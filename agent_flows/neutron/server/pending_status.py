"""How a port of Neutron stands to what the gate decided of it. Pure."""

from dataclasses import dataclass

from agent_flows.neutron.server.block_policy import ENTITY
from agent_flows.report import PortStatus


@dataclass(frozen=True)
class Standing:
    """How a gated port stands to what was decided of it.

    ``active`` is Neutron's status, ``blocked_by`` who keeps it from being
    that, ``attached_to`` what blocks name in the port's place.
    """

    port_id: str
    attached_to: int
    verdict: PortStatus
    active: bool
    blocked_by: frozenset[str] = frozenset()

    @property
    def to_lift(self) -> bool:
        return self.verdict is PortStatus.ACTIVE and ENTITY in self.blocked_by

    @property
    def to_block(self) -> bool:
        """If it is ACTIVE, the block comes with its fall."""
        return self.verdict is PortStatus.DOWN and not self.active and ENTITY not in self.blocked_by

    @property
    def to_raise(self) -> bool:
        """Nobody blocks it, and nobody said so."""
        return self.verdict is PortStatus.ACTIVE and not self.active and not self.blocked_by

    @property
    def to_fall(self) -> bool:
        return self.verdict is PortStatus.DOWN and self.active

    @property
    def settled(self) -> bool:
        """Nothing is left to do, now or when others lift their blocks."""
        if self.verdict is PortStatus.ACTIVE:
            return self.active
        return not self.active and ENTITY in self.blocked_by
