"""The demonstration without Neutron: agent_flows all-in-one beside a switch."""

from collections.abc import Collection, Sequence

from lab.cloud import Cloud
from lab.demo.cloud import BRIDGE, QUICK_RETRIES, DemoCloud, Log
from lab.demo.scenario import Machine
from lab.forward import Forward
from lab.model import Rule, egress_to_anywhere, random_mac
from lab.product import PROGRAM, Site
from lab.rest import DEFAULT_PORT, Api
from lab.switch import Switch
from lab.vm import Vm

_HOST = "quickstart"
_PHYSICAL, _PHYSICAL_BRIDGE = "physnet1", "br-phys"


class Standalone(DemoCloud):
    """The cloud is agent_flows' own port directory."""

    def __init__(self) -> None:
        super().__init__()
        self._switch = Switch("quickstart")
        self._rules: dict[str, list[Rule]] = {}

    def start(self, log: Log) -> None:
        log("switch", "starting Open vSwitch in a namespace of its own")
        self._stack.enter_context(self._switch)
        self._switch.add_bridge(_PHYSICAL_BRIDGE, fail_mode="standalone")
        log("server", "starting agent-flows all-in-one beside it")
        self._site = self._stack.enter_context(
            Site(
                self._switch,
                _HOST,
                bridge_mappings={_PHYSICAL: _PHYSICAL_BRIDGE},
                options={"agent_flows": QUICK_RETRIES},
            )
        )
        self._site.start_all_in_one()
        log("server", f"the API answers on 127.0.0.1:{DEFAULT_PORT}")
        # A browser is not in the namespace.
        self._page = self._stack.enter_context(Forward(self._switch.namespace, DEFAULT_PORT))
        log("server", f"the status page is at {self._address}")
        self._cloud = Cloud(self._site.api, _HOST)

    @property
    def _address(self) -> str:
        return f"http://127.0.0.1:{self._page.port}/"

    @property
    def api(self) -> Api:
        return self._site.api

    @property
    def switch(self) -> Switch:
        return self._switch

    def network(self, name: str, vlan: int) -> None:
        self._networks[name] = self._cloud.network(
            "vlan", segmentation_id=vlan, physical_network=_PHYSICAL, mtu=1500
        )

    def group(self, name: str, rules: Sequence[Rule]) -> None:
        self._rules[name] = [*rules, *egress_to_anywhere()]
        self._groups[name] = self._cloud.group(name, self._rules[name])

    def remove_rule(self, group: str, rule: Rule) -> None:
        self._rules[group].remove(rule)
        self._cloud.group(group, self._rules[group], self._groups[group])

    def machine(self, machine: Machine) -> Vm:
        vm = Vm(self._switch, machine.name, random_mac(), [machine.address])
        self._stack.enter_context(vm)
        self._cloud.port(vm, self._networks[machine.network], [self._groups[machine.group]])
        return vm

    def how_to_look(self, vms: Collection[Vm]) -> list[str]:
        program = f"ip netns exec {self._switch.namespace.name} {PROGRAM}"
        # The last one is the one that the switch refused.
        *_, port = "ID", *(vm.port_id for vm in vms)
        return [
            f"curl {self._address}   # the status page: open it in a browser",
            f"curl {self._address}page/ports/{port}   # a port that the switch refused, and why",
            f"{program} port list",
            f"{program} port show {port}",
            f"{program} task list --state FAILED",
            f"ovs-vsctl --db={self._switch.database} show",
            f"ovs-ofctl -O OpenFlow14 dump-flows {self._switch.management(BRIDGE)}",
            f"tail -f {self._site.all_in_one.log}",
        ]
