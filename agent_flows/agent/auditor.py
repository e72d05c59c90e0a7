"""Compares the switch of a standalone host with what was proven of its ports."""

from collections.abc import Mapping

from agent_flows.agent.flows import Switch
from agent_flows.agent.wiring_audit import WiringAudit
from agent_flows.engine.drift import Drift, Suspicion
from agent_flows.engine.port_table import PortTable


class AgentAuditor:
    """A :class:`agent_flows.engine.drift.Auditor`. ``table`` has the lives of the host's ports."""

    def __init__(self, switch: Switch, table: PortTable) -> None:
        self._switch, self._table = switch, table
        self._wiring = WiringAudit(switch, table)

    def compare(self, suspicion: Suspicion) -> Mapping[str, Drift]:
        found: dict[str, Drift] = {}
        if suspicion.everything or suspicion.port_ids:
            found |= self._wiring.compare(None if suspicion.everything else suspicion.port_ids)
        if suspicion.everything or suspicion.bridges or suspicion.deleted:
            found |= self._flows(suspicion)
        return found

    def _flows(self, suspicion: Suspicion) -> Mapping[str, Drift]:
        """Flows of the integration bridge, and ours on the physical networks' bridges."""
        return {}
