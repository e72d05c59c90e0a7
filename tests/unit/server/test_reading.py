"""What operators read: tasks of attempts, pages, filters, agents, health and metrics."""

from typing import Any

import pytest

from agent_flows.report import FlowName
from agent_flows.server.core import agent_view, clock
from agent_flows.server.core.liveness import Liveness
from agent_flows.server.core.metrics import Snapshot
from lab.model import WIRE, new_id
from lab.server_parts import FakeAgent, Server

FIRST, SECOND = sorted([new_id(), new_id()])


@pytest.fixture
def ports(server: Server, agent: FakeAgent, network: str, group: str) -> None:
    """Two ports: one failed and then succeeded, the other was wired at once."""
    for number, port_id in enumerate((FIRST, SECOND)):
        server.put(
            "ports",
            port_id,
            network_id=network,
            mac_address=f"fa:16:3e:00:00:0{number}",
            security_groups=[group],
            **{"binding:host_id": "host-a"},
        )
    agent.send(agent.report(FIRST, fails="apply-security-groups"))
    agent.wire(FIRST)
    agent.wire(SECOND)


@pytest.mark.usefixtures("ports")
def test_one_request_shows_what_failed_where_and_why(server: Server) -> None:
    (task,) = server.find("tasks", resource_id=FIRST, task_state="FAILED")
    assert task == {
        "id": task["id"],
        "resource_type": "port",
        "resource_id": FIRST,
        "host": "host-a",
        "flow": "wire",
        "flow_id": task["flow_id"],
        "name": "apply-security-groups",
        "step": "security_groups",
        "order": 3,
        "task_state": "FAILED",
        "attempt": 1,
        "revision": 1,
        "started_at": task["started_at"],
        "duration": 0.001,
        "error": {
            "type": "SwitchError",
            "message": "the switch refused a flow",
            "detail": "OFPFMFC_TABLE_FULL",
        },
    }
    assert server.show("tasks", task["id"]) == task


@pytest.mark.usefixtures("ports")
def test_the_last_attempt_comes_first_its_tasks_in_order(server: Server) -> None:
    tasks = server.find("tasks", resource_id=FIRST)
    assert [task["name"] for task in tasks] == [*WIRE, *WIRE]
    assert [task["task_state"] for task in tasks[: len(WIRE)]] == ["SUCCEEDED"] * len(WIRE)
    assert [task["task_state"] for task in tasks[len(WIRE) :]] == [
        *["REVERTED"] * 3,
        "FAILED",
        *["PENDING"] * (len(WIRE) - 4),
    ]
    assert tasks[-1]["started_at"] is None
    assert tasks[-1]["duration"] is None


SORTS = [
    {},
    {"sort_key": "started_at", "sort_dir": "desc"},
    {"sort_key": "duration"},
    {"sort_key": ["task_state", "name"], "sort_dir": ["desc", "asc"]},
    {"sort_key": ["resource_id", "order"]},
]


@pytest.mark.usefixtures("ports")
@pytest.mark.parametrize("sort", SORTS)
def test_pages_put_together_are_the_whole_list(server: Server, sort: dict[str, Any]) -> None:
    whole = server.find("tasks", **sort)
    assert len(whole) == 3 * len(WIRE)
    paged: list[dict[str, Any]] = []
    params = {**sort, "limit": 4}
    while True:
        answer = server.rest.simulate_get("/tasks", params=params, params_csv=False).json
        paged += answer["tasks"]
        if "tasks_links" not in answer:
            break
        assert len(answer["tasks"]) == 4
        params["marker"] = answer["tasks"][-1]["id"]
    assert paged == whole


@pytest.mark.usefixtures("ports")
def test_the_link_to_the_next_page_leads_there(server: Server) -> None:
    answer = server.rest.simulate_get(
        "/tasks", params={"limit": 3 * len(WIRE) - 1, "host": "host-a"}
    ).json
    path = answer["tasks_links"][0]["href"].removeprefix("http://falconframework.org")
    assert len(server.rest.simulate_get(path).json["tasks"]) == 1


