"""A port that fails is named, stays closed or as it was, and succeeds once the cause is gone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.neutron.reporting import Reporting
from agent_flows.report import FlowName, FlowReport, Trouble
from lab.process import wait_until
from lab.switch import RULES_INGRESS
from tests.functional.neutron.cloud import SSH, WEB, Cloud
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BRIDGE, Vm, outsider


@pytest.fixture
def full_table(cloud: Cloud) -> Iterator[None]:
    """The switch has no room for a further ingress rule."""
    with cloud.switch.full_table():
        yield


@pytest.fixture
def wired(cloud: Cloud, group: str) -> Vm:
    """A port that is wired."""
    vm = cloud.boot_port(1, group)
    cloud.wire_ports(vm)
    return vm


def passes_nothing(cloud: Cloud, vm: Vm, other: Vm) -> bool:
    ways = ((vm, other), (other, vm), (vm, outsider()), (outsider(), vm))
    greeting = packets.arp((vm.mac, packets.BROADCAST), (vm.mac, vm.ip), other.ip)
    call = packets.arp((other.mac, packets.BROADCAST), (other.mac, other.ip), vm.ip)
    return (
        not any(cloud.tcp(*way, 80) for way in ways)
        and not cloud.send(vm.name, greeting)
        and vm.name not in cloud.send(other.name, call)
    )


class TestRefusedByTheSwitch:
    def test_a_new_port_is_closed_named_and_heals_by_itself(
        self, cloud: Cloud, wired: Vm, group: str, full_table: None
    ) -> None:
        new = cloud.boot_port(2, group)
        cloud.wire_ports(new)
        assert passes_nothing(cloud, new, wired)
        error = cloud.error(new)
        assert "OFPFMFC_TABLE_FULL" in error.message
        assert f"table_id:{RULES_INGRESS}" in error.detail or "table:82" in error.detail
        assert cloud.succeeded(wired)
        assert cloud.tcp(outsider(), wired, 80)

        cloud.switch.lift_flow_limit(BRIDGE, RULES_INGRESS)
        cloud.heals(new)
        assert cloud.report(new).attempt > 1
        assert cloud.connect(wired, new, 80)

    def test_a_port_that_was_wired_keeps_its_old_rules(
        self, cloud: Cloud, wired: Vm, group: str, full_table: None
    ) -> None:
        cloud.rule(group, **SSH)
        cloud.loop()
        assert "OFPFMFC_TABLE_FULL" in cloud.error(wired).message
        assert cloud.connect(outsider(), wired, 80)
        assert not cloud.tcp(outsider(), wired, 22)

        cloud.switch.lift_flow_limit(BRIDGE, RULES_INGRESS)
        cloud.heals(wired)
        assert cloud.tcp(outsider(), wired, 22)


class TestWithALongBackoff:
    """Two minutes: a retry that comes sooner has another cause."""

    @pytest.fixture
    def failed(self, cloud: Cloud, wired: Vm, group: str) -> Iterator[Vm]:
        """A port that the switch has no room for, beside one that is wired."""
        cloud.stop_agent()
        for option in ("retry_initial", "retry_max"):
            cfg.CONF.set_override(option, 120.0, options.AGENT)
        cloud.start_agent()
        cloud.update_ports(wired)
        with cloud.switch.full_table():
            vm = cloud.boot_port(2, group)
            cloud.wire_ports(vm)
            yield vm
        for option in ("retry_initial", "retry_max"):
            cfg.CONF.clear_override(option, options.AGENT)

    def test_calls_about_other_ports_neither_try_nor_report_a_failed_one(
        self, cloud: Cloud, wired: Vm, failed: Vm
    ) -> None:
        cloud.calls()
        for number in range(20):
            cloud.driver.update_port_filter(cloud.driver.ports[wired.id])
            cloud.driver.update_security_group_members(
                cloud.security_group(), {"IPv4": [(f"10.9.9.{number}", None)]}
            )
        assert len(cloud.reports_of(failed)) == 1
        assert cloud.calls() == []

    def test_a_change_of_its_own_is_tried_at_once(
        self, cloud: Cloud, wired: Vm, failed: Vm
    ) -> None:
        cloud.neutron_port(failed)
        cloud.update_ports(failed)
        assert cloud.succeeded(failed)
        assert [each.attempt for each in cloud.reports_of(failed)] == [1, 2]

    def test_fifty_failed_ports_leave_a_rule_change_for_another_alone(
        self, cloud: Cloud, wired: Vm, failed: Vm
    ) -> None:
        for number in range(50):
            # Without an interface that is bound: NoTag.
            vm = cloud.boot_port(10 + number)
            cloud.sees(vm)
            cloud.sg_agent.setup_port_filters({vm.id}, set())
        own = cloud.security_group()
        before = len(cloud.reports)
        cloud.neutron_port(wired, own)
        cloud.update_ports(wired)
        cloud.calls()
        cloud.rule(own, "egress")
        cloud.loop()
        assert [each.resource_id for each in cloud.reports[before:]] == [wired.id] * 2
        assert len(cloud.calls()) <= 3


class TestOtherPorts:
    """A failing port disturbs no other."""

    def test_a_port_that_is_not_plugged_in_is_absent_and_no_failure(
        self, cloud: Cloud, wired: Vm, group: str
    ) -> None:
        absent, good = cloud.boot_port(2, group), cloud.boot_port(3, group)
        cloud.bind(absent, good)
        cloud.unplug(absent.name)
        cloud.gone(absent)
        cloud.sg_agent.setup_port_filters({absent.id, good.id}, set())
        assert cloud.succeeded(good)
        assert cloud.tcp(wired, good, 80)
        report = cloud.reported(absent)
        assert (report.flow, report.failed) == (FlowName.UNWIRE, None)
        assert absent.id not in cloud.driver.ports

    def test_a_wired_port_updated_after_it_was_unplugged_leaves_no_flow(
        self, cloud: Cloud, wired: Vm, group: str
    ) -> None:
        before = len(cloud.ofctl.dump())
        leaving = cloud.boot_port(2, group)
        cloud.wire_ports(leaving)
        cloud.unplug(leaving.name)
        cloud.gone(leaving)
        # The server changed its status, as for any port; the agent has not reported its removal.
        cloud.neutron_port(leaving, group, admin_state_up=False)
        cloud.update_ports(leaving)
        cloud.reported(leaving, lambda report: report.flow is FlowName.UNWIRE)
        assert len(cloud.ofctl.dump()) == before
        cloud.sg_agent.remove_devices_filter({leaving.id})
        assert cloud.succeeded(wired)

    def test_a_port_missing_from_ovsdb_for_a_moment_stays_wired(
        self, cloud: Cloud, wired: Vm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number = len(cloud.reports_of(wired))
        with monkeypatch.context() as blind:
            blind.setattr(cloud.bridge, "get_port_name_list", list)
            cloud.driver.resync([wired.id])
        assert cloud.tcp(outsider(), wired, 80)
        report = cloud.reported(wired, after=number)
        assert (report.flow, report.failed) == (FlowName.WIRE, None)

    def test_a_port_without_a_tag_is_closed_until_it_has_one(
        self, cloud: Cloud, wired: Vm, group: str
    ) -> None:
        unbound = cloud.boot_port(2, group)
        cloud.sees(unbound)
        cloud.sg_agent.setup_port_filters({unbound.id}, set())
        assert cloud.error(unbound).type == "NoTag"
        assert not cloud.tcp(unbound, wired, 80)
        cloud.bind(unbound)
        cloud.heals(unbound)
        assert cloud.tcp(unbound, wired, 80)

    @pytest.mark.parametrize(
        "unusable",
        [
            {"protocol": "carrier-pigeon"},
            {"destination_ip_prefix": "10.0.0.0/8"},
            {"protocol": "udplite", "port_range_min": 5, "port_range_max": 6},
        ],
        ids=lambda rule: next(iter(rule)),
    )
    def test_a_rule_that_cannot_be_used_opens_nothing_and_leaves_the_others_in_force(
        self,
        cloud: Cloud,
        wired: Vm,
        group: str,
        unusable: dict[str, object],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        odd = cloud.security_group()
        concerned, good = cloud.boot_port(2, odd), cloud.boot_port(3, group)
        cloud.wire_ports(concerned, good)
        base = {"direction": "ingress", "ethertype": "IPv4"}
        with cloud.driver.defer_apply():
            cloud.driver.update_security_group_rules(odd, [base | unusable, base | SSH])
            for port in list(cloud.driver.ports.values()):
                cloud.driver.update_port_filter(port)
        assert cloud.succeeded(concerned)
        assert cloud.succeeded(good)
        assert cloud.tcp(wired, concerned, 22)
        assert not cloud.tcp(wired, concerned, 80)
        assert not cloud.udp(wired, concerned, 5)
        [line] = [each.message for each in caplog.records if odd in each.message]
        assert next(iter(unusable)) in line

    def test_an_address_pair_of_a_multicast_mac_opens_nothing_and_its_port_works(
        self, cloud: Cloud, wired: Vm, group: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        shared, fine = ("03:bf:c0:00:02:64", "192.0.2.100"), ("fa:16:3e:00:00:77", "192.0.2.7")
        vm = cloud.boot_port(2, group, pairs=[shared, fine])
        friends = cloud.security_group()
        cloud.rule(friends, remote_group_id=group, **SSH)
        asking = cloud.boot_port(3, friends)
        cloud.wire_ports(vm, asking)
        assert cloud.succeeded(vm)
        assert cloud.connect(wired, vm, 80)
        for mac, ip in (shared, fine):
            passes = (mac, ip) == fine
            assert cloud.tcp(vm.but(mac=mac, ip=ip), wired, 80) == passes
            assert cloud.tcp(vm.but(mac=mac, ip=ip), asking, 22) == passes
        assert cloud.tcp(vm, asking, 22), "another member of the same group"
        named = [each.message for each in caplog.records if "192.0.2.100" in each.message]
        assert all(any(who in line for line in named) for who in (vm.id, group))

    def test_a_group_whose_rules_did_not_come_lets_nothing_in_until_they_do(
        self, cloud: Cloud, wired: Vm
    ) -> None:
        coming = cloud.security_group()
        vm = cloud.boot_port(2, coming)
        cloud.bind(vm)
        port = {"device": vm.id, "mac_address": vm.mac, "fixed_ips": [vm.ip],
                "security_groups": [coming]}  # fmt: skip
        cloud.driver.prepare_port_filter(port)
        assert cloud.succeeded(vm)
        assert not cloud.tcp(wired, vm, 80)
        assert not cloud.tcp(vm, wired, 80)
        assert coming not in cloud.report(vm).security_group_revisions
        rule = {"direction": "ingress", "ethertype": "IPv4", **WEB}
        cloud.driver.update_security_group_rules(coming, [rule])
        assert cloud.tcp(wired, vm, 80)

    def test_an_invalid_port_fails_alone(self, cloud: Cloud, wired: Vm, group: str) -> None:
        nonsense, good = cloud.boot_port(2, group), cloud.boot_port(3, group)
        cloud.bind(nonsense, good)
        rules = [{"direction": "egress", "ethertype": "IPv4"}]
        with cloud.driver.defer_apply():
            cloud.driver.update_security_group_rules(group, rules)
            for vm, mac in ((nonsense, "here"), (good, good.mac)):
                cloud.driver.prepare_port_filter(
                    {"device": vm.id, "mac_address": mac, "security_groups": [group],
                     "fixed_ips": [vm.ip]}
                )  # fmt: skip
        assert "mac_address" in cloud.error(nonsense).message
        assert not cloud.tcp(nonsense, wired, 80)
        assert cloud.succeeded(good)

    def test_a_port_in_stateful_and_stateless_groups_is_a_conflict_and_closed(
        self, cloud: Cloud, wired: Vm, group: str
    ) -> None:
        stateless = cloud.security_group(stateful=False)
        cloud.rule(stateless, **SSH)
        mixed = cloud.boot_port(2, group, stateless)
        cloud.wire_ports(mixed)
        assert cloud.error(mixed).type == "Conflict"
        assert passes_nothing(cloud, mixed, wired)

    def test_a_device_that_is_no_port_is_not_programmed_and_sends_nothing(
        self, cloud: Cloud, wired: Vm, caplog: pytest.LogCaptureFixture
    ) -> None:
        by_hand = cloud.boot(2)
        with cloud.driver.defer_apply():
            cloud.driver.prepare_port_filter({"device": "tap0", "security_groups": []})
            cloud.driver.process_trusted_ports(["by-hand"])
            cloud.driver.remove_trusted_ports(["never-seen"])
        assert set(cloud.driver.ports) == {wired.id}
        [line] = [each.message for each in caplog.records if "tap0" in each.message]
        assert "it can send nothing" in line
        assert not cloud.tcp(by_hand, wired, 80)


def test_without_the_switch_every_port_fails_and_no_call_raises(
    cloud: Cloud, wired: Vm, group: str
) -> None:
    new = cloud.boot_port(2, group)
    cloud.bind(new)
    cloud.rule(group, **SSH)
    with cloud.switch_stopped():
        cloud.sg_agent.setup_port_filters({new.id}, {wired.id})
        assert cloud.error(new).type == "SwitchUnreachable"
        assert cloud.error(wired).type == "SwitchUnreachable"


class FullDisk:
    """Takes no report as long as it is ``full``."""

    def __init__(self) -> None:
        self.full = True
        self.refused = 0
        self.taken: list[FlowReport] = []

    def put(self, reports: Sequence[FlowReport]) -> None:
        if self.full:
            self.refused += 1
            raise OSError("disk full")
        self.taken.extend(reports)


@pytest.fixture
def disk(cloud: Cloud, wired: Vm) -> FullDisk:
    disk = FullDisk()
    cloud.driver.report_to(Reporting(deliver=disk.put))
    return disk


class TestAReportThatCannotBeKept:
    def test_of_a_wired_port_is_made_again(self, cloud: Cloud, group: str, disk: FullDisk) -> None:
        new = cloud.boot_port(2, group)
        cloud.wire_ports(new)
        assert "disk full" in cloud.driver.troubles.current()[Trouble.OUTBOX]
        disk.full = False
        wait_until(lambda: disk.taken, 20, "the report is taken")
        (report,) = disk.taken
        assert (report.resource_id, report.failed) == (new.id, None)
        assert report.attempt > 1
        assert not cloud.driver.troubles.current()

    def test_of_an_unplugged_port_is_made_again(
        self, cloud: Cloud, wired: Vm, disk: FullDisk
    ) -> None:
        cloud.remove(wired)
        disk.full = False
        wait_until(lambda: disk.taken, 20, "the report is taken")
        (report,) = disk.taken
        assert (report.resource_id, report.flow) == (wired.id, FlowName.UNWIRE)
        assert report.failed is None

    def test_waits_for_its_backoff_whatever_else_is_called(
        self, cloud: Cloud, wired: Vm, group: str, disk: FullDisk
    ) -> None:
        cloud.stop_agent()
        cfg.CONF.set_override("retry_initial", 60.0, options.AGENT)
        try:
            cloud.start_agent()
        finally:
            cfg.CONF.clear_override("retry_initial", options.AGENT)
        cloud.driver.report_to(Reporting(deliver=disk.put))
        cloud.update_ports(wired)
        for _ in range(10):
            cloud.driver.update_security_group_members(cloud.security_group(), {})
        assert disk.refused == 1


def test_an_exception_about_one_port_leaves_the_others_of_a_resync_alone(
    cloud: Cloud, wired: Vm, group: str
) -> None:
    odd, good = cloud.boot_port(2, group), cloud.boot_port(3, group)
    cloud.wire_ports(odd, good)

    def revision(port_id: str, port: Mapping[str, Any]) -> int:
        if port_id == odd.id:
            raise AttributeError("'NoneType' object has no attribute 'revision_number'")
        return 7

    reports: list[FlowReport] = []
    cloud.driver.report_to(Reporting(deliver=reports.extend, revision=revision))
    cloud.driver.resync()
    by_port = {each.resource_id: each for each in reports}
    assert by_port.keys() == {wired.id, odd.id, good.id}
    assert [by_port[each.id].failed for each in (wired, good)] == [None, None]
    failed = by_port[odd.id].failed
    assert failed is not None
    assert failed.error is not None
    assert failed.error.type == "AttributeError"
    assert cloud.tcp(outsider(), odd, 80), "what was verified before is installed"


def test_a_pipeline_that_could_not_be_installed_is_the_hosts_trouble_and_heals_by_itself(
    cloud: Cloud,
) -> None:
    cloud.stop_agent()
    cloud.ofctl.bundle(["delete"])
    with cloud.switch_stopped():
        cloud.start_agent()
        trouble = wait_until(
            lambda: cloud.driver.troubles.current().get(Trouble.CONTROL), 20, "the trouble"
        )
        assert "SwitchUnreachable" in trouble
    wait_until(lambda: not cloud.driver.troubles.current(), 20, "the trouble has gone")
    assert cloud.ofctl.dump()
