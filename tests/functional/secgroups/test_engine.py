"""Installing, reverting, verifying, taking over: the flows in the switch after each."""

from collections.abc import Sequence

import pytest

from agent_flows.engine.task import PortErrors, TaskFailed
from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.pipeline import Table
from agent_flows.secgroups.firewall import Firewall
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BRIDGE, Host, Vm, outsider

HTTP = rule(protocol="tcp", port_range_min=80, port_range_max=80)
DNS = rule(protocol="udp", port_range_min=53, port_range_max=53)


class CountingOfctl(Ofctl):
    """The real one, and a note of what was sent."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.bundles: list[list[str]] = []

    def bundle(self, lines: Sequence[str]) -> None:
        if lines:
            self.bundles.append(list(lines))
        super().bundle(lines)


@pytest.fixture
def sent(host: Host) -> list[list[str]]:
    """The bundles sent from here on."""
    ofctl = CountingOfctl(str(host.switch.run_dir), BRIDGE, 30)
    host.firewall = Firewall(ofctl)
    host.firewall.start()
    return ofctl.bundles


def contents(host: Host) -> list[FlowEntry]:
    """Every flow of ours, with its cookie."""
    return sorted(host.ofctl.dump())


def test_a_batch_is_one_bundle(host: Host, sent: list[list[str]]) -> None:
    vms = [host.boot(number) for number in range(1, 11)]
    web = group(HTTP, *egress_to_anywhere())
    for vm in vms:
        host.port(vm, web)
    host.wire(*vms)
    assert len(sent) == 1


def test_new_member_costs_flows_for_that_member_alone(host: Host, sent: list[list[str]]) -> None:
    vms = [host.boot(number) for number in (1, 2, 3)]
    webs = group(members=[outsider()])
    host.add(webs)
    rules = group(rule(remote_group_id=webs.id))
    for vm in vms:
        host.port(vm, rules)
    host.wire(*vms)
    host.add(group(members=["10.7.0.1", outsider()], id=webs.id))
    host.wire(*vms)
    assert len(sent[-1]) == 1
    assert "10.7.0.1" in sent[-1][0]


def test_members_are_installed_once_for_all_ports_that_refer_to_them(host: Host) -> None:
    addresses = [{"address": f"10.7.0.{number}/32"} for number in range(1, 101)]
    webs = group(members=addresses)
    host.add(webs)
    rules = group(rule(remote_group_id=webs.id))
    vms = [host.boot(number) for number in range(1, 6)]
    for vm in vms:
        host.port(vm, rules)
    host.wire(*vms)
    assert len(host.flows(Kind.MEMBER)) == 100
    host.firewall.remove([vm.id for vm in vms])
    assert host.flows(Kind.MEMBER) == host.flows(Kind.CONJUNCTION) == []


def test_older_revision_of_a_group_restores_no_member(host: Host) -> None:
    one, two, gone = host.boot(1), host.boot(2), outsider()
    webs = group(members=[gone])
    rules = group(rule(remote_group_id=webs.id))
    host.add(webs)
    host.port(one, rules)
    host.port(two, rules)
    older = host.desired
    # A group's revision rises with the members of the groups it refers to.
    host.add(group(id=webs.id), group(rule(remote_group_id=webs.id), id=rules.id, revision=2))
    host.wire(one)
    host.firewall.apply(older, host.attachments(two))
    assert not host.udp(gone, one, 53)
    assert not host.udp(gone, two, 53)


class TestRefusal:
    """The switch refuses flows: a real limit on one of its tables."""

    def limit(self, host: Host, table: Table, more: int) -> None:
        installed = len(
            host.switch.ofctl(
                "--no-stats", "dump-flows", host.switch.management(BRIDGE), f"table={table:d}"
            ).splitlines()
        )
        host.switch.set_flow_limit(BRIDGE, table, installed + more)

    def test_blames_the_port_at_fault_and_changes_nothing(self, host: Host) -> None:
        small, large, good = host.boot(1), host.boot(2), host.boot(3)
        host.port(good, group(*egress_to_anywhere()))
        host.wire(good)
        self.limit(host, Table.RULES_INGRESS, 2)
        host.port(small, group(HTTP))
        host.port(large, group(rule(protocol="tcp", port_range_min=1, port_range_max=65535)))
        before = contents(host)
        with pytest.raises(PortErrors) as raised:
            host.apply(small, large)
        assert list(raised.value.errors) == [large.id]
        error = raised.value.errors[large.id]
        assert error.type == "FlowRefused"
        assert "OFPFMFC_TABLE_FULL" in error.message
        assert "OFPT_FLOW_MOD" in error.detail
        assert contents(host) == before
        assert not host.tcp(good, small, 80)
        assert not host.tcp(good, large, 80)

    def test_the_others_go_on_without_it_and_it_recovers(self, host: Host) -> None:
        small, large, good = host.boot(1), host.boot(2), host.boot(3)
        host.port(good, group(*egress_to_anywhere()))
        host.port(small, group(HTTP))
        host.port(large, group(rule(protocol="tcp", port_range_min=1, port_range_max=65535)))
        self.limit(host, Table.RULES_INGRESS, 2)
        with pytest.raises(PortErrors):
            host.apply(small, large, good)
        host.wire(small, good)
        assert host.tcp(good, small, 80)
        assert not host.tcp(good, large, 80)
        host.switch.lift_flow_limit(BRIDGE, Table.RULES_INGRESS)
        host.wire(large)
        assert host.tcp(good, large, 80)

    def test_of_an_update_leaves_the_old_rules_in_force(self, host: Host) -> None:
        vm, client = host.boot(1), outsider()
        host.port(vm, group(HTTP))
        host.wire(vm)
        self.limit(host, Table.RULES_INGRESS, 3)
        before = contents(host)
        host.port(vm, group(DNS, rule(protocol="tcp", port_range_min=1, port_range_max=65535)))
        with pytest.raises(PortErrors):
            host.apply(vm)
        host.firewall.revert([vm.id])
        assert contents(host) == before
        assert host.tcp(client, vm, 80)
        assert not host.udp(client, vm, 53)

    def test_of_a_shared_flow_blames_the_ports_that_need_it(self, host: Host) -> None:
        first, second = host.boot(1), host.boot(2)
        webs = group(members=[{"address": f"10.7.0.{n}/32"} for n in range(1, 31)])
        host.add(webs)
        host.port(first, group(HTTP))
        host.port(second, group(rule(remote_group_id=webs.id)))
        self.limit(host, Table.RULES_INGRESS, 20)
        with pytest.raises(PortErrors) as raised:
            host.apply(first, second)
        assert list(raised.value.errors) == [second.id]

    def test_in_the_rules_themselves_is_the_ports_own(self, host: Host) -> None:
        good, mixed, odd, lost = (host.boot(number) for number in (1, 2, 3, 4))
        host.port(good, group(HTTP))
        host.port(mixed, group(HTTP, stateful=False), group(HTTP))
        host.port(odd, group(rule(protocol="dccp", port_range_min=5, port_range_max=6)))
        host.port(lost, group(rule(remote_group_id="0" * 8 + lost.id[8:])))
        with pytest.raises(PortErrors) as raised:
            host.apply(good, mixed, odd, lost)
        errors = raised.value.errors
        assert {port: error.type for port, error in errors.items()} == {
            mixed.id: "Conflict",
            odd.id: "Unsupported",
            lost.id: "MissingSpec",
        }
        for vm in (mixed, odd, lost):
            assert host.desired.ports[vm.id].security_groups[0] in errors[vm.id].message
        host.wire(good)
        assert host.tcp(outsider(), good, 80)


class TestRevert:
    def test_closes_a_port_that_never_was_wired(self, host: Host) -> None:
        vm = host.boot(1)
        before = contents(host)
        host.port(vm, group(HTTP))
        host.apply(vm)
        assert host.tcp(outsider(), vm, 80)
        host.firewall.revert([vm.id])
        assert not host.tcp(outsider(), vm, 80)
        assert contents(host) == before

    def test_puts_the_previous_rules_back(self, host: Host) -> None:
        vm, client = host.boot(1), outsider()
        webs = group(members=[client])
        host.add(webs)
        host.port(vm, group(rule(protocol="tcp", remote_group_id=webs.id)))
        host.wire(vm)
        host.port(vm, group(DNS))
        host.apply(vm)
        assert host.udp(client, vm, 53)
        host.firewall.revert([vm.id])
        host.firewall.verify([vm.id])
        assert host.tcp(client, vm, 80)
        assert not host.udp(client, vm, 53)

    def test_of_one_port_leaves_the_others_alone(self, host: Host) -> None:
        one, two, client = host.boot(1), host.boot(2), outsider()
        webs = group(members=[client])
        host.add(webs)
        rules = group(rule(remote_group_id=webs.id))
        host.port(one, rules)
        host.wire(one)
        host.port(two, rules)
        host.apply(two)
        host.firewall.revert([two.id])
        host.firewall.verify([one.id])
        assert host.udp(client, one, 53)
        assert not host.udp(client, two, 53)


class TestVerification:
    @pytest.fixture
    def vm(self, host: Host) -> Vm:
        made, webs = host.boot(1), group(members=[outsider()])
        host.add(webs)
        host.port(made, group(rule(protocol="tcp", remote_group_id=webs.id), DNS))
        host.wire(made)
        return made

    def spoil(self, host: Host, *args: str) -> None:
        host.switch.ofctl(args[0], host.switch.management(BRIDGE), *args[1:])

    @pytest.mark.parametrize(
        ("what", "flow"),
        [
            ("a rule", "table=82,udp"),
            ("a member's address", "table=82,ip,nw_src=203.0.113.99"),
            ("the flood", "table=95"),
            ("the way in", "table=60,dl_vlan=1"),
            ("the pipeline", "table=71"),
        ],
    )
    def test_finds_missing_flows_and_the_next_attempt_writes_them(
        self, host: Host, vm: Vm, what: str, flow: str
    ) -> None:
        self.spoil(host, "del-flows", flow)
        with pytest.raises(PortErrors) as raised:
            host.firewall.verify([vm.id])
        assert raised.value.errors[vm.id].type == "NotAsCompiled", what
        host.add_network(1)
        host.wire(vm)
        assert host.tcp(outsider(), vm, 80)
        assert host.udp(outsider(), vm, 53)

    def test_finds_flows_that_were_not_compiled(self, host: Host, vm: Vm) -> None:
        own = cookie.port(host.switch.ofport(vm.name), 77)
        before = contents(host)
        self.spoil(host, "add-flow", f"cookie={own:#x},table=82,priority=99,reg5=2 actions=drop")
        with pytest.raises(PortErrors):
            host.firewall.verify([vm.id])
        host.wire(vm)
        assert len(contents(host)) == len(before)

    def test_fails_for_a_port_that_was_never_applied(self, host: Host) -> None:
        with pytest.raises(PortErrors):
            host.firewall.verify([host.boot(2).id])


class TestRestartOfTheAgent:
    @pytest.fixture
    def vms(self, host: Host) -> list[Vm]:
        """Two ports that admit the same remote group, and each other."""
        made = [host.boot(1), host.boot(2)]
        webs = group(members=[outsider(), "10.7.0.1"])
        host.add(webs)
        cluster = group(*egress_to_anywhere(), rule(protocol="udp", remote_group_id=webs.id), HTTP)
        for vm in made:
            host.port(vm, cluster)
        host.wire(*made)
        return made

    def all_open(self, host: Host, vms: list[Vm]) -> bool:
        asked = packets.arp((vms[0].mac, packets.BROADCAST), (vms[0].mac, vms[0].ip), vms[1].ip)
        return (
            all(host.udp(outsider(), vm, 53) for vm in vms)
            and host.tcp(vms[0], vms[1], 80)
            and host.tcp(vms[1], vms[0], 80)
            and host.send(vms[0].name, asked) == {vms[1].name, "uplink"}
        )

    def test_leaves_every_port_as_it_is(self, host: Host, vms: list[Vm]) -> None:
        before = contents(host)
        host.restart_agent()
        assert contents(host) == before
        assert self.all_open(host, vms)

    def test_disturbs_no_port_while_others_are_applied_again(
        self, host: Host, vms: list[Vm]
    ) -> None:
        host.restart_agent()
        for vm in vms:
            host.wire(vm)
            assert self.all_open(host, vms)

    def test_again_and_again_leaves_nothing_behind(self, host: Host, vms: list[Vm]) -> None:
        before = len(contents(host))
        for _ in range(3):
            host.restart_agent()
            host.wire(vms[0])
        host.wire(vms[1])
        host.firewall.sweep({vm.id for vm in vms})
        assert len(contents(host)) == before
        assert self.all_open(host, vms)

    def test_sweep_removes_the_ports_that_are_gone(self, host: Host, vms: list[Vm]) -> None:
        host.restart_agent()
        host.wire(vms[0])
        assert host.firewall.sweep({vms[0].id}) > 0
        assert not host.udp(outsider(), vms[1], 53)
        assert not host.tcp(vms[0], vms[1], 80)
        assert host.udp(outsider(), vms[0], 53)
        assert host.firewall.sweep({vms[0].id}) == 0

    def test_port_that_could_not_be_applied_again_keeps_its_flows(
        self, host: Host, vms: list[Vm]
    ) -> None:
        host.restart_agent()
        host.wire(vms[0])
        host.port(vms[1], group(stateful=False), group())
        with pytest.raises(PortErrors):
            host.apply(vms[1])
        host.firewall.sweep({vm.id for vm in vms})
        assert self.all_open(host, vms)

    def test_revert_of_a_port_with_flows_of_the_older_process_keeps_what_was_applied(
        self, host: Host, vms: list[Vm]
    ) -> None:
        host.restart_agent()
        host.apply(vms[0])
        host.firewall.revert([vms[0].id])
        assert self.all_open(host, vms)

    def test_revert_of_a_port_that_had_none_closes_it(self, host: Host, vms: list[Vm]) -> None:
        host.restart_agent()
        fresh = host.boot(3)
        host.port(fresh, group(HTTP))
        host.apply(fresh)
        host.firewall.revert([fresh.id])
        assert not host.tcp(vms[0], fresh, 80)

    def test_changes_made_meanwhile_take_effect(self, host: Host, vms: list[Vm]) -> None:
        host.restart_agent()
        host.port(vms[0], group(*egress_to_anywhere()), mac_address="fa:16:3e:00:00:77")
        moved = vms[0].but(mac="fa:16:3e:00:00:77")
        host.wire(moved)
        host.port(vms[1], group(rule(), *egress_to_anywhere()))
        host.wire(vms[1])
        host.firewall.sweep({vm.id for vm in vms})
        assert not host.udp(outsider(), vms[0], 53)
        assert host.udp(moved, vms[1], 999)
        assert not host.udp(vms[1], vms[0], 53)


class TestSwitchThatDoesNotAnswer:
    def test_missing_bridge_blames_no_port(self, host: Host) -> None:
        vm = host.boot(1)
        host.port(vm, group(HTTP))
        firewall = Firewall(Ofctl("/nonexistent", BRIDGE, 30))
        with pytest.raises(TaskFailed) as raised:
            firewall.apply(host.desired, host.attachments(vm))
        assert raised.value.error.type == "SwitchUnreachable"
        assert raised.value.whole_batch

    def test_timeout_leaves_a_bundle_whose_outcome_is_read_back(self, host: Host) -> None:
        vm = host.boot(1)
        host.port(vm, group(HTTP))
        host.firewall = Firewall(Ofctl(str(host.switch.run_dir), BRIDGE, 1))
        host.firewall.start()
        attachments = host.attachments(vm)
        with host.switch.held_vswitchd(), pytest.raises(TaskFailed) as raised:
            host.firewall.apply(host.desired, attachments)
        assert raised.value.error.type == "Timeout"
        host.wire(vm)
        assert host.tcp(outsider(), vm, 80)
        host.firewall.remove([vm.id])
        assert host.flows(Kind.PORT) == []

    def test_restarted_switch_is_filled_again(self, host: Host) -> None:
        vm = host.boot(1)
        host.port(vm, group(HTTP))
        host.wire(vm)
        host.switch.restart_vswitchd()
        host.firewall.start()
        host.add_network(1)
        assert not host.tcp(outsider(), vm, 80)
        host.wire(vm)
        assert host.tcp(outsider(), vm, 80)

    def test_verification_finds_a_switch_that_was_restarted(self, host: Host) -> None:
        vm = host.boot(1)
        host.port(vm, group(HTTP))
        host.wire(vm)
        host.switch.restart_vswitchd()
        with pytest.raises(PortErrors):
            host.apply(vm)
        host.add_network(1)
        host.wire(vm)
        assert host.tcp(outsider(), vm, 80)