@pytest.mark.usefixtures("ports")
@pytest.mark.parametrize(
    ("filters", "number"),
    [
        ({"resource_id": SECOND}, len(WIRE)),
        ({"resource_id": [FIRST, SECOND]}, 3 * len(WIRE)),
        ({"host": "host-a"}, 3 * len(WIRE)),
        ({"host": "HOST-A"}, 0),
        ({"flow": "wire"}, 3 * len(WIRE)),
        ({"flow": "refresh"}, 0),
        ({"name": "bind-vlan"}, 3),
        ({"task_state": ["FAILED", "PENDING"]}, 1 + len(WIRE) - 4),
        ({"step": "security_groups", "task_state": "SUCCEEDED"}, 2 * 3),
    ],
)
def test_tasks_are_filtered(server: Server, filters: dict[str, Any], number: int) -> None:
    answer = server.rest.simulate_get("/tasks", params=filters, params_csv=False)
    assert len(answer.json["tasks"]) == number


@pytest.mark.usefixtures("ports")
def test_fields_are_chosen(server: Server) -> None:
    assert server.find("ports", id=FIRST, fields="id,status") == [{"id": FIRST, "status": "ACTIVE"}]


@pytest.mark.usefixtures("ports")
def test_ports_are_filtered_and_sorted(server: Server) -> None:
    assert [port["id"] for port in server.find("ports", sync_state="IN_SYNC")] == [FIRST, SECOND]
    assert server.find("ports", **{"binding:host_id": "host-b"}) == []
    by_mac = server.find("ports", sort_key="mac_address", sort_dir="desc")
    assert [port["id"] for port in by_mac] == [SECOND, FIRST]


@pytest.mark.usefixtures("ports")
def test_agents_are_shown_with_their_ports(server: Server, agent: FakeAgent) -> None:
    assert server.store.take_heartbeat("host-a", {"ports": 2}).sequence == agent.sequence
    (shown,) = server.find("agents")
    assert shown == {
        "id": "host-a",
        "host": "host-a",
        "alive": True,
        "heartbeat_at": shown["heartbeat_at"],
        "sequence": agent.sequence,
        "state": {"ports": 2, "trouble": None, "troubles": {}},
        "conflict": None,
        "host_key": None,
        "desired": None,
        "gating_off": None,
        "ports": {"IN_SYNC": 2},
    }
    assert server.show("agents", "host-a") == shown


@pytest.mark.usefixtures("ports")
def test_a_port_that_was_unwired_is_absent(server: Server, agent: FakeAgent) -> None:
    agent.send(agent.report(FIRST, FlowName.UNWIRE))
    assert server.state(FIRST) == ("DOWN", "ABSENT")


@pytest.mark.usefixtures("ports")
def test_metrics_count_ports_and_hosts_by_state(server: Server, agent: FakeAgent) -> None:
    def snapshot() -> Snapshot:
        with server.database.reader() as session:
            return agent_view.snapshot(
                session, server.directory, Liveness(server.rules, clock.now())
            )

    agent.beat(troubles={"switch": "gone", "made-up\n": "x"}, waiting=3, unreported=2)
    agent.wire(FIRST, SECOND)
    server.metrics.watch_database(snapshot)
    text = server.rest.simulate_get("/metrics").text
    line = 'agent_flows_ports{host="host-a",status="ACTIVE",sync_state="IN_SYNC"} 2.0'
    assert line in text
    for known in (
        "agent_flows_database_up 1.0",
        'agent_flows_agent_up{host="host-a"} 1.0',
        'agent_flows_agent_heartbeat_age_seconds{host="host-a"} ',
        'agent_flows_agent_conflict{host="host-a"} 0.0',
        'agent_flows_agent_trouble{host="host-a",source="switch"} 1.0',
        'agent_flows_agent_trouble{host="host-a",source="other"} 1.0',
        'agent_flows_agent_waiting{host="host-a"} 3.0',
        'agent_flows_agent_unreported{host="host-a"} 2.0',
    ):
        assert known in text
    assert "made-up" not in text
    assert 'agent_flows_reports_total{ruling="failed"} 1.0' in text


def test_metrics_work_without_the_database(server: Server) -> None:
    def away() -> Snapshot:
        raise ConnectionError("no database")

    server.metrics.watch_database(away)
    server.metrics.watch_process(lambda: {"database": True, "bus": False})
    answer = server.rest.simulate_get("/metrics")
    assert answer.status_code == 200
    assert "agent_flows_database_up 0.0" in answer.text
    assert 'agent_flows_server_failing{part="database"} 1.0' in answer.text
    assert 'agent_flows_server_failing{part="bus"} 0.0' in answer.text
    assert "agent_flows_sweeps_failed_total 0.0" in answer.text
    assert "agent_flows_ports" not in answer.text
