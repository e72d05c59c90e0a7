"""What the server said while the message bus was away: asked for anew, it is in force."""

from collections.abc import Callable

import pytest

from tests.functional.neutron.cloud import Cloud
from tests.functional.secgroups.host import Vm, outsider

WEB = {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}


@pytest.fixture
def group(cloud: Cloud) -> str:
    """A group that lets everything out and nothing in."""
    made = cloud.security_group()
    cloud.everything_out(made)
    return made


@pytest.fixture
def vm(cloud: Cloud, group: str) -> Vm:
    """A machine whose port stands."""
    booted = cloud.boot(1)
    cloud.neutron_port(booted, group)
    cloud.wire_ports(booted)
    return booted


def elsewhere(number: int) -> Vm:
    """A machine on another host."""
    return outsider().but(id=f"99999999-0000-4000-8000-{number:012}", ip=f"10.0.1.{number}")


def test_a_rule_that_was_added(cloud: Cloud, group: str, vm: Vm) -> None:
    with cloud.bus_away():
        cloud.rule(group, **WEB)
    cloud.loop()
    assert not cloud.tcp(outsider(), vm, 80)
    cloud.catch_up(vm)
    cloud.loop()
    assert cloud.tcp(outsider(), vm, 80)
    assert cloud.report(vm).security_group_revisions == {group: cloud.group_revision(group)}


def test_a_rule_that_was_removed(cloud: Cloud, group: str, vm: Vm) -> None:
    rule = cloud.rule(group, **WEB)
    cloud.loop()
    assert cloud.tcp(outsider(), vm, 80)
    with cloud.bus_away():
        cloud.delete_rule(rule)
    cloud.catch_up()
    cloud.loop()
    assert not cloud.tcp(outsider(), vm, 80)


def test_a_rule_that_the_server_did_not_know_for_a_moment_is_not_lost_for_good(
    cloud: Cloud, group: str, vm: Vm
) -> None:
    """A replica of its database lagged behind."""
    with cloud.bus_away():
        cloud.delete_rule(cloud.rule(group, **WEB))
    rule = cloud.rule(group, **WEB)
    kept = cloud.server.find("SecurityGroupRule", rule)
    cloud.server.delete("SecurityGroupRule", rule)
    cloud.catch_up(vm)
    cloud.server.save("SecurityGroupRule", kept)
    cloud.catch_up(vm)
    cloud.loop()
    assert cloud.tcp(outsider(), vm, 80)


@pytest.mark.parametrize("whose", [lambda vm: [vm], lambda _: []], ids=["of a port", "of all"])
def test_members_of_a_remote_group_that_came_and_went(
    cloud: Cloud, group: str, vm: Vm, whose: Callable[[Vm], list[Vm]]
) -> None:
    friends = cloud.security_group()
    cloud.rule(group, remote_group_id=friends, **WEB)
    staying, moving, leaving, coming = map(elsewhere, range(1, 5))
    for each in (staying, moving, leaving):
        cloud.neutron_port(each, friends, host="compute-2")
    cloud.loop()
    with cloud.bus_away():
        cloud.neutron_port(moving, host="compute-2")
        cloud.delete_port(leaving)
        cloud.neutron_port(coming, friends, host="compute-2")
    cloud.catch_up(*whose(vm))
    cloud.loop()
    friendly = [each for each in (staying, moving, leaving, coming) if cloud.tcp(each, vm, 80)]
    assert friendly == [staying, coming]


def test_an_address_group_that_changed(cloud: Cloud, group: str, vm: Vm) -> None:
    inside = cloud.address_group(["192.0.2.0/24"])
    cloud.rule(group, remote_address_group_id=inside, **WEB)
    cloud.loop()
    with cloud.bus_away():
        cloud.address_group(["198.51.100.0/24"], inside)
    cloud.catch_up(vm)
    cloud.loop()
    assert not cloud.tcp(outsider().but(ip="192.0.2.1"), vm, 80)
    assert cloud.tcp(outsider().but(ip="198.51.100.1"), vm, 80)


def test_a_port_that_was_given_another_group(cloud: Cloud, vm: Vm) -> None:
    other = cloud.security_group()
    cloud.rule(other, **WEB)
    with cloud.bus_away():
        cloud.neutron_port(vm, other)
    cloud.catch_up(vm)
    cloud.update_ports(vm)
    assert cloud.tcp(outsider(), vm, 80)


def test_what_was_not_missed_is_not_told_twice(cloud: Cloud, group: str, vm: Vm) -> None:
    cloud.rule(group, remote_group_id=group, **WEB)
    cloud.loop()
    number = len(cloud.reports)
    cloud.catch_up()
    assert not cloud.sg_agent.firewall_refresh_needed()
    cloud.loop()
    assert len(cloud.reports) == number
