"""Flows on Neutron's bridge that another tool changed, deleted or added, and a resync."""

import pytest

from agent_flows.report import FlowName
from lab.process import wait_until
from tests.functional.neutron.cloud import WEB, Cloud
from tests.functional.secgroups.host import BRIDGE, Vm, outsider

STRANGER = "0x99"


@pytest.fixture
def vms(cloud: Cloud) -> list[Vm]:
    """Two wired ports that let the web in."""
    group = cloud.security_group()
    cloud.everything_out(group)
    cloud.rule(group, **WEB)
    made = [cloud.boot(1), cloud.boot(2)]
    for vm in made:
        cloud.neutron_port(vm, group)
    cloud.wire_ports(*made)
    assert cloud.tcp(outsider(), made[0], 80)
    assert not cloud.tcp(outsider(), made[0], 81)
    return made


def ofctl(cloud: Cloud, command: str, *args: str) -> None:
    cloud.switch.ofctl(command, cloud.switch.management(BRIDGE), *args)
    # Else the datapath may decide the next packet by what it cached before.
    cloud.switch.appctl("revalidator/purge")


def stranger(cloud: Cloud, vm: Vm, text: str) -> str:
    """Add a flow without a known cookie."""
    made = text.format(ofport=cloud.switch.ofport(vm.name), mac=vm.mac)
    ofctl(cloud, "add-flow", made)
    return made


@pytest.mark.parametrize(
    ("change", "port", "right"),
    [
        (("mod-flows", "table=82,tcp,tp_dst=80 actions=drop"), 80, True),
        (("mod-flows", "--strict", "table=82,priority=0 actions=resubmit(,83)"), 81, False),
        (("mod-flows", "table=84,reg5={ofport} actions=drop"), 80, True),
        (("del-flows", "table=82"), 80, True),
        (("del-flows", "cookie=0xaf10000000000000/0xffff000000000000"), 81, False),
    ],
)
def test_resync_restores_changed_flows_of_ours(
    cloud: Cloud, vms: list[Vm], change: tuple[str, ...], port: int, right: bool
) -> None:
    before = sorted(cloud.ofctl.dump())
    ofport = cloud.switch.ofport(vms[0].name)
    ofctl(cloud, *(each.format(ofport=ofport) for each in change))
    assert cloud.tcp(outsider(), vms[0], port) is not right
    cloud.driver.resync([vms[0].id])
    assert cloud.succeeded(vms[0])
    assert cloud.tcp(outsider(), vms[0], port) is right
    assert sorted(cloud.ofctl.dump()) == before


@pytest.mark.parametrize(
    "text",
    [
        "table=82,priority=65000,reg5={ofport},actions=output:{ofport}",
        "table=81,priority=1000,tcp,reg5={ofport},actions=resubmit(,84)",
        "table=60,priority=500,dl_vlan=1,dl_dst={mac},actions=strip_vlan,output:{ofport}",
        "table=0,priority=500,dl_dst={mac},actions=output:{ofport}",
    ],
)
def test_resync_fails_a_port_whose_packets_a_strangers_flow_decides(
    cloud: Cloud, vms: list[Vm], text: str
) -> None:
    added = stranger(cloud, vms[0], text)
    ofctl(cloud, "add-flow", f"cookie={STRANGER},{added}")
    assert cloud.tcp(outsider(), vms[0], 81)
    cloud.driver.resync([each.id for each in vms])
    assert cloud.report(vms[0]).flow is FlowName.WIRE
    error = cloud.error(vms[0])
    assert error.type == "StrangersFlow"
    assert f"cookie={STRANGER},{added.partition(',reg5')[0].partition(',dl_')[0]}" in error.detail
    # On Neutron's bridge it is not ours to remove.
    assert len(cloud.switch.flows(BRIDGE, f"cookie={STRANGER}/-1")) == 1
    ofctl(cloud, "del-flows", f"cookie={STRANGER}/-1")
    cloud.heals(vms[0])
    assert not cloud.tcp(outsider(), vms[0], 81)


def test_strangers_flow_that_names_another_port_fails_that_port_alone(
    cloud: Cloud, vms: list[Vm]
) -> None:
    stranger(cloud, vms[1], "table=82,priority=65000,reg5={ofport},actions=output:{ofport}")
    cloud.driver.resync()
    assert cloud.error(vms[1]).type == "StrangersFlow"
    wait_until(lambda: cloud.succeeded(vms[0]), 10, "the other port succeeds")


def test_flow_with_the_agents_cookie_is_accepted(cloud: Cloud, vms: list[Vm]) -> None:
    stranger(
        cloud,
        vms[0],
        f"table=60,priority=101,cookie={cloud.bridge.default_cookie:#x},udp,in_port={{ofport}},"
        "tp_dst=67,actions=drop",
    )
    cloud.driver.resync()
    assert cloud.succeeded(vms[0])
    assert len(cloud.switch.flows(BRIDGE, "table=60,udp")) == 1


def test_flow_with_a_copied_cookie_is_removed(cloud: Cloud, vms: list[Vm]) -> None:
    before = sorted(cloud.ofctl.dump())
    copied = next(entry.cookie for entry in before if "reg5" in entry.fields)
    stranger(
        cloud,
        vms[0],
        f"cookie={copied:#x},table=82,priority=65000,reg5={{ofport}},actions=output:{{ofport}}",
    )
    assert cloud.tcp(outsider(), vms[0], 81)
    cloud.driver.resync([vms[0].id])
    assert cloud.succeeded(vms[0])
    assert not cloud.tcp(outsider(), vms[0], 81)
    assert sorted(cloud.ofctl.dump()) == before
