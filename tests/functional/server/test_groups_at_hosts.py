"""What a port claims of its security groups follows from what its host has realised of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from lab.model import new_id
from lab.server_parts import FakeAgent, Server

MakePort = Callable[..., str]
EGRESS = [{"direction": "egress"}]


@contextmanager
def statements(server: Server) -> Iterator[list[str]]:
    """The statements that the server sends to its database meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_rest: object) -> None:
        sent.append(text)

    engine = server.database.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def test_a_member_that_joins_makes_the_others_wait_for_their_hosts(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    port = make_port()
    agent.wire(port)
    before = server.show("ports", port)
    server.new_casts()
    make_port(**{"binding:host_id": "host-b"})
    assert server.state(port) == ("ACTIVE", "SYNCING")
    assert ("host-a", "security_groups_changed", frozenset({group})) in server.new_casts()
    assert server.show("ports", port)["updated_at"] == before["updated_at"]
    agent.wire(port)
    assert server.show("ports", port) == before


def test_a_member_that_joins_costs_as_much_in_a_large_group(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    counts = []
    for members in (2, 20):
        agent.wire(*(make_port() for _ in range(members)))
        with statements(server) as sent:
            make_port()
        counts.append(len(sent))
        # Of its own row: it was bound.
        assert sum(text.startswith("UPDATE ports ") for text in sent) == 1
    assert counts[0] == counts[1]


def test_a_port_becomes_active_with_older_members_of_a_group_but_not_with_older_rules(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    members, rules = make_port(), make_port()
    late = agent.report(members)
    make_port(**{"binding:host_id": "host-b"})
    agent.send(late)
    assert server.state(members) == ("ACTIVE", "SYNCING")
    late = agent.report(rules)
    server.put("security-groups", group, security_group_rules=EGRESS)
    agent.send(late)
    assert server.state(rules) == ("DOWN", "SYNCING")
    agent.wire(members, rules)
    assert server.state(members) == server.state(rules) == ("ACTIVE", "IN_SYNC")


def test_a_report_that_leaves_out_a_group_of_the_port_proves_nothing(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.send(agent.report(port, security_group_revisions={}))
    assert server.state(port) == ("DOWN", "SYNCING")


def test_ports_are_found_by_the_state_that_they_show(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    first, second = make_port(), make_port()
    agent.wire(first, second)
    server.put("security-groups", group, security_group_rules=EGRESS)
    agent.wire(second)
    for state, expected in (("SYNCING", [first]), ("IN_SYNC", [second])):
        found = server.find("ports", sync_state=state)
        assert [port["id"] for port in found] == expected
    assert server.show("agents", "host-a")["ports"] == {"SYNCING": 1, "IN_SYNC": 1}


def test_ports_whose_host_does_not_realise_a_group_in_time_are_unknown(
    server: Server,
    agent: FakeAgent,
    make_port: MakePort,
    group: str,
    later: Callable[[float], None],
) -> None:
    behind, current = make_port(), make_port()
    agent.wire(behind, current)
    server.put("security-groups", group, security_group_rules=EGRESS)
    for _ in range(5):
        later(10)
        agent.beat()
    agent.wire(current)
    for _ in range(2):
        later(10)
        agent.beat()
    server.sweeper.sweep()
    assert server.state(behind) == ("ACTIVE", "SYNCING"), "the host made progress 20 s ago"
    for _ in range(5):
        later(10)
        agent.beat()
    server.new_casts()
    server.sweeper.sweep()
    assert server.state(behind) == ("ACTIVE", "UNKNOWN")
    assert server.state(current) == ("ACTIVE", "IN_SYNC")
    assert server.new_casts() == [("host-a", "resync", frozenset({behind}))]
    [task] = server.find("tasks", resource_id=behind, task_state="FAILED")
    assert task["error"]["type"] == "ReportOverdue"
    agent.wire(behind)
    assert server.state(behind) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize("change", ["unbound", "deleted", "without port security"])
def test_a_host_without_ports_of_a_group_receives_no_cast_about_it(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str, change: str
) -> None:
    network = new_id()
    server.put("networks", network, network_type="local")
    body = {
        "network_id": network,
        "mac_address": "fa:16:3e:0a:00:01",
        "security_groups": [group],
        "binding:host_id": "host-a",
    }
    port = new_id()
    server.put("ports", port, **body)
    if change == "deleted":
        server.delete("ports", port)
    elif change == "unbound":
        server.put("ports", port, **{**body, "binding:host_id": None})
    else:
        server.put("ports", port, **body, port_security_enabled=False)
    server.new_casts()
    server.put("security-groups", group, security_group_rules=EGRESS)
    assert server.new_casts() == []
