"""Missing reports are found once, and the history stays within its bounds."""

from collections.abc import Callable

from agent_flows.report import FlowName
from lab.model import new_id
from lab.server_parts import FakeAgent, Server, together

MakePort = Callable[..., str]


def last_task(server: Server, port: str) -> dict[str, object]:
    task: dict[str, object] = server.find("tasks", resource_id=port, limit=1)[0]
    return task


def test_a_silent_agents_ports_are_unknown_with_a_task(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    wired, absent = make_port(), make_port()
    agent.wire(wired)
    agent.send(agent.report(absent, FlowName.UNWIRE))
    later(34)
    server.sweeper.sweep()
    assert server.state(wired) == ("ACTIVE", "IN_SYNC")
    later(2)
    server.sweeper.sweep()
    assert server.state(wired) == ("ACTIVE", "UNKNOWN")
    assert server.state(absent) == ("DOWN", "UNKNOWN")  # no agent looks any more
    task = last_task(server, wired)
    assert (task["name"], task["task_state"]) == ("await-report", "FAILED")
    error = task["error"]
    assert isinstance(error, dict)
    assert error["type"] == "AgentSilent"
    assert "no heartbeat" in error["message"]
    assert "host-a" not in error["message"]  # the owner of the port need not know its host
    assert "host-a" in error["detail"]
    assert server.show("agents", "host-a")["alive"] is False
    server.sweeper.sweep()
    assert len(server.find("tasks", resource_id=wired, name="await-report")) == 1


def test_an_agent_that_returns_is_asked_to_wire_its_unknown_ports_again(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    port = make_port()
    agent.wire(port)
    later(36)
    server.sweeper.sweep()
    server.new_casts()
    server.store.take_heartbeat("host-a", {})
    assert server.state(port) == ("ACTIVE", "SYNCING")
    assert server.new_casts() == [("host-a", "resync", frozenset({port}))]
    server.store.take_heartbeat("host-a", {})
    assert server.new_casts() == []
    agent.wire(port)
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_port_whose_agent_does_not_report_in_time_is_unknown(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    asked, changed, quiet = make_port(), make_port(), make_port()
    agent.wire(changed, quiet)
    agent.send(agent.report(asked, FlowName.UNWIRE))
    agent.specs(asked)
    name = {"network_id": server.show("ports", changed)["network_id"]}
    body = {**name, "mac_address": "fa:16:3e:09:00:01", "binding:host_id": "host-a"}
    server.put("ports", changed, **body)
    for _ in range(5):
        later(10)
        server.store.take_heartbeat("host-a", {})
    server.sweeper.sweep()
    assert server.state(asked) == ("DOWN", "SYNCING")
    later(11)
    server.store.take_heartbeat("host-a", {})
    server.sweeper.sweep()
    assert server.state(asked) == ("DOWN", "UNKNOWN")
    assert server.state(changed) == ("ACTIVE", "UNKNOWN")
    assert server.show("ports", quiet)["status"] == "ACTIVE"
    error = last_task(server, changed)["error"]
    assert isinstance(error, dict)
    assert error["type"] == "ReportOverdue"
    assert "revision 2" in error["message"]
    agent.wire(changed)
    assert server.state(changed) == ("ACTIVE", "IN_SYNC")


def test_several_servers_find_a_silent_agent_once(
    server: Server,
    agent: FakeAgent,
    another: Callable[..., Server],
    make_port: MakePort,
    later: Callable[[float], None],
) -> None:
    ports = [make_port() for _ in range(12)]
    agent.wire(*ports[:6])
    agent.specs(*ports[6:])
    later(100)
    servers = [server, another(), another()]
    together(*(worker.sweeper.sweep for worker in servers))
    for port in ports:
        assert server.show("ports", port)["sync_state"] == "UNKNOWN"
        assert len(server.find("tasks", resource_id=port, name="await-report")) == 1


def kept(server: Server, port: str) -> list[int]:
    """Numbers of the attempts that are kept, newest first."""
    tasks = server.find("tasks", resource_id=port, name="bind-vlan")
    return [task["attempt"] for task in tasks]


def test_the_last_attempts_and_failures_of_each_port_are_kept(
    another: Callable[..., Server], make_port: MakePort
) -> None:
    server = another(limits={"history_attempts": 3, "history_failures": 2})
    agent = FakeAgent(server, "host-a")
    failing, fine = make_port(), make_port()
    for number in range(1, 11):
        fails = "bind-vlan" if number < 6 else None
        agent.send(
            agent.report(failing, fails=fails, attempt=number), agent.report(fine, attempt=number)
        )
    server.sweeper.sweep()
    assert kept(server, failing) == [10, 9, 8, 5, 4]
    assert kept(server, fine) == [10, 9, 8]
    server.sweeper.sweep()
    assert kept(server, failing) == [10, 9, 8, 5, 4]


def test_the_last_attempts_of_a_group_are_kept_for_each_host(
    another: Callable[..., Server], make_port: MakePort, group: str
) -> None:
    server = another(limits={"history_attempts": 3, "history_failures": 1})
    agents = [FakeAgent(server, host) for host in ("host-a", "host-b")]
    for agent in agents:
        agent.wire(make_port(**{"binding:host_id": agent.host}))
    agents[1].send(agents[1].report_of_group(group, "apply-security-groups", attempt=1))
    for number in range(2, 9):
        agents[0].send(agents[0].report_of_group(group, attempt=number))
    server.sweeper.sweep()
    tasks = server.find("tasks", resource_id=group, name="apply-security-groups")
    assert [(task["host"], task["attempt"]) for task in tasks] == [
        ("host-a", 8), ("host-a", 7), ("host-a", 6), ("host-b", 1)
    ]  # fmt: skip


def test_a_deleted_groups_history_is_kept_for_a_while(
    server: Server,
    agent: FakeAgent,
    make_port: MakePort,
    group: str,
    later: Callable[[float], None],
) -> None:
    port = make_port()
    agent.wire(port)
    agent.send(agent.report_of_group(group))
    server.delete("ports", port)
    server.delete("security-groups", group)
    server.sweeper.sweep()
    assert server.find("tasks", resource_id=group)
    later(3601)
    for _ in range(2):
        server.sweeper.sweep()
    assert server.find("tasks", resource_id=group) == []


def test_a_deleted_ports_history_is_kept_for_a_while(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    gone, other = make_port(), make_port()
    agent.wire(gone, other)
    server.delete("ports", gone)
    server.sweeper.sweep()
    assert kept(server, gone) == [1]
    later(3601)
    for _ in range(2):
        server.sweeper.sweep()
    assert kept(server, gone) == []
    assert kept(server, other) == [1]


def test_the_newest_attempt_stays_first_when_a_servers_clock_is_behind(
    server: Server,
    agent: FakeAgent,
    make_port: MakePort,
    later: Callable[[float], None],
) -> None:
    port = make_port()
    agent.send(agent.report(port, fails="bind-vlan", attempt=1))
    later(-3600)
    agent.send(agent.report(port, attempt=2))
    assert kept(server, port) == [2, 1]


def test_a_sweep_without_agents_makes_no_task(server: Server) -> None:
    server.sweeper.sweep()
    assert server.find("agents") == []
    assert server.find("tasks", resource_id=new_id()) == []
