"""What a port claims of its security groups follows from what its host has realised of them."""

from collections.abc import Callable

import pytest

from agent_flows.report import PortStatus
from agent_flows.server.core.gate import Settings
from lab.model import new_id
from lab.server_parts import FakeAgent, Server
from lab.statements import statements

MakePort = Callable[..., str]
EGRESS = [{"direction": "egress"}]


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
        with statements(server.database.engine) as sent:
            make_port()
        counts.append(len(sent))
        assert not any(text.startswith("UPDATE ports ") for text in sent)
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


def test_one_report_of_a_group_is_about_all_its_ports_on_the_host(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    ports = [make_port() for _ in range(3)]
    other = FakeAgent(server, "host-b")
    elsewhere = make_port(**{"binding:host_id": "host-b"})
    agent.wire(*ports)
    other.wire(elsewhere)
    server.put("security-groups", group, security_group_rules=EGRESS)
    report = agent.report_of_group(group)
    assert agent.send(report).accepted == [report.id]
    assert {server.state(port) for port in ports} == {("ACTIVE", "IN_SYNC")}
    assert server.state(elsewhere) == ("ACTIVE", "SYNCING")
    names = [task["name"] for task in server.find("tasks", flow_id=report.id)]
    assert names == ["apply-security-groups", "verify-security-groups", "commit-security-groups"]
    [task] = server.find("tasks", resource_id=ports[0], flow_id=report.id, name=names[0])
    assert (task["resource_type"], task["resource_id"]) == ("security_group", group)
    assert server.find("tasks", resource_id=elsewhere, flow_id=report.id) == []


def test_a_group_that_fails_takes_exactly_its_ports_out_of_sync(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    ports = [make_port() for _ in range(2)]
    outside = make_port(security_groups=[])
    agent.wire(*ports, outside)
    server.put("security-groups", group, security_group_rules=EGRESS)
    agent.send(agent.report_of_group(group, "apply-security-groups"))
    assert {server.state(port) for port in ports} == {("DOWN", "OUT_OF_SYNC")}
    assert server.state(outside) == ("ACTIVE", "IN_SYNC")
    for port in ports:
        assert "apply-security-groups failed: SwitchError" in server.show("ports", port)["reason"]
        [task] = server.find("tasks", resource_id=port, task_state="FAILED")
        assert task["resource_id"] == group
    agent.send(agent.report_of_group(group))
    assert {server.state(port) for port in ports} == {("ACTIVE", "IN_SYNC")}


def test_the_status_may_be_kept_when_a_group_fails(
    another: Callable[..., Server], agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    server = another(settings=Settings(keep_active_on_refresh_failure=True))
    port = make_port()
    agent.server = server
    agent.wire(port)
    server.put("security-groups", group, security_group_rules=EGRESS)
    agent.send(agent.report_of_group(group, "apply-security-groups"))
    assert server.state(port) == ("ACTIVE", "OUT_OF_SYNC")


def test_a_port_that_was_wired_with_older_rules_becomes_active_with_the_group(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    port, down = make_port(), make_port(admin_state_up=False)
    late = [agent.report(port), agent.report(down)]
    server.put("security-groups", group, security_group_rules=EGRESS)
    agent.send(*late)
    assert server.state(port) == (PortStatus.DOWN, "SYNCING")
    agent.send(agent.report_of_group(group))
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    assert server.state(down) == ("DOWN", "IN_SYNC")


def test_a_report_of_a_group_says_nothing_of_a_port_that_reports_after_it(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    early, late = make_port(), make_port()
    old = agent.report(late, sequence=1000)
    agent.wire(early)
    server.put("security-groups", group, security_group_rules=EGRESS)
    agent.send(agent.report_of_group(group))
    agent.send(old)
    assert server.state(early) == ("ACTIVE", "IN_SYNC")
    assert server.state(late) == ("DOWN", "SYNCING")


@pytest.mark.parametrize("fault", ["another host", "an older sequence", "a revision to come"])
def test_a_report_of_a_group_that_is_not_about_now_proves_nothing(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str, fault: str
) -> None:
    port = make_port()
    agent.wire(port)
    server.put("security-groups", group, security_group_rules=EGRESS)
    if fault == "another host":
        stranger = FakeAgent(server, "host-b")
        report = stranger.report_of_group(group)
        assert report.id in stranger.send(report).rejected
    elif fault == "an older sequence":
        agent.send(agent.report_of_group(group, sequence=1))
    else:
        agent.send(agent.report_of_group(group, revision=99))
        assert ("host-a", "security_groups_changed", frozenset({group})) in server.new_casts()
    assert server.state(port) == ("ACTIVE", "SYNCING")
