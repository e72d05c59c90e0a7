"""The demonstration inside Neutron: its API, database and agent, with our parts in them."""

from collections.abc import Collection, Iterator, Sequence

from lab.demo.cloud import BRIDGE, QUICK_RETRIES, DemoCloud, Log
from lab.demo.scenario import SUBNET, Machine
from lab.model import Rule
from lab.neutron.client import Client
from lab.neutron.configuration import API_PORT, PHYSICAL_NETWORK, with_agent_flows
from lab.neutron.stack import Neutron
from lab.switch import Switch
from lab.vm import Vm

_HOST = "compute-1"
_MTU = 1500


class InNeutron(DemoCloud):
    """One controller and one compute host, with agent_flows loaded by configuration."""

    def start(self, log: Log) -> None:
        log("neutron", "starting all of Neutron in namespaces of its own; half a minute or more")
        options = with_agent_flows(_HOST, agent_flows=QUICK_RETRIES)
        self._neutron = Neutron(options, lambda part: log("neutron", part))
        self._stack.enter_context(self._neutron)
        log("neutron", f"the API answers on 127.0.0.1:{API_PORT}")

    @property
    def api(self) -> Client:
        return self._neutron.api

    @property
    def switch(self) -> Switch:
        return self._neutron.host.switch

    def network(self, name: str, vlan: int) -> None:
        provider = {
            "provider:network_type": "vlan",
            "provider:physical_network": PHYSICAL_NETWORK,
            "provider:segmentation_id": vlan,
        }
        network = self.api.create("networks", name=name, mtu=_MTU, **provider)
        self._networks[name] = network["id"]
        self.api.create(
            "subnets", network_id=network["id"], cidr=SUBNET, ip_version=4, enable_dhcp=False
        )

    def group(self, name: str, rules: Sequence[Rule]) -> None:
        self._groups[name] = self.api.group(name, rules)

    def remove_rule(self, group: str, rule: Rule) -> None:
        found = self.api.find("security_group_rules", security_group_id=self._groups[group], **rule)
        for installed in found:
            self.api.delete("security_group_rules", installed["id"])

    def machine(self, machine: Machine) -> Vm:
        address, _, _ = machine.address.partition("/")
        port = self.api.create(
            "ports",
            name=machine.name,
            network_id=self._networks[machine.network],
            fixed_ips=[{"ip_address": address}],
            security_groups=[self._groups[machine.group]],
            device_owner="compute:nova",
            device_id=machine.name,
            **{"binding:host_id": _HOST},
        )
        vm = Vm(
            self.switch,
            machine.name,
            port["mac_address"],
            [machine.address],
            port_id=port["id"],
            mtu=_MTU,
        )
        self._stack.enter_context(vm)
        vm.raise_link()  # Nova's part, where Neutron is
        return vm

    def how_to_look(self, vms: Collection[Vm]) -> list[str]:
        return list(self._how_to_look(next((vm.port_id for vm in vms), "ID")))

    def _how_to_look(self, port_id: str) -> Iterator[str]:
        controller, host = self._neutron.controller, self._neutron.host
        inside = f"ip netns exec {controller.namespace.name}"
        curl = f"{inside} curl -s 'http://127.0.0.1:{API_PORT}/v2.0"
        yield f"{curl}/ports/{port_id}'"
        yield f"{curl}/tasks?resource_id={port_id}'"
        yield f"{curl}/tasks?task_state=FAILED'"
        yield f"ovs-vsctl --db={host.switch.database} show"
        yield f"ovs-ofctl -O OpenFlow14 dump-flows {host.switch.management(BRIDGE)}"
        yield f"less {host.agent.log} {controller.api.log} {controller.rpc_server.log}"
