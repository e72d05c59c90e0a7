"""What an agent does when its desired state is not the server's, and no cast names the change."""

from agent_flows.report import FlowName
from agent_flows.spec import Refused


def test_a_change_without_a_cast_is_applied_beside_a_port_with_an_invalid_spec(
    host, make_vm, settled
):
    host.server.compares = True
    one, other = settled(make_vm("one"), make_vm("other"))
    host.server.refused[other.port_id] = Refused("mac_address: no", 2, "...")
    host.change(other)
    host.server.wait_failed(other.port_id, "locate-interface")
    host.change(one, admin_state_up=False)
    host.server.wait_wired([one.port_id])
    assert not one.connect(other.ip, 80)


def test_nothing_is_applied_again_while_nothing_differs(host, make_vm, settled):
    host.server.compares = True
    (vm,) = settled(make_vm())
    host.ready()
    asked, reports = len(host.server.asked), len(host.server.reports)
    beats = len(host.server.states)
    host.until(lambda: len(host.server.states) > beats + 10, "heartbeats go on")
    assert (len(host.server.asked), len(host.server.reports)) == (asked, reports)
    assert host.server.of(vm.port_id)


def test_a_port_whose_report_the_server_awaits_is_forced_once(host, make_vm, settled):
    host.server.compares = True
    (vm,) = settled(make_vm())
    host.ready()
    forced = len(host.server.of(vm.port_id, FlowName.RESYNC))
    host.server.awaited = (vm.port_id,)
    host.server.wait_for(lambda: len(host.server.of(vm.port_id, FlowName.RESYNC)) > forced)
    beats = len(host.server.states)
    host.until(lambda: len(host.server.states) > beats + 10, "heartbeats go on")
    assert len(host.server.of(vm.port_id, FlowName.RESYNC)) == forced + 1
