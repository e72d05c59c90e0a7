"""Compares the flows of the integration bridge with those of the ports that were proven."""

from agent_flows.engine.drift import Drift, Suspicion
from agent_flows.engine.port_table import PortTable
from agent_flows.report import Step
from agent_flows.secgroups.firewall import Firewall


class FlowAudit:
    """For the auditor of a host. ``table`` has the lives of the host's ports."""

    def __init__(self, firewall: Firewall, table: PortTable) -> None:
        self._firewall, self._table = firewall, table

    def concerns(self, bridge: str, suspicion: Suspicion) -> bool:
        """Whether the flows of ``bridge``, the firewall's, have to be compared."""
        if suspicion.everything or bridge in suspicion.bridges:
            return True
        if suspicion.counted:
            return not self._firewall.counts()
        return not self._firewall.explains(suspicion.deleted, suspicion.added)

    def compare(self) -> dict[str, Drift]:
        """The drift of each proven port that is concerned.

        What concerns no proven port is repaired at once: there is no port to report it of. A flow
        that must be left there is reported by the ports it fails.
        """
        differing = self._firewall.audit()
        if differing is None:
            return {}
        lives = self._table.lives()
        proven = {
            port_id: Drift(Step.SECURITY_GROUPS, error)
            for port_id, error in differing.items()
            if port_id in lives and lives[port_id].proven
        }
        if not proven:
            self._firewall.repair()
        return proven
