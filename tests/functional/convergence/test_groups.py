"""What a host realises of a group, and what the server may conclude for each port from that."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.bus_agent import BusAgent
from lab.model import HOST, egress_to_anywhere, ingress, new_id, random_mac
from lab.process import wait_until
from lab.rest import Body
from lab.switch import RULES_INGRESS
from lab.vm import plug
from tests.functional.convergence.conftest import World

OTHER_HOST = "other-host"


@pytest.fixture
def elsewhere(world: World, tmp_path: Path) -> Iterator[str]:
    """A port in group ``web`` on another host, whose agent has no switch and refuses nothing."""
    port = new_id()
    body = {
        "network_id": world.network,
        "mac_address": random_mac(),
        "security_groups": [world.web],
        "binding:host_id": OTHER_HOST,
    }
    world.api.put("ports", port, body)
    agent = BusAgent(world.bus, OTHER_HOST, [port], tmp_path, interval=0.4)
    agent.start()
    yield port
    agent.stop()


def reports_of_web(world: World) -> Callable[[str], list[Body]]:
    """Finds the reports of group ``web`` that a host has sent from now on, oldest first: of each
    the first task."""

    def first_tasks() -> list[Body]:
        return [task for task in world.api.tasks(world.web) if task["order"] == 0]

    known = {task["flow_id"] for task in first_tasks()}

    def new(host: str) -> list[Body]:
        return [
            task for task in first_tasks() if task["host"] == host and task["flow_id"] not in known
        ]

    return new


def test_rules_that_one_host_refuses_take_exactly_its_ports_of_the_group_out_of_sync(
    world: World, elsewhere: str
) -> None:
    one, two = world.boot("one", world.web), world.boot("two", world.web)
    db, client = world.boot("db", world.db), world.boot("client", world.db)
    plug(world.switch, [one, two, db, client])
    world.in_sync(one, two, db, client)
    world.api.wait_port(elsewhere, 20, sync_state="IN_SYNC")
    world.idle()
    dependent = (one.port_id, two.port_id)
    others = (db.port_id, client.port_id, elsewhere)
    own_reports = {port_id: world.attempts(port_id) for port_id in (*dependent, *others)}
    new = reports_of_web(world)
    with world.switch.full_table(RULES_INGRESS):
        rules = [ingress(protocol="tcp", port=5432), *egress_to_anywhere()]
        world.cloud.group("web", rules, world.web)
        for port_id in dependent:
            shown = world.api.wait_port(port_id, 20, sync_state="OUT_OF_SYNC")
            assert "apply-security-groups failed: FlowRefused" in shown["reason"]
            failed = world.api.tasks(port_id, "FAILED")
            assert {(task["resource_type"], task["resource_id"]) for task in failed} == {
                ("security_group", world.web)
            }
            assert "OFPFMFC_TABLE_FULL" in failed[-1]["error"]["detail"]
        # The other host has taken the change, and is not behind.
        wait_until(lambda: new(OTHER_HOST), 20, "the other host reports the group")
        for port_id in others:
            shown = world.api.port(port_id)
            assert (shown["status"], shown["sync_state"]) == ("ACTIVE", "IN_SYNC")
        assert not one.connect(two.ip, 5432, timeout=0.3)
    for port_id in (*dependent, *others):
        world.api.wait_port(port_id, 30, status="ACTIVE", sync_state="IN_SYNC")
    assert one.connect(two.ip, 5432)
    world.idle()
    here = states(new(HOST))
    assert here == ["FAILED"] * (len(here) - 1) + ["SUCCEEDED"]
    assert states(new(OTHER_HOST)) == ["SUCCEEDED"]
    # No port was reported by itself.
    assert {port_id: world.attempts(port_id) for port_id in own_reports} == own_reports


def test_a_group_that_changes_at_a_restart_of_the_agent_does_not_prove_a_port_that_is_not(
    world: World,
) -> None:
    """The process before has proven it, and cannot know that its cable is gone since."""
    one, two = world.boot("one", world.web), world.boot("two", world.web)
    plug(world.switch, [one, two])
    world.in_sync(one, two)
    world.idle()
    world.stop_agent()
    world.switch.namespace.ip("link", "delete", two.tap)
    new = reports_of_web(world)
    seen = set()

    def one_is_in_sync() -> bool:
        seen.add(world.api.port(two.port_id)["sync_state"])
        return bool(world.api.port(one.port_id)["sync_state"] == "IN_SYNC")

    for number in range(6):
        rules = [ingress(protocol="tcp", port=5432 + number), *egress_to_anywhere()]
        world.cloud.group("web", rules, world.web)
        if number == 0:
            world.start_agent()
        wait_until(one_is_in_sync, 30, "the proven port follows the group")
    wait_until(lambda: "SUCCEEDED" in states(new(HOST)), 20, "the group is reported")
    shown = world.api.wait_port(two.port_id, 20, status="DOWN", sync_state="OUT_OF_SYNC")
    assert "raise-link failed: LinkNotFound" in shown["reason"]
    assert "IN_SYNC" not in seen
    world.switch.namespace.ip("link", "add", two.tap, "type", "veth", "peer", "name", "far")
    world.api.wait_port(two.port_id, 30, status="ACTIVE", sync_state="IN_SYNC")


def states(tasks: list[Body]) -> list[str]:
    return [task["task_state"] for task in tasks]
