"""With Neutron's own firewall driver: a port is proven by what that driver installed."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from neutron_lib.callbacks import registry
from oslo_config import cfg

from agent_flows.neutron.verify import expected_flows
from agent_flows.neutron.verify.checks import Checks
from agent_flows.neutron.verify.watchlist import Watched
from agent_flows.report import FlowName, Step, Trouble
from lab.model import new_id
from lab.process import wait_until
from lab.switch import RULES_INGRESS, Switch
from tests.functional.neutron.cloud import SSH, WEB
from tests.functional.neutron.other_cloud import SECONDS, OtherCloud, error_of, succeeded
from tests.functional.secgroups.host import BRIDGE, Vm

ENTRY = 60


@pytest.fixture
def firewall_driver() -> str:
    return "openvswitch"


@pytest.fixture
def verify_timeout() -> float:
    return 1.0


@pytest.fixture
def cloud(
    dummy_switch: Switch,
    ofctl_calls: Path,
    firewall_driver: str,
    verify_timeout: float,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[OtherCloud]:
    # Where Neutron's ovs-ofctl finds the bridge.
    monkeypatch.setenv("OVS_RUNDIR", str(dummy_switch.run_dir))
    cfg.CONF.set_override("firewall_driver", firewall_driver, "SECURITYGROUP")
    cfg.CONF.set_override("verify_timeout", verify_timeout, "agent_flows")
    cfg.CONF.set_override("retry_max", 0.5, "agent_flows")
    dummy_switch.add_bridge(BRIDGE)
    cloud = OtherCloud(dummy_switch, ofctl_calls)
    try:
        yield cloud
    finally:
        cloud.stop_agent()
        registry.clear()
        dummy_switch.vsctl("del-br", BRIDGE)
        cfg.CONF.set_override("firewall_driver", "agent_flows", "SECURITYGROUP")
        cfg.CONF.clear_override("verify_timeout", "agent_flows")
        cfg.CONF.clear_override("retry_max", "agent_flows")


@pytest.fixture
def group(cloud: OtherCloud) -> str:
    """A group that lets everything out, the web in, and its members in."""
    made = cloud.open_group(WEB)
    cloud.rule(made, protocol="udp", remote_group_id=made)
    return made


@pytest.fixture
def wired(cloud: OtherCloud, group: str) -> Vm:
    """A port that was programmed and proven."""
    vm = cloud.boot_port(1, group)
    cloud.wire_ports(vm)
    cloud.proven(vm)
    return vm


def test_programmed_port_is_proven(cloud: OtherCloud, group: str) -> None:
    inside = cloud.address_group(["192.0.2.0/24", "2001:db8:77::/64"])
    cloud.rule(group, protocol="icmp", remote_address_group_id=inside)
    cloud.rule(group, remote_ip_prefix="198.51.100.0/25", protocol="sctp",
               port_range_min=1000, port_range_max=1999)  # fmt: skip
    a, b = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.wire_ports(a, b)
    cloud.proven(a, b)
    report = cloud.report(a)
    assert (report.flow, report.revision) == (FlowName.WIRE, 1)
    assert report.security_group_revisions == {group: cloud.group_revision(group)}
    assert [task.name for task in report.tasks] == [
        "locate-interface",
        "apply-security-groups",
        "verify-security-groups",
        "verify-wiring",
    ]
    assert report.proves(Step.L2)
    assert report.proves(Step.SECURITY_GROUPS)


def test_port_is_proven_only_after_the_driver_programmed_it(cloud: OtherCloud, group: str) -> None:
    vm = cloud.boot_port(1, group)
    cloud.bind(vm)
    cloud.take_up(vm)
    error = cloud.fails(vm, "FlowsMissing")
    assert f"table {ENTRY} of br-int has no flow" in error.message
    cloud.program(vm)
    cloud.proven(vm)


def test_refused_flows_are_missing_until_the_driver_writes_them_again(
    cloud: OtherCloud,
) -> None:
    web = cloud.security_group()
    cloud.rule(web, **WEB)
    vm = cloud.boot_port(1, web)
    with cloud.switch.full_table(spare=5):
        cloud.wire_ports(vm)
        error = cloud.fails(vm, "FlowsMissing")
    assert f"{cloud.bridge.default_cookie:#x}" in error.message
    # Nothing but a change makes Neutron's driver try again.
    cloud.rule(web, **SSH)
    cloud.loop()
    cloud.proven(vm)


def test_refused_member_that_the_driver_does_not_write_again_is_missing(
    cloud: OtherCloud, group: str
) -> None:
    vm = cloud.boot_port(1, group)
    cloud.switch.set_flow_limit(BRIDGE, RULES_INGRESS, 5)
    cloud.wire_ports(vm)
    cloud.fails(vm, "FlowsMissing")
    cloud.switch.lift_flow_limit(BRIDGE, RULES_INGRESS)
    seen = len(cloud.reports_of(vm))
    cloud.rule(group, **SSH)
    cloud.loop()
    error = cloud.fails(vm, "FlowsMissing", after=seen)
    assert "has 15 of the 17 flows" in error.message
    assert vm.ip in error.detail


def test_failing_port_does_not_delay_another(cloud: OtherCloud, group: str) -> None:
    good, bad = cloud.boot_port(1, group), cloud.boot_port(2, group)
    cloud.bind(good, bad)
    cloud.take_up(good, bad)
    cloud.program(good)
    cloud.fails(bad, "FlowsMissing")
    first = cloud.reports[0]
    assert first.resource_id == good.id
    assert succeeded(first)


def test_removed_flows_are_named_until_they_are_installed_again(
    cloud: OtherCloud, wired: Vm
) -> None:
    before = cloud.flows_of(wired, RULES_INGRESS)
    cloud.remove_flows(f"table={RULES_INGRESS},tcp,tp_dst=80")
    error = cloud.fails(wired, "FlowsMissing")
    assert f"table {RULES_INGRESS} of br-int has" in error.message
    assert "tp_dst=0x50" in error.detail
    assert cloud.report(wired).flow is FlowName.REFRESH
    cloud.write(before)
    cloud.proven(wired)


def test_flow_without_a_rule_is_surplus(cloud: OtherCloud, wired: Vm) -> None:
    ofport = cloud.switch.ofport(wired.name)
    match = f"table={RULES_INGRESS},priority=77,tcp,reg5={ofport},tp_dst=23"
    cloud.write([f"cookie=0x1234,{match} actions=output:{ofport}"])
    error = cloud.fails(wired, "FlowsSurplus")
    assert "1 flows that no rule demands" in error.message
    cloud.remove_flows(f"table={RULES_INGRESS},tcp,reg5={ofport},tp_dst=23")
    cloud.proven(wired)


def test_flow_without_a_cookie_is_surplus(cloud: OtherCloud, wired: Vm) -> None:
    ofport = cloud.switch.ofport(wired.name)
    match = f"table={RULES_INGRESS},priority=77,tcp,reg5={ofport},tp_dst=23"
    cloud.write([f"{match} actions=output:{ofport}"])
    assert "tp_dst=0x17" in cloud.fails(wired, "FlowsSurplus").detail


CHANGES = {
    "flows of the driver deleted": lambda cloud, vm: cloud.remove_flows(f"table={RULES_INGRESS}"),
    "flow of another program": lambda cloud, vm: cloud.write(
        [f"table={RULES_INGRESS},priority=77,tcp,reg5={cloud.switch.ofport(vm.name)} actions=drop"]
    ),
    "tag": lambda cloud, vm: cloud.switch.vsctl("set", "Port", vm.name, "tag=999"),
}


@pytest.mark.parametrize("verify_timeout", [600.0])
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_changed_port_is_looked_at_at_once(
    cloud: OtherCloud,
    wired: Vm,
    change: Callable[[OtherCloud, Vm], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found_bad = threading.Event()
    good = Checks.good

    def noting(checks: Checks, watched: Mapping[str, Watched]) -> set[str]:
        found = good(checks, watched)
        if wired.id in watched.keys() - found:
            found_bad.set()
        return found

    monkeypatch.setattr(Checks, "good", noting)
    change(cloud, wired)
    assert found_bad.wait(SECONDS)


def test_removed_member_is_missing(cloud: OtherCloud, wired: Vm, group: str) -> None:
    other = cloud.boot_port(2, group)
    cloud.wire_ports(other)
    cloud.loop()
    cloud.proven(wired, other)
    cloud.remove_flows(f"table={RULES_INGRESS},ip,nw_src={other.ip}")
    error = cloud.fails(wired, "FlowsMissing")
    assert other.ip in error.detail


def test_flows_of_an_earlier_agent_do_not_count(cloud: OtherCloud, wired: Vm) -> None:
    seen = len(cloud.reports_of(wired))
    cloud.stop_agent()
    cloud.start_agent()
    cloud.take_up(wired, status="ACTIVE")
    error = cloud.fails(wired, "FlowsMissing", after=seen)
    assert f"{cloud.bridge.default_cookie:#x}" in error.message
    assert cloud.flows_of(wired, ENTRY)
    cloud.program(wired)
    cloud.proven(wired)


def test_changed_rule_is_reported_once_it_is_installed(
    cloud: OtherCloud, wired: Vm, group: str
) -> None:
    seen = len(cloud.reports_of(wired))
    cloud.rule(group, **SSH)
    cloud.loop()
    report = cloud.reported(wired, succeeded, after=seen)
    assert report.flow is FlowName.REFRESH
    assert any("tp_dst=22" in each for each in cloud.flows_of(wired, RULES_INGRESS))


def test_changed_rule_that_is_not_installed_is_a_failure(
    cloud: OtherCloud, wired: Vm, group: str
) -> None:
    cloud.rule(group, **SSH)
    error = cloud.fails(wired, "FlowsMissing")
    assert "tp_dst=0x16" in error.detail
    cloud.loop()
    cloud.proven(wired)


def test_deleted_rule_that_is_still_installed_is_a_failure(
    cloud: OtherCloud, wired: Vm, group: str
) -> None:
    rule = cloud.rule(group, **SSH)
    cloud.loop()
    cloud.delete_rule(rule)
    error = cloud.fails(wired, "FlowsSurplus")
    assert "tp_dst=0x16" in error.detail
    cloud.loop()
    cloud.proven(wired)


def test_unchanged_active_port_is_not_reported_again(
    cloud: OtherCloud, wired: Vm, group: str
) -> None:
    seen = len(cloud.reports_of(wired))
    cloud.take_up(wired, status="ACTIVE")
    other = cloud.boot_port(2, group)
    cloud.wire_ports(other)
    cloud.proven(other)
    assert len(cloud.reports_of(wired)) == seen


def test_port_that_is_not_active_is_reported_again(cloud: OtherCloud, wired: Vm) -> None:
    seen = len(cloud.reports_of(wired))
    before = cloud.report(wired)
    cloud.take_up(wired, status="DOWN")
    report = cloud.reported(wired, succeeded, after=seen)
    assert (report.flow, report.revision) == (FlowName.WIRE, before.revision)


def test_resync_reports_again(cloud: OtherCloud, wired: Vm) -> None:
    seen = len(cloud.reports_of(wired))
    cloud.verifier.resync([wired.id])
    assert cloud.reported(wired, succeeded, after=seen).flow is FlowName.WIRE


def test_resync_of_an_absent_port_reports_its_absence(cloud: OtherCloud) -> None:
    plugged, absent = cloud.boot(1), new_id()
    cloud.sees(plugged)
    cloud.verifier.resync([plugged.id, absent])
    (report,) = cloud.reports
    assert (report.resource_id, report.flow, report.failed) == (absent, FlowName.UNWIRE, None)


def test_unfiltered_port_needs_its_accept_flows(cloud: OtherCloud, group: str) -> None:
    vm = cloud.boot_port(1, port_security_enabled=False)
    service = cloud.boot_port(2, device_owner="network:dhcp")
    cloud.wire_ports(vm, service)
    cloud.proven(vm, service)
    seen = len(cloud.reports_of(vm))
    cloud.remove_flows(f"table=73,reg5={cloud.switch.ofport(vm.name)}")
    assert "table 73" in cloud.fails(vm, "FlowsMissing", after=seen).message
    # It is filtered from now on: its accept flows must go.
    cloud.neutron_port(vm, group)
    cloud.take_up(vm)
    cloud.update_ports(vm)
    cloud.proven(vm)


def test_wrong_vlan_fails_verify_wiring(cloud: OtherCloud, wired: Vm) -> None:
    cloud.bridge.set_db_attribute("Port", wired.name, "tag", 4095, check_error=True)
    error = cloud.fails(wired, "WrongTag")
    assert "4095 instead of 1" in error.message
    failed = cloud.reported(wired, lambda report: error_of(report) == error).failed
    assert failed is not None
    assert (failed.name, failed.step) == ("verify-wiring", Step.L2)
    cloud.bridge.set_db_attribute("Port", wired.name, "tag", 1, check_error=True)
    cloud.proven(wired)


def test_port_with_admin_state_down_must_be_on_the_dead_vlan(
    cloud: OtherCloud, wired: Vm, group: str
) -> None:
    cloud.neutron_port(wired, group, admin_state_up=False)
    cloud.take_up(wired)
    assert "1 instead of 4095" in cloud.fails(wired, "WrongTag").message
    cloud.bridge.set_db_attribute("Port", wired.name, "tag", 4095, check_error=True)
    cloud.proven(wired)


def test_removed_port_is_unwired_once_its_flows_are_gone(cloud: OtherCloud, wired: Vm) -> None:
    cloud.unplug(wired.name)
    cloud.verifier.gone(wired.id)
    error = cloud.fails(wired, "FlowsSurplus")
    assert "belong to a port that is gone" in error.message
    cloud.sg_agent.remove_devices_filter({wired.id})
    cloud.proven(wired)
    assert cloud.report(wired).flow is FlowName.UNWIRE


def test_unplugged_port_fails_as_such(cloud: OtherCloud, group: str) -> None:
    vm = cloud.boot_port(1, group)
    cloud.bind(vm)
    cloud.take_up(vm)
    cloud.unplug(vm.name)
    cloud.gone(vm)
    cloud.fails(vm, "InterfaceNotFound")


def test_unreachable_switch_is_every_ports_failure(cloud: OtherCloud, wired: Vm) -> None:
    with cloud.switch_stopped():
        assert cloud.fails(wired, "SwitchUnreachable").detail


def test_ports_are_proven_again_after_a_restart_of_the_switch(cloud: OtherCloud, wired: Vm) -> None:
    with cloud.switch_stopped():
        pass
    cloud.fails(wired, "FlowsMissing")
    cloud.recover()
    cloud.sees(wired)
    cloud.program(wired)
    cloud.proven(wired)


def test_reports_that_could_not_be_delivered_are_delivered_later(
    cloud: OtherCloud, group: str
) -> None:
    refused = threading.Event()

    def refuse(_: object) -> None:
        refused.set()
        raise OSError("disk full")

    cloud.verifier.report_to(replace(cloud.reporting, deliver=refuse))
    vm = cloud.boot_port(1, group)
    cloud.wire_ports(vm)
    assert refused.wait(SECONDS)
    cloud.verifier.report_to(cloud.reporting)
    cloud.proven(vm)


@pytest.mark.parametrize("firewall_driver", ["noop"])
def test_noop_driver_needs_only_the_wiring(cloud: OtherCloud, group: str) -> None:
    vm = cloud.boot_port(1, group)
    cloud.wire_ports(vm)
    cloud.proven(vm)
    report = cloud.report(vm)
    assert report.proves(Step.SECURITY_GROUPS)
    assert cloud.flows_of(vm, ENTRY) == []
    cloud.bridge.set_db_attribute("Port", vm.name, "tag", 4095, check_error=True)
    cloud.fails(vm, "WrongTag")


def test_port_whose_group_is_gone_from_the_cache_delays_no_other(
    cloud: OtherCloud, wired: Vm, group: str
) -> None:
    gone = cloud.security_group()
    cloud.rule(gone, **WEB)
    odd = cloud.boot_port(2, gone)
    cloud.wire_ports(odd)
    cloud.proven(odd)
    cloud.lose_group(gone)
    cloud.take_up(odd)
    new = cloud.boot_port(3, group)
    cloud.wire_ports(new)
    cloud.proven(new)
    assert "stateful" in cloud.fails(odd, "GroupsUnreadable").message


def test_port_for_which_the_generators_raise_delays_no_other(
    cloud: OtherCloud, wired: Vm, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, new = cloud.boot_port(2, group), cloud.boot_port(3, group)
    original = expected_flows.Generator.expected

    def raising(generator: expected_flows.Generator, port_id: str, *rest: Any) -> Any:
        if port_id == odd.id:
            raise KeyError("ethertype")
        return original(generator, port_id, *rest)

    monkeypatch.setattr(expected_flows.Generator, "expected", raising)
    cloud.wire_ports(odd, new)
    cloud.proven(new)
    assert "ethertype" in cloud.fails(odd, "KeyError").message


def test_look_that_raises_is_the_hosts_trouble_until_the_next_look(
    cloud: OtherCloud, wired: Vm, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = cloud.boot_port(2, group)
    with monkeypatch.context() as broken:
        broken.setattr(Checks, "good", mock.Mock(side_effect=OSError("cannot fork")))
        cloud.wire_ports(new)
        trouble = wait_until(
            lambda: cloud.verifier.troubles.current().get(Trouble.PORTS), SECONDS, "the trouble"
        )
        assert "cannot fork" in trouble
    cloud.proven(new)
    wait_until(lambda: not cloud.verifier.troubles.current(), SECONDS, "no trouble")
