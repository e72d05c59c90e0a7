"""What is out of sync now, by cause and host, oldest first."""

from collections.abc import Callable
from typing import Any

import pytest

from lab.server_parts import FakeAgent, Server
from lab.statements import statements

MakePort = Callable[..., str]
Later = Callable[[float], None]
EGRESS = [{"direction": "egress"}]


@pytest.fixture
def three(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str, later: Later
) -> dict[str, str]:
    """Three problems, the oldest first: two ports of host-b whose agent is silent, a group that
    failed on host-a with two ports, and a port of host-a that failed. And a port that works."""
    other = FakeAgent(server, "host-b")
    silent = [make_port(**{"binding:host_id": "host-b"}) for _ in range(2)]
    other.wire(*silent)
    alone = make_port(security_groups=[])
    grouped = [make_port() for _ in range(2)]
    agent.wire(make_port(security_groups=[]), alone, *grouped)
    later(120)
    agent.beat()
    server.sweeper.sweep()
    later(121)
    server.put("security-groups", group, security_group_rules=EGRESS)
    agent.send(agent.report_of_group(group, "apply-security-groups"))
    later(122)
    agent.send(agent.report(alone, fails="bind-vlan"))
    return {"silent": min(silent), "grouped": grouped[0], "alone": alone}


def problems(server: Server, **filters: Any) -> list[tuple[Any, ...]]:
    found = server.find("problems", **filters)
    return [(each["error_type"], each["host"], each["ports"]) for each in found]


def test_ports_with_one_cause_on_one_host_are_one_problem(
    server: Server, three: dict[str, str], group: str
) -> None:
    silent, failed = server.find("problems")
    assert failed == {
        "id": "SwitchError:host-a",
        "error_type": "SwitchError",
        "message": "the switch refused a flow",
        "host": "host-a",
        "since": server.show("ports", three["grouped"])["sync_since"],
        "ports": {"OUT_OF_SYNC": 3},
        "resource_type": "security_group",
        "resource_id": group,
    }
    assert server.show("problems", failed["id"]) == failed
    assert silent["message"].startswith("no heartbeat from the port's agent since")
    assert silent["since"] < failed["since"]
    assert (silent["id"], silent["ports"]) == ("AgentSilent:host-b", {"UNKNOWN": 2})
    assert (silent["resource_type"], silent["resource_id"]) == ("port", three["silent"])


def test_problems_are_filtered_by_host_cause_and_resource(
    server: Server, three: dict[str, str], group: str
) -> None:
    silent = ("AgentSilent", "host-b", {"UNKNOWN": 2})
    failed = ("SwitchError", "host-a", {"OUT_OF_SYNC": 3})
    assert problems(server) == [silent, failed]
    assert problems(server, host="host-b") == [silent]
    assert problems(server, error_type="SwitchError") == [failed]
    assert problems(server, error_type="SwitchError", host="host-b") == []
    one = ("SwitchError", "host-a", {"OUT_OF_SYNC": 1})
    assert problems(server, resource_id=three["alone"]) == [one]
    assert problems(server, resource_id=three["grouped"]) == [one]
    assert problems(server, resource_id=group) == [("SwitchError", "host-a", {"OUT_OF_SYNC": 2})]
    assert problems(server, resource_id="elsewhere") == []


@pytest.mark.usefixtures("three")
def test_pages_of_problems_follow_each_other(server: Server) -> None:
    whole = server.find("problems")
    answer = server.rest.simulate_get("/problems", params={"limit": 1}).json
    link = answer["problems_links"][0]["href"].removeprefix("http://falconframework.org")
    assert [*answer["problems"], *server.rest.simulate_get(link).json["problems"]] == whole
    newest = server.find("problems", sort_key="since", sort_dir="desc")
    assert newest == whole[::-1]
    assert server.find("problems", fields="host") == [{"host": "host-b"}, {"host": "host-a"}]


def test_a_problem_that_was_solved_is_none(
    server: Server, agent: FakeAgent, three: dict[str, str], group: str
) -> None:
    agent.wire(three["alone"])
    agent.send(agent.report_of_group(group))
    FakeAgent(server, "host-b")
    for host in ("host-a", "host-b"):
        for port in server.find("ports", **{"binding:host_id": host}):
            FakeAgent(server, host).send(FakeAgent(server, host).report(port["id"], sequence=10**6))
    assert server.find("problems") == []
    assert server.rest.simulate_get("/problems/SwitchError:host-a").status_code == 404


def test_a_failure_without_history_is_a_problem_without_a_cause(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.send(agent.report(port, fails="bind-vlan"))
    with server.database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM agent_flows_attempts")
    (found,) = server.find("problems")
    assert (found["id"], found["error_type"], found["message"]) == (":host-a", None, None)
    assert server.show("problems", found["id"]) == found
    assert server.show("ports", port)["sync_reason"] is None


@pytest.mark.parametrize("query", ["error_type=%00", "resource_id=%00", "colour=red", "limit=0"])
def test_what_is_no_question_is_refused(server: Server, query: str) -> None:
    assert server.rest.simulate_get(f"/problems?{query}").status_code == 400


@pytest.mark.usefixtures("three")
def test_problems_are_one_statement(server: Server) -> None:
    with statements(server.database.engine) as sent:
        server.find("problems")
    assert len([text for text in sent if text.startswith("SELECT")]) == 1
