"""With any security groups: what Neutron's driver installs is found complete, and each single flow
of it is found missing if it is not installed."""

import random
from collections.abc import Iterator
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import HealthCheck
from neutron_lib.callbacks import registry
from oslo_config import cfg

from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.resource_cache import Known
from agent_flows.neutron.verify import compare
from agent_flows.neutron.verify.compare import ExpectedFlows, InstalledFlows
from agent_flows.neutron.verify.expected_flows import Generator, Groups, conjunction_ids
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.spec import NetworkSpec, NetworkType
from lab.switch import Switch
from tests.conformance import theirs
from tests.conformance.agent_input import agent_input, identity
from tests.conformance.bridges import SLOTS
from tests.conformance.world import World
from tests.conformance.worlds import worlds

BRIDGE = "br-theirs"
COOKIE = 0x7E07
"""Of the bridge object that replaces the agent's."""


@pytest.fixture
def bridge(dummy_switch: Switch) -> Iterator[Switch]:
    dummy_switch.add_bridge(BRIDGE)
    yield dummy_switch
    dummy_switch.vsctl("del-br", BRIDGE)
    cfg.CONF.set_override("permitted_ethertypes", ["0x4000"], "SECURITYGROUP")
    registry.clear()


def installed(switch: Switch, world: World) -> list[FlowEntry]:
    """The bridge's flows after Neutron's driver programmed it."""
    switch.bundle(BRIDGE, "delete", *theirs.flows(world, lambda number: f"theirs{number}"))
    return Ofctl(str(switch.run_dir), BRIDGE, 10).dump(0, 0)


def expected_of(world: World) -> dict[int, ExpectedFlows]:
    """By ofport."""
    info = agent_input(world)
    devices = {device["device"]: device for device in info.devices}
    groups = Groups(Known({}, info.rules, info.members, {}))
    bridge = SimpleNamespace(is_hw_offload_enabled=False)
    ethertypes = [f"{number:#06x}" for number in world.permitted_ethertypes]
    generator = Generator(bridge, ethertypes, groups, conjunction_ids())
    ids = {number: identity(f"port {number}") for number in world.ports}
    return {
        number: generator.expected(port_id, devices.get(port_id), plugged(world, number))
        for number, port_id in ids.items()
    }


def plugged(world: World, number: int) -> Interface:
    port = world.ports[number]
    network = world.networks[port.vlan]
    kind = NetworkType(network.kind)
    spec = NetworkSpec(
        "22222222-2222-2222-2222-222222222222",
        kind,
        None if kind is NetworkType.FLAT else network.segment,
        "physnet1" if kind in (NetworkType.FLAT, NetworkType.VLAN) else None,
    )
    return Interface(f"theirs{number}", number, port.vlan, spec, port.mac)


def test_exactly_the_flows_of_the_driver_are_expected(bridge: Switch) -> None:
    chosen = random.Random(1)

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=25,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(worlds(SLOTS, of_neutron=True, segments_like_vlans=True))
    def holds(world: World) -> None:
        flows = installed(bridge, world)
        complete = InstalledFlows(BRIDGE, flows)
        for ofport, expected in expected_of(world).items():
            assert compare.compare(expected, complete, ofport, COOKIE).good
            gone = chosen.choice([flow for flow in flows if ofport in flow.matched_ports])
            without = InstalledFlows(BRIDGE, [flow for flow in flows if flow != gone])
            assert compare.compare(expected, without, ofport, COOKIE).missing, gone
            stale = FlowEntry(0x1234, *gone[1:])
            older = InstalledFlows(BRIDGE, [stale if flow == gone else flow for flow in flows])
            assert compare.compare(expected, older, ofport, COOKIE).missing, gone

    holds()
