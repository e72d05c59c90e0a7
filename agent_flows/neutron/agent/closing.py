"""Which ports are to be in quarantine: those that nothing filters yet, and no others."""

from collections.abc import Callable, Collection, Iterable, Mapping

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.agent.desired_state import Told
from agent_flows.neutron.agent.quarantine import Closed, HeldMac, Quarantine
from agent_flows.neutron.interfaces import Interface, Located
from agent_flows.report import TaskError


class Closing:
    """A port that the firewall has programmed is filtered by what stands, old rules or new, and
    is left alone; so is a MAC that such a port holds, too."""

    def __init__(
        self,
        quarantine: Quarantine,
        told: Told,
        proven: Callable[[], Mapping[str, Interface]],
    ) -> None:
        self._quarantine, self._told, self._proven = quarantine, told, proven

    def close(self, ports: Iterable[Closed]) -> None:
        """Close those of ``ports`` that are not programmed. Raises :class:`TaskFailed`."""
        held = self._held()
        self._quarantine.close(
            each.without(
                frozenset().union(*(held[other] for other in held.keys() - {each.port_id}))
            )
            for each in ports
        )

    def close_unprogrammed(self, port_ids: Collection[str], located: Located) -> TaskError | None:
        """Close those of these ports that the switch has no flows for; why, if that failed."""
        known = [port_id for port_id in port_ids if port_id in located.ofports]
        if not known:
            return None
        try:
            self._quarantine.look()
            self.close(self._closed(port_id, located) for port_id in known)
            self._quarantine.seal([located.ofports[port_id] for port_id in known])
        except TaskFailed as exc:
            return exc.error
        return None

    def _closed(self, port_id: str, located: Located) -> Closed:
        ofport, interface = located.ofports[port_id], located.interfaces.get(port_id)
        if interface is None:
            return Closed(port_id, ofport)
        network = interface.network
        segment = None if network.physical_network is None else network.segmentation_id or 0
        port = self._told.get(port_id)
        macs = port.macs if port else frozenset()
        return Closed(port_id, ofport, interface.vlan, macs, segment)

    def _held(self) -> dict[str, frozenset[HeldMac]]:
        """What ports that stand hold."""
        return {
            port_id: frozenset((interface.vlan, mac) for mac in port.macs)
            for port_id, interface in self._proven().items()
            if (port := self._told.get(port_id)) is not None
        }
