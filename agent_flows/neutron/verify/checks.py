"""Looks at ports: where they are, what filters them, whether they are on their network."""

from collections.abc import Collection, Mapping
from typing import Any

from agent_flows.neutron import interfaces
from agent_flows.neutron.interfaces import Located
from agent_flows.neutron.verify.driver import Finding, OtherDriver
from agent_flows.neutron.verify.plugged_port import Plugged
from agent_flows.neutron.verify.watchlist import Sight
from agent_flows.openflow import wiring
from agent_flows.openflow.pipeline import DEAD_VLAN
from agent_flows.report import TaskError

Ports = Mapping[str, Plugged]


class Checks:
    """What :class:`TaskFailed` is raised for, concerns no port in particular.

    The agent puts a port whose admin_state_up is false on the dead VLAN, so
    that it passes nothing whatever its filter is.
    """

    def __init__(self, bridge: Any, driver: OtherDriver) -> None:
        self._bridge, self._driver = bridge, driver

    def locate(self, ports: Ports) -> Located:
        """Where ``ports`` are; one that is to be dead may never have been bound."""
        located = interfaces.locate(self._bridge, list(ports))
        errors = {
            port_id: error
            for port_id, error in located.errors.items()
            if ports[port_id].admin_state_up or error.type != "NoTag"
        }
        return Located(located.interfaces, errors, located.ofports)

    def absent(self, port_ids: Collection[str]) -> frozenset[str]:
        """Those of ``port_ids`` that have no interface."""
        return interfaces.locate(self._bridge, list(port_ids)).absent

    def filters(self, ports: Ports, located: Located) -> Mapping[str, Finding]:
        """What the firewall driver did for each of ``ports``."""
        found = {
            port_id: located.interfaces[port_id]
            for port_id, port in ports.items()
            if port.admin_state_up and port_id in located.interfaces
        }
        return dict.fromkeys(ports, Finding()) | dict(self._driver.inspect(found))

    def wiring(self, ports: Ports, located: Located) -> dict[str, TaskError]:
        """Ports that are not on their network's local VLAN, or not where they were found."""
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

    def left_over(self, gone: Ports) -> Mapping[str, TaskError]:
        """What the firewall driver left of ports that are gone."""
        return self._driver.left_over({port_id: port.ofport for port_id, port in gone.items()})

    def good(self, sight: Sight) -> set[str]:
        """Those of ``sight`` with which nothing is wrong."""
        located = self.locate(sight.present)
        present = {
            port_id: port
            for port_id, port in sight.present.items()
            if port_id not in located.errors
        }
        findings = self.filters(present, located)
        good = {port_id for port_id in present if findings[port_id].good}
        good -= self.wiring({port_id: present[port_id] for port_id in good}, located).keys()
        return good | (sight.gone.keys() - self.left_over(sight.gone).keys())
