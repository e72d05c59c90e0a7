"""A compute host with Neutron's own firewall driver, and the verifier of that driver.

The driver writes with the real ovs-ofctl.
"""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from neutron import privileged
from neutron.agent import securitygroups_rpc
from neutron.agent.common import ovs_lib
from neutron.agent.linux import ip_conntrack
from neutron.api.rpc.handlers.securitygroups_rpc import SecurityGroupServerAPIShim
from neutron.plugins.ml2.drivers.openvswitch.agent.openflow import br_cookie
from neutron.plugins.ml2.drivers.openvswitch.agent.ovs_agent_extension_api import (
    OVSAgentExtensionAPI,
)
from neutron_lib.callbacks import registry

from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.verify.verifier import Verifier
from agent_flows.report import FlowReport, TaskError, TaskState
from lab.process import wait_until
from lab.switch import Switch
from tests.functional.neutron.cloud import NETWORK, SECONDS, Cloud
from tests.functional.secgroups.host import BRIDGE, Vm

_AROUND = (
    "table=0,priority=65535,dl_vlan=4095 actions=drop",
    "table=0,priority=0 actions=resubmit(,60)",
    "table=60,priority=1 actions=NORMAL",
)


class _NoConntrack:
    """``conntrack -D`` does not reach the userspace datapath, which has no connections here."""

    def delete_conntrack_state_by_remote_ips(self, *_: Any, **__: Any) -> None: ...


class _AgentsBridge(br_cookie.OVSBridgeCookieMixin, ovs_lib.OVSBridge):  # type: ignore[misc]
    """The agent's integration bridge, written to by ovs-ofctl."""


class OtherCloud(Cloud):
    """A host with another firewall driver and our verifier."""

    def __init__(self, switch: Switch, calls: Path) -> None:
        # Neutron's privileged part is this process.
        privileged.default.set_client_mode(False)
        super().__init__(switch, calls)

    def start_agent(self) -> None:
        """A new process of the agent, with a new cookie; the switch keeps its flows."""
        registry.clear()
        if not hasattr(self, "bridge"):
            self._empty()
        self.bridge = _AgentsBridge(BRIDGE)
        shim = SecurityGroupServerAPIShim(self._cache)
        with mock.patch.object(ip_conntrack, "OvsIpConntrackManager", _NoConntrack):
            self.sg_agent = securitygroups_rpc.SecurityGroupAgentRpc(
                self._context, shim, defer_refresh_firewall=True, integration_bridge=self.bridge
            )
        shim.register_legacy_sg_notification_callbacks(self.sg_agent)
        plugin = SimpleNamespace(remote_resource_cache=self._cache)
        self.reporting = Reporting(deliver=self.reports.extend)
        self.verifier = Verifier(
            OVSAgentExtensionAPI(self.bridge, None, plugin_rpc=plugin), self.reporting
        )

    def _empty(self) -> None:
        protocols = ",".join(f"OpenFlow{each}" for each in (10, 11, 12, 13, 14))
        self.switch.vsctl("set", "Bridge", BRIDGE, f"protocols={protocols}")
        self.ofctl.bundle(["delete", *(f"add {each}" for each in _AROUND)])

    def stop_agent(self) -> None:
        self.verifier.stop(10)

    # The agent's loop.

    def take_up(self, *vms: Vm, status: str = "DOWN") -> None:
        """The agent passes ports to its extensions, before it programs them."""
        for vm in vms:
            self.verifier.handle(self.details(vm, status))

    def program(self, *vms: Vm) -> None:
        """The firewall driver's turn, for new ports."""
        self.sg_agent.setup_port_filters({vm.id for vm in vms}, set())

    def wire_ports(self, *vms: Vm) -> None:
        self.bind(*vms)
        self.take_up(*vms)
        self.program(*vms)

    def details(self, vm: Vm, status: str) -> dict[str, Any]:
        port = self._cache.get_resource_by_id("Port", vm.id)
        return {
            "port_id": vm.id,
            "device": vm.id,
            "status": status,
            "admin_state_up": port.admin_state_up,
            "mac_address": vm.mac,
            "fixed_ips": [{"ip_address": str(each.ip_address)} for each in port.fixed_ips],
            "allowed_address_pairs": [],
            "security_groups": list(port.security_group_ids),
            "port_security_enabled": port.security.port_security_enabled,
            "device_owner": port.device_owner,
            "network_id": NETWORK,
            "vif_port": self.bridge.get_vif_port_by_id(vm.id),
        }

    # What is reported.

    def report(self, vm: Vm) -> FlowReport:
        return self.reports_of(vm)[-1]

    def proven(self, *vms: Vm) -> None:
        """Wait until the last report of each port is a success."""
        for vm in vms:
            wait_until(
                lambda vm=vm: bool(self.reports_of(vm)) and succeeded(self.report(vm)),
                SECONDS,
                f"{vm.name} is proven",
            )

    def fails(self, vm: Vm, error_type: str, after: int = 0) -> TaskError:
        """Wait until a failure of this type is reported."""

        def of_type(report: FlowReport) -> bool:
            return error_of(report) is not None and error_of(report).type == error_type

        error = error_of(self.reported(vm, of_type, after))
        assert error is not None
        return error

    # What others do to the switch.

    def flows_of(self, vm: Vm, table: int) -> list[str]:
        """Of the port, in one of the firewall's tables."""
        ofport = self.switch.ofport(vm.name)
        match = f"in_port={ofport}" if table == 60 else f"reg5={ofport:#x}"
        return self.switch.flows(BRIDGE, f"table={table},{match}")

    def remove_flows(self, match: str) -> None:
        self.switch.ofctl("del-flows", self.switch.management(BRIDGE), match)

    def write(self, flows: Iterable[str]) -> None:
        self.ofctl.bundle([f"add {each}" for each in flows])


def succeeded(report: FlowReport) -> bool:
    return all(task.state is TaskState.SUCCEEDED for task in report.tasks)


def error_of(report: FlowReport) -> Any:
    return report.failed.error if report.failed is not None else None
