"""What is left to do until a port of Neutron has the status that the gate decided. Pure."""

from dataclasses import dataclass

from agent_flows.neutron.server.block_policy import ENTITY
from agent_flows.report import PortStatus


@dataclass(frozen=True)
class PendingStatus:
    """A gated port: the gate's verdict, and Neutron's status and blocks.

    ``active``: Neutron's status is ACTIVE. ``blocked_by`` are the owners of its
    provisioning blocks, ``attached_to`` the id by which blocks name the port. ``ungated``: while
    gating was off it became a port without our block; ``up``: it was wired as far as Neutron's own
    agent can see, if nothing blocks it.
    """

    port_id: str
    attached_to: int
    verdict: PortStatus
    active: bool
    blocked_by: frozenset[str] = frozenset()
    ungated: bool = False
    up: bool = False

    @property
    def to_lift(self) -> bool:
        return self.verdict is PortStatus.ACTIVE and ENTITY in self.blocked_by

    @property
    def to_block(self) -> bool:
        """A port that is ACTIVE gets the block when it goes DOWN."""
        falls = self.verdict is PortStatus.DOWN and not self.active
        return falls and not self.ungated and ENTITY not in self.blocked_by

    @property
    def to_activate(self) -> bool:
        """Nothing blocks it, but Neutron was not called yet."""
        wanted = self.verdict is PortStatus.ACTIVE or (self.ungated and self.up)
        return wanted and not self.active and not self.blocked_by

    @property
    def to_deactivate(self) -> bool:
        return self.verdict is PortStatus.DOWN and self.active

    @property
    def settled(self) -> bool:
        """Nothing is left to do, now or when others remove their blocks."""
        if self.verdict is PortStatus.ACTIVE:
            return self.active
        if self.ungated:
            return not (self.active or self.to_activate)
        return not self.active and ENTITY in self.blocked_by
