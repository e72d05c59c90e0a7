"""A world in our words, and our firewall installing it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from agent_flows import spec
from agent_flows.neutron.agent.desired_state import DesiredPorts
from agent_flows.neutron.interfaces import Interface
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import DesiredState, NetworkSpec
from lab import model
from tests.conformance import agent_input
from tests.conformance.agent_input import identity
from tests.conformance.world import ICMP, ICMPV6, Guard, Network, Rule, World

_SECONDS = 60


Bend = Callable[[str], str]
"""Changes a line on its way into the switch, or to nothing: for tests of the tests."""


class Engine:
    """Our firewall on one bridge, brought from world to world.

    On Neutron's bridge it learns of a world as our driver does, from what the
    agent passes to it; on our own by specs.
    """

    def __init__(
        self,
        run_dir: Path,
        bridge: str,
        home: Home,
        permitted_ethertypes: frozenset[int] = frozenset(),
        bend: Bend | None = None,
    ) -> None:
        ofctl = _Bent(str(run_dir), bridge, bend) if bend else Ofctl(str(run_dir), bridge, _SECONDS)
        self._firewall = Firewall(ofctl, Pipeline(home, permitted_ethertypes))
        self._verifies = bend is None
        self._neutrons = DesiredPorts("here") if home is Home.NEUTRON else None
        self._revision = 0
        self._ports: frozenset[str] = frozenset()

    def start(self) -> None:
        self._firewall.start()

    def go_to(self, world: World) -> None:
        """From the installed flows, as one batch; read back unless a fault is put in."""
        self._revision += 1
        attachments = {
            identity(f"port {number}"): Attachment(identity(f"port {number}"), number, port.vlan)
            for number, port in world.ports.items()
        }
        self._firewall.remove(self._ports - set(attachments))
        self._firewall.apply(self._desired(world), attachments)
        if self._verifies:
            self._firewall.verify(list(attachments))
        self._firewall.commit(list(attachments))
        self._ports = frozenset(attachments)

    def sweep(self) -> None:
        """Remove what an earlier agent has left."""
        self._firewall.sweep(self._ports)

    def _desired(self, world: World) -> DesiredState:
        if self._neutrons is None:
            return DesiredState.of(_specs(world, self._revision))
        given = agent_input.agent_input(world)
        for port_id in self._neutrons.port_ids():
            self._neutrons.remove(port_id)
        for group, rules in given.rules.items():
            self._neutrons.set_rules(group, rules)
        for group, members in given.members.items():
            self._neutrons.set_members(group, members)
        for device in given.devices:
            self._neutrons.set_port(device)
        for port_id in given.trusted:
            self._neutrons.set_trusted(port_id)
        self._neutrons.forget_unused()
        wanted = self._neutrons.resolve(
            {
                identity(f"port {number}"): Interface(
                    f"tap{number}",
                    number,
                    port.vlan,
                    network(port.vlan, world.networks[port.vlan]),
                    port.mac,
                )
                for number, port in world.ports.items()
            }
        )
        assert not wanted.refused, wanted.refused
        return wanted.state


class _Bent(Ofctl):
    """The switch's tool with a fault in it."""

    def __init__(self, run_dir: str, bridge: str, bend: Bend) -> None:
        super().__init__(run_dir, bridge, _SECONDS)
        self._bend = bend

    def bundle(self, lines: Sequence[str]) -> None:
        super().bundle([bent for line in lines if (bent := self._bend(line))])


def network(vlan: int, given: Network) -> NetworkSpec:
    return model.network(given.kind, id=identity(f"network {vlan}"), segmentation_id=given.segment)


def _specs(world: World, revision: int) -> list[spec.Spec]:
    groups = {
        name: model.group(
            *(_rule(world, rule) for rule in group.rules),
            members=[
                {"address": str(prefix), "mac_address": mac}
                for mac, prefix in sorted(world.members(name), key=str)
            ],
            id=identity(name),
            revision=revision,
            stateful=group.stateful,
        )
        for name, group in world.groups.items()
    }
    ports = [
        model.port(
            *(groups[name] for name in port.groups),
            id=identity(f"port {number}"),
            revision=revision,
            network=network(port.vlan, world.networks[port.vlan]),
            mac_address=port.mac,
            fixed_ips=port.addresses,
            allowed_address_pairs=[
                {"ip_address": prefix, "mac_address": mac} for mac, prefix in port.pairs
            ],
            port_security_enabled=port.guard is not Guard.OFF,
            device_owner="network:dhcp" if port.guard is Guard.TRUSTED else "compute:nova",
        )
        for number, port in world.ports.items()
    ]
    address_groups = [
        model.address_group(*map(str, prefixes), id=identity(name))
        for name, prefixes in world.address_groups.items()
    ]
    return [*ports, *groups.values(), *address_groups]


def _rule(world: World, rule: Rule) -> dict[str, object]:
    made: dict[str, object] = {
        "direction": "egress" if rule.egress else "ingress",
        "ethertype": f"IPv{rule.version}",
        "protocol": rule.protocol,
    }
    if rule.protocol in (ICMP, ICMPV6) and rule.icmp is not None:
        made["port_range_min"], made["port_range_max"] = rule.icmp
    if rule.ports is not None:
        made["port_range_min"], made["port_range_max"] = rule.ports
    if rule.source_ports is not None:
        made["source_port_range_min"], made["source_port_range_max"] = rule.source_ports
    if isinstance(rule.remote, str):
        kind = "address_group" if rule.remote in world.address_groups else "group"
        made[f"remote_{kind}_id"] = identity(rule.remote)
    elif rule.remote is not None:
        made["remote_ip_prefix"] = str(rule.remote)
    return made
