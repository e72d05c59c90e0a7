"""The status page: what it shows, what it escapes, and what it refuses."""

import datetime
import html
import re
from collections.abc import Callable
from typing import Any

import falcon.testing
import pytest

from agent_flows import errors
from agent_flows.report import FlowName, Step, TaskError, TaskOutcome, TaskState
from agent_flows.server.core import clock, gating
from lab.model import new_id
from lab.server_parts import FakeAgent, Server
from lab.statements import statements

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}"
Make = Callable[..., str]


@pytest.fixture
def make(server: Server, network: str, group: str) -> Make:
    made: list[str] = []

    def make(**fields: Any) -> str:
        made.append(new_id())
        body = {
            "network_id": network,
            "mac_address": f"fa:16:3e:00:00:{len(made):02x}",
            "security_groups": [group],
            "binding:host_id": "host-a",
            **fields,
        }
        server.put("ports", made[-1], **body)
        return made[-1]

    return make


def get(server: Server, path: str, **params: str) -> falcon.testing.Result:
    return server.rest.simulate_get(path, params=params)


def shown(server: Server, path: str, **params: str) -> str:
    answer = get(server, path, **params)
    assert answer.status_code == 200, answer.text
    return answer.text


def words(text: str) -> str:
    """What a person reads of it."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def failure(message: str, detail: str = "") -> tuple[TaskOutcome, ...]:
    error = TaskError("SwitchError", message, detail)
    return (TaskOutcome("bind-vlan", Step.L2, TaskState.FAILED, error=error),)


def test_overview_begins_with_what_is_not_in_sync(
    server: Server, agent: FakeAgent, make: Make
) -> None:
    works, fails = make(name="works"), make(name="fails")
    agent.wire(works)
    assert "No port is out of sync; 1 of 2 is not in sync" in words(shown(server, "/"))
    agent.send(agent.report(fails, fails="bind-vlan"))
    text = shown(server, "/")
    assert "1 of 2 ports is out of sync" in words(text)
    assert "bind-vlan failed: SwitchError: the switch refused a flow" in words(text)
    assert errors.remedy("SwitchError") in words(text)
    assert f'href="/page/ports/{fails}"' in text
    assert f'href="/page/ports/{works}"' not in text
    agent.wire(fails)
    assert "All 2 ports are in sync" in words(shown(server, "/"))


def test_empty_server_has_an_overview(server: Server) -> None:
    assert "There are no ports" in words(shown(server, "/"))
    assert "No agent was ever seen" in words(shown(server, "/page/hosts"))


def test_port_that_failed_has_task_cause_remedy_and_the_words_of_the_tool(
    server: Server, agent: FakeAgent, make: Make
) -> None:
    port = make()
    agent.wire(port)
    agent.send(agent.report(port, fails="bind-vlan", attempt=2))
    text = shown(server, f"/page/ports/{port}")
    read = words(text)
    known = errors.declared("SwitchError")
    assert known is not None
    for expected in (
        "OUT_OF_SYNC since",
        "Last: wire, attempt 2, failed",
        "bind-vlan failed: SwitchError: the switch refused a flow",
        known.cause.replace("`", ""),
        known.remedy.replace("`", ""),
        "OFPFMFC_TABLE_FULL",
        "Earlier attempts and drifts wire, attempt 1, succeeded",
    ):
        assert expected in read
    assert text.count("<rect ") == sum(
        task["started_at"] is not None for task in server.find("tasks", resource_id=port)
    )


def test_drift_is_named_as_such(server: Server, agent: FakeAgent, make: Make) -> None:
    port = make()
    agent.wire(port)
    agent.send(agent.report(port, FlowName.AUDIT, tasks=failure("a flow is missing")))
    read = words(shown(server, f"/page/ports/{port}"))
    assert "Last: drift found, another program changed the switch" in read
    assert "a flow is missing" in words(shown(server, "/page/hosts/host-a"))


def test_host_shows_trouble_queue_outbox_and_what_failed(
    server: Server, agent: FakeAgent, make: Make
) -> None:
    agent.send(agent.report(make(), fails="bind-vlan"))
    agent.beat(
        waiting=17,
        oldest=2.5,
        unreported=4,
        audit_age=0.0,
        troubles={"switch": "ovs-vswitchd does not answer"},
    )
    read = words(shown(server, "/page/hosts/host-a"))
    for expected in (
        "alive, last heartbeat",
        "switch: ovs-vswitchd does not answer",
        "Queue17 ports wait for a flow, the longest for 2.50 s",
        "Outbox4 reports not yet delivered",
        f"Last audit{datetime.datetime.now(datetime.UTC).date()}",
        "Gatingon",
        "Last failures",
        "Slowest of the last",
        "SwitchError: the switch refused a flow",
    ):
        assert expected in read
    assert "switch: ovs-vswitchd does not answer" in words(shown(server, "/"))
    assert "switch: ovs-vswitchd does not answer" in words(shown(server, "/page/hosts"))


def test_host_shows_the_tasks_that_took_longest_first(
    server: Server, agent: FakeAgent, make: Make
) -> None:
    tasks = tuple(
        TaskOutcome(name, Step.L2, TaskState.SUCCEEDED, clock.now(), duration)
        for name, duration in (("quick", 0.01), ("slow", 90.0), ("middle", 1.0))
    )
    agent.send(agent.report(make(), tasks=tasks))
    read = words(shown(server, "/page/hosts/host-a")).partition("Slowest of the last")[2]
    assert read.index("slowwire") < read.index("middlewire") < read.index("quickwire")


@pytest.mark.parametrize("value", ["now", "0001-01-01T00:00:00+23:00", -1e300, 1e15, None, [1]])
def test_no_number_and_no_text_of_an_agent_breaks_the_page(
    server: Server, agent: FakeAgent, value: object
) -> None:
    names = ("audit_age", "started_at", "waiting", "oldest", "oldest_flow", "unreported")
    agent.beat(**dict.fromkeys(names, value))
    assert "alive" in words(shown(server, "/page/hosts/host-a"))


def test_gating_that_is_off_is_shown_wherever_it_matters(
    server: Server, agent: FakeAgent, make: Make
) -> None:
    port = make()
    with server.database.writer() as session:
        gating.turn_off(session, "host-a", reason="a broken switch", by="ops", now=clock.now())
    for path in ("/", f"/page/ports/{port}", "/page/hosts", "/page/hosts/host-a"):
        read = words(shown(server, path))
        assert "gating is off until" in read.lower()
        assert "a broken switch" in read


def test_host_without_an_agent_has_a_page_while_it_has_ports(server: Server, make: Make) -> None:
    make(**{"binding:host_id": "host-z"})
    assert "No agent was ever seen on this host" in words(shown(server, "/page/hosts/host-z"))


@pytest.mark.parametrize("path", ["/", "/page/ports", "/page/ports/{}", "/page/hosts/host-a"])
def test_names_and_errors_are_escaped(
    server: Server, agent: FakeAgent, make: Make, path: str
) -> None:
    port = make(name=HOSTILE)
    agent.send(agent.report(port, tasks=failure(HOSTILE, HOSTILE)))
    agent.beat(troubles={"switch": HOSTILE}, version=HOSTILE, bridge=HOSTILE)
    text = shown(server, path.format(port))
    assert "<script>" not in text
    assert "<img" not in text
    assert "{{ 7*7 }}" in text
    assert html.escape(HOSTILE, quote=False).split("(")[0] in text


def test_what_was_typed_is_escaped(server: Server) -> None:
    text = shown(server, "/page/ports", name=HOSTILE, host=HOSTILE)
    assert "<script>" not in text
    assert "<img" not in text
    refused = get(server, "/page/ports", sync_state=HOSTILE)
    assert (refused.status_code, refused.headers["content-type"]) == (
        400,
        "text/html; charset=utf-8",
    )
    assert "<script>" not in refused.text


@pytest.mark.parametrize(
    "path",
    ["/", "/page/ports", "/page/ports/none", "/page/hosts", "/page/style.css", "/page/live.js"],
)
def test_everything_forbids_what_is_not_from_here(server: Server, path: str) -> None:
    headers = get(server, path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_pages_keep_to_their_policy(server: Server, agent: FakeAgent, make: Make) -> None:
    port = make()
    agent.send(agent.report(port, fails="bind-vlan"))
    for path in ("/", "/page/ports", f"/page/ports/{port}", "/page/hosts", "/page/hosts/host-a"):
        text = shown(server, path)
        assert re.findall(r"<script[^>]*>", text) == ['<script src="/page/live.js" defer>']
        assert not re.search(r"<[^>]* (style|on\w+)=", text)
        assert not re.search(r"https?:", text)
        for loaded in re.findall(r'(?:src|href)="(/page/[a-z.]+)"', text):
            assert get(server, loaded).status_code == 200


def test_what_is_not_there_is_a_page_of_404(server: Server) -> None:
    for path in ("/page/ports/none", "/page/hosts/none", f"/page/ports/{new_id()}"):
        answer = get(server, path)
        assert answer.status_code == 404
        assert "<h1>NotFound</h1>" in answer.text


def test_form_leads_to_the_port_whose_id_was_typed(server: Server, make: Make) -> None:
    port = make(name="web")
    answer = get(server, "/page/ports", name=f" {port.upper()} ")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/page/ports/{port}")
    assert f"/page/ports/{port}" in shown(server, "/page/ports", name="web", host="")
    assert f"/page/ports/{port}" not in shown(server, "/page/ports", name="other")


def test_long_lists_have_pages(server: Server, make: Make, network: str) -> None:
    fields = {"network_id": network, "name": "a&b"}
    ids = sorted(new_id() for _ in range(150))
    bodies = [
        {"id": id_, "mac_address": f"fa:16:3e:00:01:{place:02x}", **fields}
        for place, id_ in enumerate(ids)
    ]
    server.rest.simulate_post("/ports", json={"ports": bodies})
    seen: list[str] = []
    path = "/page/ports?name=a%26b"
    while path:
        text = server.rest.simulate_get(path).text
        seen += re.findall(r'href="/page/ports/([0-9a-f-]{36})"', text)
        after = re.search(r'rel="next" href="([^"]*)"', text)
        path = html.unescape(after[1]) if after else ""
    assert seen == ids


def test_a_page_is_as_many_statements_for_many_ports_as_for_one(
    server: Server, agent: FakeAgent, make: Make
) -> None:
    ports = [make()]
    agent.send(agent.report(ports[0], fails="bind-vlan"))
    paths = ("/", "/page/ports", f"/page/ports/{ports[0]}", "/page/hosts", "/page/hosts/host-a")

    def sent() -> list[int]:
        numbers = []
        for path in paths:
            with statements(server.database.engine) as made:
                shown(server, path)
            selects = [text for text in made if text.startswith("SELECT")]
            # Of ports and tasks: a page of them, or those that a page or a resource named.
            unbounded = [
                text
                for text in selects
                if "LIMIT" not in text
                and " IN (" not in text
                and ".id = ?" not in text
                and "count(*)" not in text
                and "agent_flows_agents" not in text
                and "agent_flows_gating" not in text
            ]
            assert unbounded == []
            numbers.append(len(selects))
        return numbers

    few = sent()
    for _ in range(30):
        ports.append(make())
        agent.send(agent.report(ports[-1], fails="bind-vlan"))
    assert sent() == few
    assert max(few) <= 12


def test_a_database_that_is_away_is_a_page_of_503(server: Server) -> None:
    server.database.engine.dispose()
    with server.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE agent_flows_agents")
    answer = get(server, "/page/hosts")
    assert answer.status_code in (500, 503)
    assert answer.text.startswith("<!DOCTYPE html>")
    assert "no such table" not in answer.text
