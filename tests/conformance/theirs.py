"""What Neutron's own OVS firewall driver writes for a world.

The driver, the deferred bridge and the text of flows (``ovs_lib``) are
Neutron's code. Only what asks OVSDB and runs ovs-ofctl is replaced.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

from neutron.agent.common import ovs_lib
from neutron.agent.linux import ip_conntrack
from neutron.agent.linux.openvswitch_firewall import firewall as driver
from neutron.conf.agent import securitygroups_rpc as options
from neutron.conf.plugins.ml2.drivers import ovs_conf
from neutron_lib.callbacks import events, registry, resources
from oslo_config import cfg

from tests.conformance.agent_input import agent_input, identity
from tests.conformance.world import World


def flows(world: World, interface: Callable[[int], str]) -> list[str]:
    """The bundle lines with which the driver brings ``world`` onto an empty bridge."""
    _options(world.permitted_ethertypes)
    bridge = _Bridge(world, interface)
    with mock.patch.object(ip_conntrack, "OvsIpConntrackManager", _NoConntrack):
        firewall = driver.OVSFirewallDriver(bridge)
    # Every driver subscribes for good; nothing here publishes.
    registry.unsubscribe(firewall._init_firewall_callback, resources.AGENT, events.OVS_RESTARTED)
    logging.getLogger("neutron").setLevel(logging.ERROR)
    _apply(firewall, world)
    return bridge.lines


@functools.cache
def _register_options() -> None:
    options.register_securitygroups_opts()
    ovs_conf.register_ovs_agent_opts()


def _options(permitted_ethertypes: Iterable[int]) -> None:
    _register_options()
    permitted = [f"{each:#06x}" for each in sorted(permitted_ethertypes)]
    cfg.CONF.set_override("permitted_ethertypes", permitted, "SECURITYGROUP")


def _apply(firewall: driver.OVSFirewallDriver, world: World) -> None:
    """As ``SecurityGroupAgentRpc._apply_port_filter`` does it for new devices."""
    given = agent_input(world)
    with firewall.defer_apply():
        for group, rules in given.rules.items():
            firewall.update_security_group_rules(group, rules)
        for group, members in given.members.items():
            firewall.update_security_group_members(group, members)
        for device in given.devices:
            firewall.prepare_port_filter(device)
        firewall.process_trusted_ports(given.trusted)


class _NoConntrack:
    """``conntrack -D`` does not reach the userspace datapath's table, nor is there a connection."""

    def delete_conntrack_state_by_remote_ips(self, *_: Any, **__: Any) -> None: ...


class _Bridge(ovs_lib.OVSBridge):  # type: ignore[misc]
    """Neutron's bridge, its database a world and its ovs-ofctl a list of lines."""

    is_hw_offload_enabled = False

    def __init__(self, world: World, interface: Callable[[int], str]) -> None:
        # Not the parent's: it connects to OVSDB.
        self.br_name = "br-int"
        self._default_cookie = 0x7E07
        self._flows_per_port = False
        self.lines: list[str] = []
        self._world = world
        self._numbers = {interface(number): number for number in world.ports}
        self._ports = {
            identity(f"port {number}"): ovs_lib.VifPort(
                name, number, identity(f"port {number}"), port.mac, self
            )
            for name, number in self._numbers.items()
            for port in [world.ports[number]]
        }

    def add_protocols(self, *_: str) -> None: ...

    def get_port_name_list(self) -> list[str]:
        return list(self._numbers)

    def dump_flows_for_table(self, _table: int) -> str:
        return ""

    def get_vif_port_by_id(self, port_id: str) -> ovs_lib.VifPort | None:
        return self._ports.get(port_id)

    def get_vifs_by_ids(self, port_ids: Iterable[str]) -> dict[str, ovs_lib.VifPort | None]:
        return {port_id: self._ports.get(port_id) for port_id in port_ids}

    def db_get_val(self, table: str, record: str, column: str, **_: Any) -> dict[str, str]:
        if (table, column) != ("Port", "other_config"):
            raise LookupError(f"the driver asks for {column} of {table}")
        port = self._world.ports[self._numbers[record]]
        network = self._world.networks[port.vlan]
        stored = {"tag": str(port.vlan), "network_type": network.kind}
        if network.kind in ("flat", "vlan"):
            stored["physical_network"] = "physnet1"
        if network.segment is not None:
            stored["segmentation_id"] = str(network.segment)
        return stored

    def run_ofctl(self, cmd: str, _args: list[str], process_input: str | None = None) -> str:
        verb = {"add-flows": "add", "del-flows": "delete"}[cmd]
        self.lines += [f"{verb} {line}" for line in (process_input or "").splitlines()]
        return ""
