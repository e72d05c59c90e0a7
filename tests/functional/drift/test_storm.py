"""Another program changes the flows again and again: reported with a count, at a bounded cost."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_flows.report import Trouble
from lab.process import wait_until
from lab.product import Site
from lab.switch import Switch
from lab.tenant import Tenant
from lab.vm import Vm

BRIDGE = "br-int"
HISTORY_ATTEMPTS, HISTORY_FAILURES = 2, 4
# The watch allows so many repairs at once, and then one in so many seconds.
BURST, SECONDS_A_REPAIR = 10, 3.0
STORMS = {
    "deletes all flows": 'ovs-ofctl del-flows "$0"; sleep 0.5',
    "adds and deletes a flow": (
        'ovs-ofctl add-flow "$0" table=82,priority=65535,actions=drop;'
        'ovs-ofctl --strict del-flows "$0" table=82,priority=65535'
    ),
    "modifies flows": 'ovs-ofctl mod-flows "$0" table=82,actions=drop',
}


@pytest.fixture
def tenant(switch: Switch) -> Iterator[Tenant]:
    """Its server keeps a short history."""
    options = {
        "agent_flows": {"retry_initial": 0.2, "retry_max": 0.5, "heartbeat_interval": 0.5},
        "agent_flows_server": {
            "history_attempts": HISTORY_ATTEMPTS,
            "history_failures": HISTORY_FAILURES,
            "sweep_interval": 0.5,
        },
    }
    with Site(switch, "host-1", options=options) as site:
        site.start_all_in_one()
        tenant = Tenant(site)
        yield tenant
        tenant.leave()


@contextmanager
def storm(switch: Switch, command: str, counted: Path) -> Iterator[None]:
    """A program that runs ``command`` in a loop; each run adds a byte to the file ``counted``."""
    script = f'while printf x >> "$1"; do {command}; done'
    argv = ["bash", "-c", script, switch.management(BRIDGE), str(counted)]
    program = subprocess.Popen(
        switch.namespace.argv(argv), stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        # With the ovs-ofctl that it runs, which would change a flow after the end otherwise.
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def flows(switch: Switch) -> list[str]:
    """Without cookies, which contain the number of the bundle."""
    return sorted(re.sub(r"cookie=\w+, ", "", line) for line in switch.flows(BRIDGE))


def drift_trouble(tenant: Tenant) -> str:
    (agent,) = tenant.site.api.find("agents")
    return str(agent["state"]["troubles"].get(Trouble.DRIFT, ""))


def attempts(tenant: Tenant, vm: Vm) -> set[str]:
    """The runs of flows that the server has kept of the port."""
    return {task["flow_id"] for task in tenant.site.api.tasks(vm.port_id)}


@pytest.mark.parametrize("command", STORMS.values(), ids=list(STORMS))
def test_storm_is_reported_with_its_count_and_ends_with_everything_right(
    tenant: Tenant, tmp_path: Path, command: str
) -> None:
    web, other = tenant.boot("web"), tenant.boot("other")
    tenant.plug(web, other)
    tenant.active(web, other)
    before = flows(tenant.site.switch)
    counted = tmp_path / "counted"
    began = time.monotonic()
    with storm(tenant.site.switch, command, counted):
        line = wait_until(lambda: drift_trouble(tenant), 60, "the storm is a trouble of the host")
        wait_until(lambda: counted.stat().st_size >= 25, 60, "the program has run many times")
        line = drift_trouble(tenant) or line
    passed = time.monotonic() - began
    found = re.search(r"found and repaired (\d+) times", line)
    assert found is not None, line
    assert 2 <= int(found[1]) <= BURST + 1 + passed / SECONDS_A_REPAIR
    wait_until(
        lambda: flows(tenant.site.switch) == before, 30, "the switch has the flows it should have"
    )
    tenant.active(web, other)
    wait_until(lambda: other.connect(web.ip, 80), 30, "what is allowed passes")
    assert not other.connect(web.ip, 5432, timeout=0.4)
    most = HISTORY_ATTEMPTS + HISTORY_FAILURES
    wait_until(
        lambda: all(len(attempts(tenant, vm)) <= most for vm in (web, other)),
        20,
        "the history is as short as it should be",
    )
