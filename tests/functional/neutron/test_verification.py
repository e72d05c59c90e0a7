"""With Neutron's own firewall driver: a port is proven by what that driver left in the switch."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from neutron_lib.callbacks import registry
from oslo_config import cfg

from agent_flows.neutron.verify import expected_flows
from agent_flows.neutron.verify.checks import Checks
from agent_flows.report import FlowName, Step, Trouble
from lab.process import wait_until
from lab.server_parts import new_id
from lab.switch import Switch
from tests.functional.neutron.other_cloud import SECONDS, OtherCloud, error_of, succeeded
from tests.functional.secgroups.host import BRIDGE, Vm

RULES_EGRESS, RULES_INGRESS, ENTRY = 72, 82, 60
WEB = {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
SSH = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}


@pytest.fixture
def firewall_driver() -> str:
    return "openvswitch"


@pytest.fixture
def cloud(
    dummy_switch: Switch,
    ofctl_calls: Path,
    firewall_driver: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[OtherCloud]:
    # Where Neutron's ovs-ofctl finds the bridge.
    monkeypatch.setenv("OVS_RUNDIR", str(dummy_switch.run_dir))
    cfg.CONF.set_override("firewall_driver", firewall_driver, "SECURITYGROUP")
    cfg.CONF.set_override("verify_timeout", 1.0, "agent_flows")
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
    made = cloud.security_group()
    cloud.everything_out(made)
    cloud.rule(made, **WEB)
    cloud.rule(made, protocol="udp", remote_group_id=made)
    return made


def boot(cloud: OtherCloud, number: int, *groups: str, **fields: object) -> Vm:
    vm = cloud.boot(number)
    cloud.neutron_port(vm, *groups, **fields)
    return vm


@pytest.fixture
def standing(cloud: OtherCloud, group: str) -> Vm:
    """A port that was programmed and proven."""
    vm = boot(cloud, 1, group)
    cloud.wire_ports(vm)
    cloud.proven(vm)
    return vm


def test_a_port_that_the_driver_programmed_is_proven(cloud: OtherCloud, group: str) -> None:
    inside = cloud.address_group(["192.0.2.0/24", "2001:db8:77::/64"])
    cloud.rule(group, protocol="icmp", remote_address_group_id=inside)
    cloud.rule(group, remote_ip_prefix="198.51.100.0/25", protocol="sctp",
               port_range_min=1000, port_range_max=1999)  # fmt: skip
    a, b = boot(cloud, 1, group), boot(cloud, 2, group)
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


def test_a_port_is_proven_only_once_the_driver_has_been_there(
    cloud: OtherCloud, group: str
) -> None:
    vm = boot(cloud, 1, group)
    cloud.bind(vm)
    cloud.take_up(vm)
    error = cloud.fails(vm, "FlowsMissing")
    assert f"table {ENTRY} of br-int has no flow" in error.message
    cloud.program(vm)
    cloud.proven(vm)


def test_what_the_switch_refused_is_missed_until_the_driver_writes_it_again(
    cloud: OtherCloud,
) -> None:
    web = cloud.security_group()
    cloud.rule(web, **WEB)
    vm = boot(cloud, 1, web)
    room = len(cloud.switch.flows(BRIDGE, f"table={RULES_INGRESS}")) + 5
    cloud.switch.set_flow_limit(BRIDGE, RULES_INGRESS, room)
    cloud.wire_ports(vm)
    error = cloud.fails(vm, "FlowsMissing")
    assert f"{cloud.bridge.default_cookie:#x}" in error.message
    cloud.switch.lift_flow_limit(BRIDGE, RULES_INGRESS)
    # Nothing but a change makes Neutron's driver try again.
    cloud.rule(web, **SSH)
    cloud.loop()
    cloud.proven(vm)


def test_a_member_that_was_refused_is_missed_for_the_driver_believes_it_is_there(
    cloud: OtherCloud, group: str
) -> None:
    vm = boot(cloud, 1, group)
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


def test_one_ports_trouble_is_its_own(cloud: OtherCloud, group: str) -> None:
    good, bad = boot(cloud, 1, group), boot(cloud, 2, group)
    cloud.bind(good, bad)
    cloud.take_up(good, bad)
    cloud.program(good)
    cloud.fails(bad, "FlowsMissing")
    first = cloud.reports[0]
    assert first.resource_id == good.id
    assert succeeded(first)


def test_flows_that_somebody_removed_are_noticed_named_and_missed_until_they_are_back(
    cloud: OtherCloud, standing: Vm
) -> None:
    before = cloud.flows_of(standing, RULES_INGRESS)
    cloud.remove_flows(f"table={RULES_INGRESS},tcp,tp_dst=80")
    error = cloud.fails(standing, "FlowsMissing")
    assert f"table {RULES_INGRESS} of br-int has" in error.message
    assert "tp_dst=0x50" in error.detail
    assert cloud.report(standing).flow is FlowName.REFRESH
    cloud.write(before)
    cloud.proven(standing)


def test_a_flow_that_no_rule_demands_is_noticed(cloud: OtherCloud, standing: Vm) -> None:
    ofport = cloud.switch.ofport(standing.name)
    match = f"table={RULES_INGRESS},priority=77,tcp,reg5={ofport},tp_dst=23"
    cloud.write([f"cookie=0x1234,{match} actions=output:{ofport}"])
    error = cloud.fails(standing, "FlowsSurplus")
    assert "1 flows that no rule demands" in error.message
    cloud.remove_flows(f"table={RULES_INGRESS},tcp,reg5={ofport},tp_dst=23")
    cloud.proven(standing)


def test_a_member_that_the_switch_does_not_know_is_missed(
    cloud: OtherCloud, standing: Vm, group: str
) -> None:
    other = boot(cloud, 2, group)
    cloud.wire_ports(other)
    cloud.loop()
    cloud.proven(standing, other)
    cloud.remove_flows(f"table={RULES_INGRESS},ip,nw_src={other.ip}")
    error = cloud.fails(standing, "FlowsMissing")
    assert other.ip in error.detail


def test_flows_of_an_earlier_agent_do_not_count(cloud: OtherCloud, standing: Vm) -> None:
    seen = len(cloud.reports_of(standing))
    cloud.stop_agent()
    cloud.start_agent()
    cloud.take_up(standing, status="ACTIVE")
    error = cloud.fails(standing, "FlowsMissing", after=seen)
    assert f"{cloud.bridge.default_cookie:#x}" in error.message
    assert cloud.flows_of(standing, ENTRY)
    cloud.program(standing)
    cloud.proven(standing)


def test_a_changed_rule_is_reported_once_it_is_in_force(
    cloud: OtherCloud, standing: Vm, group: str
) -> None:
    seen = len(cloud.reports_of(standing))
    cloud.rule(group, **SSH)
    cloud.loop()
    report = cloud.reported(standing, succeeded, after=seen)
    assert report.flow is FlowName.REFRESH
    assert any("tp_dst=22" in each for each in cloud.flows_of(standing, RULES_INGRESS))


def test_a_changed_rule_that_is_not_put_in_force_is_a_failure(
    cloud: OtherCloud, standing: Vm, group: str
) -> None:
    cloud.rule(group, **SSH)
    error = cloud.fails(standing, "FlowsMissing")
    assert "tp_dst=0x16" in error.detail
    cloud.loop()
    cloud.proven(standing)


def test_a_rule_that_is_gone_but_still_in_force_is_a_failure(
    cloud: OtherCloud, standing: Vm, group: str
) -> None:
    rule = cloud.rule(group, **SSH)
    cloud.loop()
    cloud.delete_rule(rule)
    error = cloud.fails(standing, "FlowsSurplus")
    assert "tp_dst=0x16" in error.detail
    cloud.loop()
    cloud.proven(standing)


def test_an_unchanged_active_port_is_not_reported_again(
    cloud: OtherCloud, standing: Vm, group: str
) -> None:
    seen = len(cloud.reports_of(standing))
    cloud.take_up(standing, status="ACTIVE")
    other = boot(cloud, 2, group)
    cloud.wire_ports(other)
    cloud.proven(other)
    assert len(cloud.reports_of(standing)) == seen


def test_a_port_that_the_server_does_not_hold_active_is_reported_again(
    cloud: OtherCloud, standing: Vm
) -> None:
    seen = len(cloud.reports_of(standing))
    before = cloud.report(standing)
    cloud.take_up(standing, status="DOWN")
    report = cloud.reported(standing, succeeded, after=seen)
    assert (report.flow, report.revision) == (FlowName.WIRE, before.revision)


def test_resync_looks_and_reports_again(cloud: OtherCloud, standing: Vm) -> None:
    seen = len(cloud.reports_of(standing))
    cloud.verifier.resync([standing.id])
    assert cloud.reported(standing, succeeded, after=seen).flow is FlowName.WIRE


def test_a_resync_of_a_port_that_is_not_plugged_in_reports_its_absence(cloud: OtherCloud) -> None:
    plugged, absent = cloud.boot(1), new_id()
    cloud.heard_of(plugged)
    cloud.verifier.resync([plugged.id, absent])
    (report,) = cloud.reports
    assert (report.resource_id, report.flow, report.failed) == (absent, FlowName.UNWIRE, None)


def test_a_port_without_port_security_needs_its_way_past_the_rules(
    cloud: OtherCloud, group: str
) -> None:
    vm = boot(cloud, 1, port_security_enabled=False)
    service = boot(cloud, 2, device_owner="network:dhcp")
    cloud.wire_ports(vm, service)
    cloud.proven(vm, service)
    seen = len(cloud.reports_of(vm))
    cloud.remove_flows(f"table=73,reg5={cloud.switch.ofport(vm.name)}")
    assert "table 73" in cloud.fails(vm, "FlowsMissing", after=seen).message
    # It is filtered from now on: what let it past the rules must go.
    cloud.neutron_port(vm, group)
    cloud.take_up(vm)
    cloud.update_ports(vm)
    cloud.proven(vm)


def test_a_port_on_a_wrong_vlan_is_a_failure_of_its_wiring(cloud: OtherCloud, standing: Vm) -> None:
    cloud.bridge.set_db_attribute("Port", standing.name, "tag", 4095, check_error=True)
    error = cloud.fails(standing, "WrongTag")
    assert "4095 instead of 1" in error.message
    failed = cloud.reported(standing, lambda report: error_of(report) == error).failed
    assert failed is not None
    assert (failed.name, failed.step) == ("verify-wiring", Step.L2)
    cloud.bridge.set_db_attribute("Port", standing.name, "tag", 1, check_error=True)
    cloud.proven(standing)


def test_a_port_that_is_not_to_be_up_is_to_be_on_the_dead_vlan(
    cloud: OtherCloud, standing: Vm, group: str
) -> None:
    cloud.neutron_port(standing, group, admin_state_up=False)
    cloud.take_up(standing)
    assert "1 instead of 4095" in cloud.fails(standing, "WrongTag").message
    cloud.bridge.set_db_attribute("Port", standing.name, "tag", 4095, check_error=True)
    cloud.proven(standing)


def test_a_port_that_is_gone_is_reported_once_its_flows_are(
    cloud: OtherCloud, standing: Vm
) -> None:
    cloud.unplug(standing.name)
    cloud.verifier.gone(standing.id)
    error = cloud.fails(standing, "FlowsSurplus")
    assert "belong to a port that is gone" in error.message
    cloud.sg_agent.remove_devices_filter({standing.id})
    cloud.proven(standing)
    assert cloud.report(standing).flow is FlowName.UNWIRE


def test_a_port_that_is_not_plugged_in_is_said_to_be_so(cloud: OtherCloud, group: str) -> None:
    vm = boot(cloud, 1, group)
    cloud.bind(vm)
    cloud.take_up(vm)
    cloud.unplug(vm.name)
    cloud.gone(vm)
    cloud.fails(vm, "InterfaceNotFound")


def test_a_switch_that_does_not_answer_is_every_ports_failure(
    cloud: OtherCloud, standing: Vm
) -> None:
    with cloud.switch_stopped():
        assert cloud.fails(standing, "SwitchUnreachable").detail


def test_after_a_restart_of_the_switch_ports_are_proven_anew(
    cloud: OtherCloud, standing: Vm
) -> None:
    with cloud.switch_stopped():
        pass
    cloud.fails(standing, "FlowsMissing")
    cloud.recover()
    cloud.heard_of(standing)
    cloud.program(standing)
    cloud.proven(standing)


def test_outcomes_that_could_not_be_told_are_told_again(cloud: OtherCloud, group: str) -> None:
    refused = threading.Event()

    def refuse(_: object) -> None:
        refused.set()
        raise OSError("disk full")

    cloud.verifier.report_to(replace(cloud.reporting, deliver=refuse))
    vm = boot(cloud, 1, group)
    cloud.wire_ports(vm)
    assert refused.wait(SECONDS)
    cloud.verifier.report_to(cloud.reporting)
    cloud.proven(vm)


@pytest.mark.parametrize("firewall_driver", ["noop"])
def test_with_noop_there_is_nothing_to_wait_for_but_the_wiring(
    cloud: OtherCloud, group: str
) -> None:
    vm = boot(cloud, 1, group)
    cloud.wire_ports(vm)
    cloud.proven(vm)
    report = cloud.report(vm)
    assert report.proves(Step.SECURITY_GROUPS)
    assert cloud.flows_of(vm, ENTRY) == []
    cloud.bridge.set_db_attribute("Port", vm.name, "tag", 4095, check_error=True)
    cloud.fails(vm, "WrongTag")


def test_a_port_whose_group_is_gone_from_the_cache_keeps_no_other_from_being_proven(
    cloud: OtherCloud, standing: Vm, group: str
) -> None:
    gone = cloud.security_group()
    cloud.rule(gone, **WEB)
    odd = boot(cloud, 2, gone)
    cloud.wire_ports(odd)
    cloud.proven(odd)
    cloud.lose_group(gone)
    cloud.take_up(odd)
    new = boot(cloud, 3, group)
    cloud.wire_ports(new)
    cloud.proven(new)
    assert "stateful" in cloud.fails(odd, "GroupsUnreadable").message


def test_a_port_that_the_drivers_generators_choke_on_keeps_no_other_from_being_proven(
    cloud: OtherCloud, standing: Vm, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, new = boot(cloud, 2, group), boot(cloud, 3, group)
    original = expected_flows.Writer.demand

    def choke(writer: expected_flows.Writer, port_id: str, *rest: Any) -> Any:
        if port_id == odd.id:
            raise KeyError("ethertype")
        return original(writer, port_id, *rest)

    monkeypatch.setattr(expected_flows.Writer, "demand", choke)
    cloud.wire_ports(odd, new)
    cloud.proven(new)
    assert "ethertype" in cloud.fails(odd, "KeyError").message


def test_a_look_that_raises_is_the_hosts_trouble_and_the_next_one_is_taken(
    cloud: OtherCloud, standing: Vm, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = boot(cloud, 2, group)
    with monkeypatch.context() as broken:
        broken.setattr(Checks, "good", mock.Mock(side_effect=OSError("cannot fork")))
        cloud.wire_ports(new)
        trouble = wait_until(
            lambda: cloud.verifier.troubles.current().get(Trouble.PORTS), SECONDS, "the trouble"
        )
        assert "cannot fork" in trouble
    cloud.proven(new)
    wait_until(lambda: not cloud.verifier.troubles.current(), SECONDS, "no trouble")
