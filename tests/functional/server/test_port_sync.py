"""One request answers why a port is out of sync, since when, and which revision was proven."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_flows.report import FlowName
from lab.server_parts import FakeAgent, Server
from lab.statements import statements

MakePort = Callable[..., str]
Later = Callable[[float], None]
EGRESS = [{"direction": "egress"}]
REFUSED = {"type": "SwitchError", "message": "the switch refused a flow"}


def sync(server: Server, port: str) -> dict[str, Any]:
    """The fields of the port, which a list shows as well."""
    shown = server.show("ports", port)
    assert server.find("ports", id=port) == [shown]
    names = ("sync_state", "sync_revision", "sync_reason")
    return {name: shown[name] for name in names}


def since(server: Server, port: str) -> str:
    moment: str = server.show("ports", port)["sync_since"]
    return moment


def test_a_proven_port_shows_the_revision_and_no_reason(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    assert sync(server, port) == {
        "sync_state": "SYNCING",
        "sync_revision": None,
        "sync_reason": None,
    }
    agent.wire(port)
    assert sync(server, port) == {"sync_state": "IN_SYNC", "sync_revision": 1, "sync_reason": None}


def test_a_failed_port_shows_the_error_of_its_last_attempt_since_the_first(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Later
) -> None:
    port = make_port()
    agent.wire(port)
    wired = since(server, port)
    later(1)
    agent.send(agent.report(port, FlowName.REFRESH, fails="apply-security-groups"))
    assert sync(server, port) == {
        "sync_state": "OUT_OF_SYNC",
        "sync_revision": 1,
        "sync_reason": REFUSED,
    }
    failed = since(server, port)
    assert failed > wired
    later(2)
    agent.send(agent.report(port, fails="apply-security-groups"))
    assert sync(server, port) == {
        "sync_state": "OUT_OF_SYNC",
        "sync_revision": None,
        "sync_reason": REFUSED,
    }
    assert since(server, port) == failed
    later(3)
    agent.wire(port)
    assert sync(server, port)["sync_reason"] is None
    assert since(server, port) > failed


def test_a_new_name_does_not_change_since_when_a_port_is_out_of_sync(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Later
) -> None:
    port = make_port()
    agent.send(agent.report(port, fails="bind-vlan"))
    before = server.show("ports", port)
    later(1)
    body = {name: before[name] for name in ("network_id", "mac_address", "fixed_ips")}
    body |= {name: before[name] for name in ("security_groups", "binding:host_id")}
    server.put("ports", port, **body, name="renamed")
    after = server.show("ports", port)
    assert (after["name"], after["sync_since"]) == ("renamed", before["sync_since"])
    assert after["sync_reason"] == before["sync_reason"] == REFUSED


def test_a_group_that_failed_is_the_reason_of_its_ports_until_it_succeeds(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str, later: Later
) -> None:
    port, outside = make_port(), make_port(security_groups=[])
    agent.wire(port, outside)
    agent.send(agent.report_of_group(group))
    wired = since(server, port)
    later(1)
    server.put("security-groups", group, security_group_rules=EGRESS)
    assert sync(server, port)["sync_state"] == "SYNCING"
    changed = since(server, port)
    assert changed > wired
    later(2)
    agent.send(agent.report_of_group(group, "apply-security-groups"))
    assert sync(server, port) == {
        "sync_state": "OUT_OF_SYNC",
        "sync_revision": 1,
        "sync_reason": REFUSED,
    }
    failed = since(server, port)
    assert failed > changed
    later(3)
    agent.send(agent.report_of_group(group, "apply-security-groups"))
    assert since(server, port) == failed
    assert sync(server, outside)["sync_reason"] is None
    later(4)
    agent.send(agent.report_of_group(group))
    assert sync(server, port) == {"sync_state": "IN_SYNC", "sync_revision": 1, "sync_reason": None}
    assert since(server, port) > failed


def test_a_silent_agent_is_the_reason_of_its_ports(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Later
) -> None:
    port = make_port()
    agent.wire(port)
    later(120)
    server.sweeper.sweep()
    shown = sync(server, port)
    assert (shown["sync_state"], shown["sync_revision"]) == ("UNKNOWN", 1)
    assert shown["sync_reason"]["type"] == "AgentSilent"
    (task,) = server.find("tasks", resource_id=port, task_state="FAILED")
    assert task["duration"] == 0, "the port waited for no report"


def test_an_error_of_another_host_is_no_reason(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.send(agent.report(port, fails="bind-vlan"))
    before = server.show("ports", port)
    body = {name: before[name] for name in ("network_id", "mac_address", "fixed_ips")}
    server.put("ports", port, **body, **{"binding:host_id": "host-z"})
    assert sync(server, port)["sync_reason"]["type"] == "AgentNeverSeen"


def test_an_earlier_release_left_a_port_without_a_time(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.send(agent.report(port, fails="bind-vlan"))
    with server.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ports SET syncing_since = NULL")
    shown = server.show("ports", port)
    assert shown["sync_since"] == shown["updated_at"]
    agent.send(agent.report(port, fails="bind-vlan"))
    assert since(server, port) == shown["sync_since"]


@pytest.mark.parametrize("name", ["sync_revision", "sync_since", "sync_reason"])
def test_nobody_writes_what_was_reported(server: Server, make_port: MakePort, name: str) -> None:
    port = make_port()
    answer = server.try_put("ports", port, **{name: None})
    assert (answer.status_code, answer.json["error"]["field"]) == (400, name)


def test_a_list_costs_the_same_number_of_statements_however_many_ports_fail(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    numbers = []
    for more in (5, 95):
        ports = [make_port() for _ in range(more)]
        half = len(ports) // 2
        agent.wire(*ports[half:])
        agent.send(*(agent.report(port, fails="bind-vlan") for port in ports[:half]))
        server.put("security-groups", group, security_group_rules=EGRESS * len(numbers))
        agent.send(agent.report_of_group(group, "apply-security-groups"))
        with statements(server.database.engine) as sent:
            found = server.find("ports")
        assert all(port["sync_reason"] for port in found)
        numbers.append(len(sent))
    assert numbers[0] == numbers[1]
    with statements(server.database.engine) as sent:
        assert "sync_since" not in server.find("ports", fields="id,name,sync_revision")[0]
    assert not any("agent_flows" in text or "security_group_hosts" in text for text in sent)
