"""How far the ports of a security group, and of a network, are in sync, and which hosts lag."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_flows.server.core import rollup
from lab.server_parts import FakeAgent, Server
from lab.statements import statements

MakePort = Callable[..., str]
Later = Callable[[float], None]
EGRESS = [{"direction": "egress"}]
NOTHING = {"IN_SYNC": 0, "SYNCING": 0, "OUT_OF_SYNC": 0, "ABSENT": 0, "UNKNOWN": 0}


def sync(server: Server, collection: str, id_: str) -> Any:
    shown = server.show(collection, id_)["sync"]
    assert server.find(collection, id=id_, fields="id,sync") == [{"id": id_, "sync": shown}]
    return shown


def network_of(server: Server, port: str) -> str:
    network: str = server.show("ports", port)["network_id"]
    return network


def test_a_group_shows_which_hosts_lag_at_which_revision_and_since_when(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str, later: Later
) -> None:
    other, third = FakeAgent(server, "host-b"), FakeAgent(server, "host-c")
    mine = [make_port() for _ in range(2)]
    theirs = [make_port(**{"binding:host_id": "host-b"}) for _ in range(3)]
    last = make_port(**{"binding:host_id": "host-c"})
    make_port(security_groups=[])
    make_port(port_security_enabled=False)
    agent.wire(*mine)
    other.wire(*theirs)
    third.wire(last)
    for each in (agent, other, third):
        each.send(each.report_of_group(group))
    before = server.show("security-groups", group)
    assert before["sync"] == {
        "ports": {**NOTHING, "IN_SYNC": 6},
        "lagging_hosts": [],
        "more_lagging_hosts": 0,
    }
    later(1)
    server.put("security-groups", group, security_group_rules=EGRESS)
    changed = server.show("ports", last)["sync_since"]
    later(2)
    agent.send(agent.report_of_group(group))
    other.send(other.report_of_group(group, "apply-security-groups"))
    shown = sync(server, "security-groups", group)
    assert shown["ports"] == {**NOTHING, "IN_SYNC": 2, "SYNCING": 1, "OUT_OF_SYNC": 3}
    now = server.show("security-groups", group)["revision_number"]
    assert shown["lagging_hosts"] == [
        {
            "host": "host-c",
            "ports": 1,
            "revision": before["revision_number"],
            "since": changed,
        },
        {
            "host": "host-b",
            "ports": 3,
            "revision": now,
            "since": server.show("ports", theirs[0])["sync_since"],
        },
    ]


def test_a_network_shows_which_hosts_lag(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    wired, failed, waiting = (make_port(security_groups=[]) for _ in range(3))
    unbound = make_port(security_groups=[], **{"binding:host_id": None})
    agent.wire(wired)
    agent.send(agent.report(failed, fails="bind-vlan"))
    assert sync(server, "networks", network_of(server, unbound)) == {
        "ports": {**NOTHING, "IN_SYNC": 1, "OUT_OF_SYNC": 1, "SYNCING": 1, "ABSENT": 1},
        "lagging_hosts": [
            {
                "host": "host-a",
                "ports": 2,
                "revision": None,
                "since": server.show("ports", waiting)["sync_since"],
            }
        ],
        "more_lagging_hosts": 0,
    }


def test_without_ports_there_is_nothing_to_show(server: Server, group: str) -> None:
    nothing = {"ports": NOTHING, "lagging_hosts": [], "more_lagging_hosts": 0}
    assert sync(server, "security-groups", group) == nothing


def test_the_hosts_that_lag_for_longest_are_named_and_the_others_counted(
    server: Server,
    make_port: MakePort,
    group: str,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollup, "MOST_HOSTS", 2)
    for number in (3, 1, 2):
        later(1)
        host = f"host-{number}"
        FakeAgent(server, host)
        make_port(**{"binding:host_id": host})
    for collection, id_ in (
        ("security-groups", group),
        ("networks", server.find("networks")[0]["id"]),
    ):
        shown = sync(server, collection, id_)
        assert [host["host"] for host in shown["lagging_hosts"]] == ["host-3", "host-1"]
        assert shown["more_lagging_hosts"] == 1


def test_the_roll_up_is_read_at_once_and_only_on_request(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    for _ in range(3):
        network = server.find("ports", id=make_port())[0]["network_id"]
    numbers = []
    for more in (1, 4):
        for _ in range(more):
            server.put("security-groups", f"00000000-0000-4000-8000-0000000000{more}{_}")
        with statements(server.database.engine) as sent:
            found = server.find("security-groups", fields="id,sync")
        numbers.append(len(sent))
        assert all("sync" in each for each in found)
    assert numbers[0] == numbers[1]
    with statements(server.database.engine) as sent:
        assert "sync" not in server.find("security-groups", id=group)[0]
        assert "sync" not in server.put("security-groups", group, name="web")
        assert "sync" not in server.find("networks", id=network)[0]
    assert not any("by_host" in text for text in sent)


@pytest.mark.parametrize("collection", ["security-groups", "networks"])
def test_nobody_writes_a_roll_up(server: Server, group: str, collection: str) -> None:
    answer = server.try_put(collection, group, sync={})
    assert (answer.status_code, answer.json["error"]["field"]) == (400, "sync")
