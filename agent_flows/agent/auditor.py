"""Compares the switch of a standalone host with what was proven of its ports."""

from collections.abc import Callable, Mapping

from agent_flows.agent.flows import Switch
from agent_flows.agent.network_audit import NetworkAudit
from agent_flows.agent.wiring_audit import WiringAudit
from agent_flows.engine.drift import NONE, Drift, Suspicion
from agent_flows.engine.port_table import PortTable
from agent_flows.engine.task import TaskFailed
from agent_flows.openflow.monitor import Changes
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.secgroups.flow_audit import FlowAudit


class AgentAuditor:
    """A :class:`agent_flows.engine.drift.Auditor`. ``table`` has the lives of the host's ports.

    Not ``is_intact``: the switch has lost all flows, with which every port is wired again.
    """

    def __init__(
        self,
        switch: Switch,
        table: PortTable,
        ofctl: Callable[[str], Ofctl],
        is_intact: Callable[[], bool],
    ) -> None:
        self._switch, self._is_intact = switch, is_intact
        self._flows = FlowAudit(switch.firewall, table)
        self._wiring = WiringAudit(switch, table)
        self._networks = NetworkAudit(switch.networks, table, ofctl)

    def compare(self, suspicion: Suspicion) -> Mapping[str, Drift]:
        found: dict[str, Drift] = {}
        if suspicion.everything:
            found |= self._wiring.compare(None, ask_switch=self._is_intact())
        elif suspicion.port_ids:
            found |= self._wiring.compare(suspicion.port_ids)
        if not self._is_intact():
            return found
        if self._flows.concerns(self._switch.bridge, suspicion):
            found = {**self._flows.compare(), **found}
        if suspicion.everything or suspicion.bridges:
            bridges = None if suspicion.everything else suspicion.bridges
            try:
                found = {**self._networks.compare(bridges), **found}
            except TaskFailed:
                # A bridge that cannot be read must not hide what was found elsewhere; the next
                # audit reads it again.
                if not found:
                    raise
        return found


def suspicion_of(bridge: str, changes: Changes) -> Suspicion:
    """What changes of the integration bridge's flows give reason to compare.

    A bundle of ours may have added or deleted the flows with cookies of ours. On our own
    bridge no one else writes flows.
    """
    if changes.missed:
        return Suspicion(bridges=frozenset({bridge}))
    written = changes.modified or bool(changes.foreign)
    return Suspicion(
        changes.deleted,
        frozenset({bridge}) if written else frozenset(),
        counted=changes.paused,
        added=changes.added,
    )


def suspicion_outside(bridge: str, changes: Changes) -> Suspicion:
    """The same for a physical network's bridge, where others write flows as well: one of theirs
    that replaced one of ours is left to the audit."""
    ours = changes.missed or changes.deleted or changes.modified
    return Suspicion(bridges=frozenset({bridge})) if ours else NONE
