"""``firewall_driver = openvswitch``: Neutron's own, which ignores what the switch refuses."""

from collections.abc import Mapping
from typing import Any

from neutron.common import utils
from oslo_config import cfg

from agent_flows.errors import ErrorType
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.neutron.verify import compare
from agent_flows.neutron.verify.compare import ExpectedFlows, InstalledFlows
from agent_flows.neutron.verify.expected_flows import (
    Generator,
    Groups,
    conjunction_ids,
    is_filtered,
)
from agent_flows.neutron.verify.inspector import Finding, inspect_each
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.outcome import switch_errors
from agent_flows.report import TaskError


class OpenvswitchInspector:
    """Compares the bridge with what the driver's own generators make.

    ``bridge`` is the agent's bridge object: the driver's flows have its ``default_cookie``.
    """

    def __init__(self, bridge: Any, ofctl: Ofctl, neutron: SecurityGroupInfo) -> None:
        self._bridge, self._ofctl, self._neutron = bridge, ofctl, neutron
        # Each port's expected flows, and what they depend on.
        self._expected: dict[str, tuple[object, ExpectedFlows]] = {}
        self._permitted = utils.parse_permitted_ethertypes(
            cfg.CONF.SECURITYGROUP.permitted_ethertypes
        )

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        if not ports:
            return {}
        cookie, installed = self._read()
        entries = installed.entries(cookie)
        # Before the driver programs a port, the cache may lack its groups, and reading them would
        # ask the server: twice the load just when many ports come.
        programmed = {id_: found for id_, found in ports.items() if found.ofport in entries}
        return {
            port_id: compare.not_programmed(installed, interface.ofport, cookie)
            for port_id, interface in ports.items()
            if port_id not in programmed
        } | self._compare(programmed, installed, cookie)

    def leftovers(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        if not ofports:
            return {}
        for port_id in ofports:
            self._expected.pop(port_id, None)
        cookie, installed = self._read()
        return {
            port_id: error
            for port_id, ofport in ofports.items()
            if (error := compare.leftovers(installed, ofport, cookie)) is not None
        }

    def _compare(
        self, ports: Mapping[str, Interface], installed: InstalledFlows, cookie: int
    ) -> dict[str, Finding]:
        if not ports:
            return {}
        known = self._neutron.of(list(ports))
        generator = Generator(self._bridge, self._permitted, Groups(known), conjunction_ids())

        def judge(port_id: str) -> Finding:
            interface, device = ports[port_id], known.devices.get(port_id)
            if port_id in known.unreadable:
                return Finding(missing=known.unreadable[port_id])
            if interface.mac is None and is_filtered(device):
                return _NO_MAC
            expected = self._expected_of(generator, port_id, device, interface)
            return compare.compare(expected, installed, interface.ofport, cookie)

        return inspect_each(ports, judge)

    def _expected_of(
        self,
        generator: Generator,
        port_id: str,
        device: Mapping[str, Any] | None,
        interface: Interface,
    ) -> ExpectedFlows:
        """Made again only if what it depends on has changed: it costs more than the look itself."""
        basis = generator.basis(device, interface)
        known = self._expected.get(port_id)
        # With this option the flows also depend on the numbers of patch ports.
        if known is None or known[0] != basis or cfg.CONF.AGENT.explicitly_egress_direct:
            known = basis, generator.expected(port_id, device, interface)
            self._expected[port_id] = known
        return known[1]

    def _read(self) -> tuple[int, InstalledFlows]:
        with switch_errors():
            flows = self._ofctl.dump(0, 0)
        return self._bridge.default_cookie, InstalledFlows(self._bridge.br_name, flows)


_NO_MAC = Finding(
    missing=TaskError(
        ErrorType.NO_ATTACHED_MAC,
        "the interface's external_ids have no attached-mac, so nothing filters it",
    )
)
