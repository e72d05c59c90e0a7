"""Neutron's guide, followed word by word on a machine as distributions' packages leave it.

The wheel is installed already: by tests/releases/run in the environment of an older release.
"""

import json
import re
from collections.abc import Iterator

import pytest

from lab.neutron.packaged import AGENT, AGENT_PROGRAM, SERVER, USER, Machine
from lab.process import run
from lab.rest import Body
from lab.vm import Vm
from tests.e2e.neutron.packaged.guide import blocks, command, commands, names_after

CONTROLLERS = "Controllers, in this order"
COMPUTE_HOSTS = "Compute hosts, after the controllers"
SECONDS = 60
SERVED = 80
CLIENT = {"OS_AUTH_TYPE": "none", "OS_ENDPOINT": "http://127.0.0.1:9696"}
CURL = {"TOKEN": "none", "NEUTRON": CLIENT["OS_ENDPOINT"]}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A running Neutron with agent_flows, as the guide makes it."""
    migrate, server_file, plugin_file = blocks(CONTROLLERS)
    agent_file, _ = blocks(COMPUTE_HOSTS)
    with Machine() as made:
        for line in commands(migrate):
            made.run(line, USER)
        made.configure(SERVER[0], server_file)
        made.configure(SERVER[1], plugin_file)
        made.start_server()
        made.configure(AGENT[1], agent_file)
        made.start_agent()
        yield made


@pytest.fixture(scope="module")
def tenant(machine: Machine) -> Body:
    """A network and a group, for ports on the machine."""
    network = machine.client.network("10.40.0.0/24")
    rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    group = machine.client.group("web", [rule])
    [agent] = machine.client.find("agents", agent_type="Open vSwitch agent")
    return {"network": network["id"], "mtu": network["mtu"], "group": group, "agent": agent}


def port_on(machine: Machine, tenant: Body) -> Body:
    groups, host = [tenant["group"]], tenant["agent"]["host"]
    [port] = machine.client.ports(1, tenant["network"], groups, host)
    return port


def booted(machine: Machine, tenant: Body) -> Vm:
    vm = machine.boot(port_on(machine, tenant), 24, tenant["mtu"])
    vm.listen(SERVED)
    return vm


@pytest.fixture(scope="module")
def vm(machine: Machine, tenant: Body) -> Vm:
    """A machine whose port is ACTIVE."""
    found = booted(machine, tenant)
    machine.client.wait_port(found.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    return found


def test_the_agent_runs_as_its_user_and_only_privseps_helpers_as_root(
    machine: Machine, vm: Vm
) -> None:
    assert vm
    listed = run(["ps", "-ww", "-o", "uid=,args=", "-s", str(machine.agent.pid)])
    processes = [line.split(maxsplit=1) for line in listed.splitlines()]
    [user] = {uid for uid, program in processes if AGENT_PROGRAM in program}
    assert user == machine.run(f"id -u {USER}").strip() != "0"
    for uid, program in processes:
        assert uid == user or "privsep-helper" in program, program


def test_a_port_is_proven_and_the_guides_commands_show_it(
    machine: Machine, tenant: Body, vm: Vm
) -> None:
    by_client, by_curl, _ = blocks("Verify that it works")
    names = {"PORT_ID": vm.port_id, "AGENT_ID": tenant["agent"]["id"]}
    extension, agent, tasks, port = (
        json.loads(machine.run(f"{_filled(line, names)} -f json", USER, CLIENT))
        for line in commands(by_client)
    )
    assert extension["alias"] == "agent-flows"
    assert "agent_flows" in str(agent["configuration"])
    assert {task["task_state"] for task in tasks} == {"SUCCEEDED"}
    assert port == {"status": "ACTIVE", "sync_state": "IN_SYNC"}
    done, out_of_sync = (
        json.loads(machine.run(f"{_filled(line, names)} -sS", USER, CURL))
        for line in commands(by_curl)
    )
    promised = names_after("A wired port has one attempt with all tasks `SUCCEEDED`")
    assert sorted(task["name"] for task in done["tasks"]) == sorted(promised)
    assert out_of_sync == {"ports": []}


def test_the_guides_way_to_see_a_failure(machine: Machine, tenant: Body, vm: Vm) -> None:
    *_, see_a_failure = blocks("Verify that it works")
    limit, listing, lift = commands(see_a_failure)
    machine.run(limit)
    try:
        refused = booted(machine, tenant)
        machine.client.wait_port(refused.port_id, SECONDS, status="DOWN", sync_state="OUT_OF_SYNC")
        line = _filled(listing, {"PORT_ID": refused.port_id})
        failed = json.loads(machine.run(f"{line} -f json", USER, CLIENT))
        assert {task["name"] for task in failed} == {"apply-security-groups"}
    finally:
        machine.run(lift)
    machine.client.wait_port(refused.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    assert vm.connect(refused.ip, SERVED)


def test_the_checks_before_an_upgrade_find_nothing(machine: Machine, vm: Vm) -> None:
    assert vm
    files = " ".join(f"--config-file /etc/neutron/{name}" for name in SERVER)
    status = command("neutron-status upgrade check")
    status = status.replace("neutron-status", f"neutron-status {files}")
    # 1: Neutron warns of something of its own.
    found = machine.run(f"{status} || test $? -eq 1", USER)
    ours = re.findall(r"Check: agent_flows: .*\n.*Result: (\w+)", found)
    assert ours == ["Success"] * 3, found
    on_the_host = machine.run(command("agent-flows-status"))
    assert set(re.findall(r"Result: (\w+)", on_the_host)) == {"Success"}, on_the_host


def test_removal(machine: Machine, tenant: Body, vm: Vm) -> None:
    """The last one: it leaves a Neutron without agent_flows."""
    leave, clean_up = blocks("Removal")
    without = {"agent": {"extensions": ""}, "securitygroup": {"firewall_driver": "openvswitch"}}
    machine.configure(AGENT[1], without)
    machine.restart_agent()
    machine.client.wait_port(vm.port_id, SECONDS, status="ACTIVE", sync_state=None)
    for line in commands(leave):
        machine.run(line)
    machine.configure(SERVER[0], {"DEFAULT": {"service_plugins": "router"}})
    machine.configure(SERVER[1], {"ml2": {"mechanism_drivers": "openvswitch"}})
    machine.restart_server()
    for line in commands(clean_up):
        machine.run(line, USER)
    plain = booted(machine, tenant)
    assert "sync_state" not in machine.client.wait_port(plain.port_id, SECONDS, status="ACTIVE")
    assert vm.connect(plain.ip, SERVED)


def _filled(line: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        line = line.replace(name, value)
    return line
