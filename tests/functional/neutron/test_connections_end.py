"""A port's connections end with it: the next port of its address or VLAN gets none of them."""

from agent_flows.report import FlowName
from tests.functional.neutron.cloud import Cloud
from tests.functional.secgroups.host import Vm, outsider


def open_group(cloud: Cloud) -> str:
    group = cloud.security_group()
    cloud.everything_out(group)
    cloud.rule(group, protocol="tcp", port_range_min=80, port_range_max=80)
    return group


def wired(cloud: Cloud, group: str, *numbers: int) -> list[Vm]:
    vms = [cloud.boot(number) for number in numbers]
    for vm in vms:
        cloud.neutron_port(vm, group)
    cloud.wire_ports(*vms)
    return vms


def connections(cloud: Cloud, address: str) -> list[str]:
    lines = cloud.switch.appctl("dpctl/dump-conntrack").splitlines()
    return [line for line in lines if f"src={address}," in line]


def test_a_ports_connections_end_when_it_leaves_and_no_others_do(cloud: Cloud) -> None:
    leaves, stays, other = wired(cloud, open_group(cloud), 1, 2, 3)
    assert cloud.connect(leaves, other, 80)
    assert cloud.connect(other, leaves, 80)
    assert cloud.connect(stays, other, 80)
    cloud.remove(leaves)
    (gone,) = [each for each in cloud.reports if each.flow is FlowName.UNWIRE]
    assert (gone.resource_id, gone.failed) == (leaves.id, None)
    assert connections(cloud, leaves.ip) == []
    assert connections(cloud, stays.ip)


def test_a_zone_is_empty_when_its_last_port_has_left(cloud: Cloud) -> None:
    (last,) = wired(cloud, open_group(cloud), 1)
    outside = outsider()
    assert cloud.connect(outside, last, 80)
    assert connections(cloud, outside.ip)
    cloud.remove(last)
    assert connections(cloud, outside.ip) == []
