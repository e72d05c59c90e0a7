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
    words = ("network", "agent", "flow", "task")
    listed = answer(openstack(*words, "list", "--port", active, "--state", "FAILED", "-f", "json"))
    assert [task["name"] for task in listed] == ["apply-security-groups"]
    shown = answer(openstack(*words, "show", listed[0]["id"], "-f", "json"))
    assert shown["error"]["detail"] == "OFPFMFC_TABLE_FULL"
    people = openstack(*words, "show", listed[0]["id"])
    assert "SwitchError: the switch refused a flow" in people.stdout


def test_a_port_is_shown_with_its_sync_state(active: str, openstack: Openstack) -> None:
    words = ("port", "show", active, "-f", "json", "-c", "status", "-c", "sync_state")
    assert answer(openstack(*words)) == {"status": "ACTIVE", "sync_state": "IN_SYNC"}


def test_the_commands_for_ports_are_there_too(
    neutron: Neutron, ours: Host, active: str, openstack: Openstack, make_port: Callable[..., Body]
) -> None:
    words = ("network", "agent", "flow", "port")
    listed = answer(openstack(*words, "list", "--host", ours.name, "-f", "json"))
    assert [(port["id"], port["sync_state"]) for port in listed] == [(active, "IN_SYNC")]
    assert openstack(*words, "resync", active).returncode == 0
    assert neutron.do("casts") == [["resync", ours.name, [active]]]


def test_an_unknown_task_is_one_line(openstack: Openstack) -> None:
    ran = openstack("network", "agent", "flow", "task", "show", "nothing")
    assert ran.returncode != 0
    assert ran.stderr.strip() == "Task nothing could not be found."
