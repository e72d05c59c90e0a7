"""Changes made while the message bus was away are asked for again and applied."""

from collections.abc import Callable

import oslo_messaging
import pytest

from tests.functional.neutron.cloud import WEB, Cloud
from tests.functional.secgroups.host import Vm, outsider


@pytest.fixture
def group(cloud: Cloud) -> str:
    """A group that lets everything out and nothing in."""
    return cloud.open_group()


@pytest.fixture
def vm(cloud: Cloud, group: str) -> Vm:
    """A machine whose port is wired."""
    booted = cloud.boot(1)
    cloud.neutron_port(booted, group)
    cloud.wire_ports(booted)
    return booted


def elsewhere(number: int) -> Vm:
    """A machine on another host."""
    return outsider().but(id=f"99999999-0000-4000-8000-{number:012}", ip=f"10.0.1.{number}")


def test_an_added_rule_is_applied(cloud: Cloud, group: str, vm: Vm) -> None:
    with cloud.bus_away():
        cloud.rule(group, **WEB)
    cloud.loop()
    assert not cloud.tcp(outsider(), vm, 80)
    cloud.catch_up(vm)
    cloud.loop()
    assert cloud.tcp(outsider(), vm, 80)
    assert cloud.report(vm).security_group_revisions == {group: cloud.group_revision(group)}


def test_a_removed_rule_is_removed_here(cloud: Cloud, group: str, vm: Vm) -> None:
    rule = cloud.rule(group, **WEB)
    cloud.loop()
    assert cloud.tcp(outsider(), vm, 80)
    with cloud.bus_away():
        cloud.delete_rule(rule)
    cloud.catch_up()
    cloud.loop()
    assert not cloud.tcp(outsider(), vm, 80)


def test_a_rule_missing_at_the_server_for_a_moment_is_found_later(
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
def test_changed_members_of_a_remote_group_are_applied(
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


def test_a_server_of_the_first_release_is_asked_for_all_members(
    cloud: Cloud, group: str, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_members(security_group: str) -> dict[str, int]:
        raise oslo_messaging.RemoteError("Invalid", "call: must be one of get_ports, report")

    monkeypatch.setattr(cloud.server, "get_members", get_members)
    friends = cloud.security_group()
    cloud.rule(group, remote_group_id=friends, **WEB)
    leaving, coming = elsewhere(1), elsewhere(2)
    cloud.neutron_port(leaving, friends, host="compute-2")
    cloud.loop()
    with cloud.bus_away():
        cloud.delete_port(leaving)
        cloud.neutron_port(coming, friends, host="compute-2")
    cloud.catch_up(vm)
    cloud.loop()
    assert [each for each in (leaving, coming) if cloud.tcp(each, vm, 80)] == [coming]


def test_a_changed_address_group_is_applied(cloud: Cloud, group: str, vm: Vm) -> None:
    inside = cloud.address_group(["192.0.2.0/24"])
    cloud.rule(group, remote_address_group_id=inside, **WEB)
    cloud.loop()
    with cloud.bus_away():
        cloud.address_group(["198.51.100.0/24"], inside)
    cloud.catch_up(vm)
    cloud.loop()
    assert not cloud.tcp(outsider().but(ip="192.0.2.1"), vm, 80)
    assert cloud.tcp(outsider().but(ip="198.51.100.1"), vm, 80)


def test_another_group_of_a_port_is_applied(cloud: Cloud, vm: Vm) -> None:
    other = cloud.security_group()
    cloud.rule(other, **WEB)
    with cloud.bus_away():
        cloud.neutron_port(vm, other)
    cloud.catch_up(vm)
    cloud.update_ports(vm)
    assert cloud.tcp(outsider(), vm, 80)


def test_a_change_not_missed_is_not_applied_twice(cloud: Cloud, group: str, vm: Vm) -> None:
    cloud.rule(group, remote_group_id=group, **WEB)
    cloud.loop()
    number = len(cloud.reports)
    cloud.catch_up()
    assert not cloud.sg_agent.firewall_refresh_needed()
    cloud.loop()
    assert len(cloud.reports) == number
