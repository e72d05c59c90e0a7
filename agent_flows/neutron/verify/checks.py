"""Reads of ports: their interfaces, what filters them, whether they are on their network."""

from collections.abc import Collection, Mapping
from typing import Any

from agent_flows.errors import ErrorType
from agent_flows.neutron import interfaces
from agent_flows.neutron.interfaces import Located
from agent_flows.neutron.verify.inspector import Finding, Inspector
from agent_flows.neutron.verify.plugged_port import PluggedPort
from agent_flows.neutron.verify.watchlist import Watched
from agent_flows.openflow import wiring
from agent_flows.openflow.pipeline import DEAD_VLAN
from agent_flows.report import TaskError

Ports = Mapping[str, PluggedPort]


class Checks:
    """Methods raise :class:`TaskFailed` for errors that concern no port in particular.

    The agent puts a port whose admin_state_up is false on the dead VLAN: no
    traffic passes, so its filter is not checked.
    """

    def __init__(self, bridge: Any, driver: Inspector) -> None:
        self._bridge, self._driver = bridge, driver

    def locate(self, ports: Ports) -> Located:
        """The interfaces of ``ports``; one with admin_state_up false need not be bound."""
        located = interfaces.locate(self._bridge, list(ports))
        errors = {
            port_id: error
            for port_id, error in located.errors.items()
            if ports[port_id].admin_state_up or error.type != ErrorType.NO_TAG
        }
        return Located(located.interfaces, errors, located.ofports)

    def absent(self, port_ids: Collection[str]) -> frozenset[str]:
        """The ports of ``port_ids`` that have no interface."""
        return interfaces.locate(self._bridge, list(port_ids)).absent

    def filters(self, ports: Ports, located: Located) -> Mapping[str, Finding]:
        """What is wrong with the filter of each of ``ports``."""
        found = {
            port_id: located.interfaces[port_id]
            for port_id, port in ports.items()
            if port.admin_state_up and port_id in located.interfaces
        }
        return dict.fromkeys(ports, Finding()) | dict(self._driver.inspect(found))

    def wiring(self, ports: Ports, located: Located) -> dict[str, TaskError]:
        """The ports with another tag than their network's local VLAN, or another interface than
        ``located``."""
        now = self.locate(ports)
        tags = interfaces.tags(self._bridge, [port.interface for port in ports.values()])
        errors = dict(now.errors)
        for port_id, port in ports.items():
            if port_id in errors:
                continue
            before, after = located.interfaces.get(port_id), now.interfaces.get(port_id)
            name = after.name if after is not None else port.interface
            vlan = after.vlan if port.admin_state_up and after is not None else DEAD_VLAN
            error = wiring.error(before, after, name, tags.get(name), (vlan,))
            if error is not None:
                errors[port_id] = error
        return errors

    def leftovers(self, gone: Ports) -> Mapping[str, TaskError]:
        """What the firewall driver still has installed for ports that are gone."""
        return self._driver.leftovers({port_id: port.ofport for port_id, port in gone.items()})

    def good(self, watched: Mapping[str, Watched]) -> set[str]:
        """The ports with which nothing is wrong."""
        gone = {port_id: entry.port for port_id, entry in watched.items() if entry.leaving}
        staying = {port_id: entry.port for port_id, entry in watched.items() if not entry.leaving}
        located = self.locate(staying)
        present = {id_: port for id_, port in staying.items() if id_ not in located.errors}
        findings = self.filters(present, located)
        good = {port_id for port_id in present if findings[port_id].good}
        good -= self.wiring({port_id: present[port_id] for port_id in good}, located).keys()
        return good | (gone.keys() - self.leftovers(gone).keys())
