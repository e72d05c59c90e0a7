"""After a restart of the agent or the switch, and after an outage, the host is as desired."""

import signal
import subprocess
import sys
import time

from agent_flows.report import FlowName
from lab.model import network, open_group


def test_a_restart_of_the_agent_keeps_local_vlans(host, make_vm, settled):
    (vm,) = settled(make_vm())
    vlans = host.local_vlans()
    host.stop()
    host.start()
    host.server.wait_for(lambda: host.server.of(vm.port_id, FlowName.RESYNC))
    host.ready()
    assert host.local_vlans() == vlans


def test_a_port_plugged_while_the_switch_was_down_is_wired_when_it_is_back(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    net = host.server.ports[one.port_id].network
    host.switch.stop_vswitchd()
    late = make_vm("late")
    host.bind(late, net, list(host.server.groups.values()))
    host.plug_quietly(late)
    host.switch.start_vswitchd()
    host.server.wait_wired([late.port_id])
    late.listen(80)
    host.server.wait_for(lambda: host.server.of(two.port_id, FlowName.RESYNC))
    assert two.connect(late.ip, 80)


def test_a_port_unplugged_while_the_agent_was_away_is_swept_and_reported_absent(
    host, make_vm, settled
):
    stays, leaves = settled(make_vm("stays"), make_vm("leaves"))
    ofport = host.switch.ofport(leaves.tap)
    host.stop()
    leaves.unplug()
    assert host.port_flows(ofport)
    host.start()
    host.server.wait_for(lambda: host.server.of(leaves.port_id, FlowName.UNWIRE))
    host.until(lambda: not host.port_flows(ofport), "its flows are swept")
    assert host.port_flows(host.switch.ofport(stays.tap))


def test_a_port_deleted_while_the_agent_was_away_is_closed(host, make_vm, settled):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    connection = one.open(two.ip, 80)
    host.stop()
    del host.server.ports[one.port_id]
    host.start()
    host.until(lambda: not host.port_flows(host.switch.ofport(one.tap)), "it is closed")
    assert connection.ask(0.5) is None
    assert host.server.of(one.port_id, FlowName.RESYNC) == []


def test_a_network_without_ports_is_released_at_start(host, make_vm, settled):
    (vm,) = settled(make_vm())
    host.stop()
    vm.unplug()
    del host.server.ports[vm.port_id]
    host.start()
    host.until(lambda: host.local_vlans() == {}, "the record is dropped")


def test_ports_keep_working_while_the_server_is_silent_and_follow_when_it_is_back(
    host, make_vm, settled
):
    one, two = settled(make_vm("one"), make_vm("two"))
    two.listen(80)
    host.stop()
    host.server.silent = True
    late = make_vm("late")
    host.bind(late, host.server.ports[one.port_id].network, list(host.server.groups.values()))
    host.start()
    late.plug()
    assert one.connect(two.ip, 80)
    host.server.silent = False
    host.server.wait_wired([late.port_id], 20)
    assert late.connect(two.ip, 80)


def test_a_failed_port_is_retried_until_it_succeeds_and_counts_its_attempts(host, make_vm, settled):
    settled(make_vm())
    vm = make_vm("late")
    host.bind(vm, network(), [open_group()])
    host.switch.namespace.ip("link", "delete", vm.tap)
    host.plug_quietly(vm)
    host.server.wait_for(lambda: len(host.server.of(vm.port_id)) >= 2)
    host.switch.namespace.ip("link", "add", vm.tap, "type", "veth", "peer", "name", "far")
    host.server.wait_wired([vm.port_id])
    attempts = [report.attempt for report in host.server.of(vm.port_id)]
    assert attempts[0] == 1
    assert attempts[1] == 2


def test_the_agent_process_ends_in_seconds_and_leaves_the_flows(host, make_vm, settled, tmp_path):
    settled(make_vm())
    host.stop()
    flows = host.port_flows()
    config = tmp_path / "agent.conf"
    config.write_text(
        "[DEFAULT]\ntransport_url = kombu+memory://\n[agent_flows]\nhost = host-1\n"
        f"ovsdb_connection = {host.switch.database}\novs_run_dir = {host.switch.run_dir}\n"
        f"state_dir = {tmp_path / 'state'}\n"
    )
    code = "import sys; from agent_flows.agent.service import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-W", "ignore", "-c", code, "--config-file", str(config)]
    with subprocess.Popen(
        host.switch.namespace.argv(argv), stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if "has started" in line:
                break
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        last_words = process.stdout.read()
        assert process.wait(15) == 0
    assert "flows stay in place" in last_words
    assert time.monotonic() - began < 15
    assert host.port_flows() == flows
