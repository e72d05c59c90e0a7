"""The ``openstack`` command with our plugin, on Neutron's API."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import Body, Host, Neutron

OPENSTACK = Path(sys.executable).parent / "openstack"
Openstack = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def openstack(process: Neutron) -> Openstack:
    endpoint = f"http://127.0.0.1:{process.do('serve')}"
    env = {**os.environ, "OS_AUTH_TYPE": "none", "OS_ENDPOINT": endpoint}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [OPENSTACK, *words], capture_output=True, text=True, check=False, timeout=60, env=env
        )

    return run


def answer(ran: subprocess.CompletedProcess[str]) -> Any:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_failed_task_is_shown_with_its_error(
    neutron: Neutron, ours: Host, active: str, openstack: Openstack
) -> None:
    ours.reports(active, flow=FlowName.REFRESH, fails="apply-security-groups")
    words = ("network", "port", "task")
    listed = answer(openstack(*words, "list", "--port", active, "--state", "FAILED", "-f", "json"))
    assert [task["name"] for task in listed] == ["apply-security-groups"]
    shown = answer(openstack(*words, "show", listed[0]["id"], "-f", "json"))
    assert shown["error"]["detail"] == "OFPFMFC_TABLE_FULL"
    people = openstack(*words, "show", listed[0]["id"])
    assert "SwitchError: the switch refused a flow" in people.stdout


def test_a_port_is_shown_with_its_sync_state_and_the_reason(
    ours: Host, active: str, openstack: Openstack
) -> None:
    columns = ("status", "sync_state", "sync_revision", "sync_reason")
    words = ["port", "show", active, "-f", "json"]
    words += [word for column in columns for word in ("-c", column)]
    shown = answer(openstack(*words))
    assert shown.pop("sync_revision")
    assert shown == {"status": "ACTIVE", "sync_state": "IN_SYNC", "sync_reason": None}
    ours.reports(active, fails="bind-vlan")
    people = openstack("port", "show", active, "-c", "sync_reason").stdout
    assert "SwitchError: the switch refused a flow" in people


@pytest.mark.parametrize("kind", ["network", "security group"])
def test_a_network_and_a_group_are_shown_with_the_hosts_that_lag(
    neutron: Neutron, ours: Host, openstack: Openstack, kind: str
) -> None:
    # Of the network and the group that the tests share more hosts lag than are shown.
    network = neutron.create("networks", name="lagging")["id"]
    neutron.create("subnets", network_id=network, ip_version=4, cidr="10.0.0.0/24")
    group = neutron.create("security-groups", name="lagging")["id"]
    bound = {"binding:host_id": ours.name, "device_owner": "compute:nova"}
    port = neutron.create("ports", network_id=network, security_groups=[group], **bound)["id"]
    ours.plug(port)
    ours.reports(port, fails="bind-vlan")
    words = [*kind.split(), "show", network if kind == "network" else group, "-c", "sync"]
    assert answer(openstack(*words, "-f", "json"))["sync"]["ports"]["OUT_OF_SYNC"] == 1
    assert ours.name in openstack(*words).stdout


def test_problems_are_listed(ours: Host, active: str, openstack: Openstack) -> None:
    ours.reports(active, fails="bind-vlan")
    words = ("network", "port", "problem", "list", "--host", ours.name, "-f", "json")
    (problem,) = answer(openstack(*words))
    assert (problem["error_type"], problem["resource_id"]) == ("SwitchError", active)


def test_old_names_work_and_give_the_new_ones(
    ours: Host, active: str, openstack: Openstack
) -> None:
    words = ("network", "agent", "flow", "port", "list", "--host", ours.name, "-f", "json")
    ran = openstack(*words)
    assert [port["id"] for port in answer(ran)] == [active]
    assert "deprecated: use openstack network port sync list" in ran.stderr


def test_the_commands_for_ports_are_there_too(
    neutron: Neutron, ours: Host, active: str, openstack: Openstack, make_port: Callable[..., Body]
) -> None:
    words = ("network", "port", "sync")
    listed = answer(openstack(*words, "list", "--host", ours.name, "-f", "json"))
    assert [(port["id"], port["sync_state"]) for port in listed] == [(active, "IN_SYNC")]
    assert openstack("network", "port", "resync", active).returncode == 0
    assert neutron.do("casts") == [["resync", ours.name, [active]]]


def test_an_unknown_task_is_one_line(openstack: Openstack) -> None:
    ran = openstack("network", "port", "task", "show", "nothing")
    assert ran.returncode != 0
    assert ran.stderr.strip() == "Task nothing could not be found."
