"""Gating can be turned off without a restart: then ports need no proof."""

import datetime
import re
from collections.abc import Callable

from agent_flows.report import FlowName
from agent_flows.server.core import agent_view, clock, gating
from agent_flows.server.core.liveness import Liveness
from lab.server_parts import FakeAgent, Server
from tests.functional.server.conftest import Manage

MakePort = Callable[..., str]
Later = Callable[[float], None]

BUG = "reports are lost"
FAILS = "apply-security-groups"


def turn_off(server: Server, host: str | None = None, hours: int = 2) -> None:
    time = datetime.timedelta(hours=hours)
    with server.database.writer() as session:
        gating.turn_off(session, host, reason=BUG, by="ann@here", now=clock.now(), time=time)


def turn_on(server: Server, host: str | None = None) -> None:
    with server.database.writer() as session:
        gating.turn_on(session, host, "bob@here", clock.now())


def test_a_failed_report_makes_a_port_active_only_while_gating_is_off(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Later
) -> None:
    first, second, third = make_port(), make_port(), make_port()
    agent.send(agent.report(first, fails=FAILS))
    assert server.state(first) == ("DOWN", "OUT_OF_SYNC")
    turn_off(server)
    later(3)  # every process sees it within that time
    agent.send(agent.report(second, fails=FAILS))
    assert server.state(second) == ("ACTIVE", "OUT_OF_SYNC")
    turn_on(server)
    later(3)
    agent.send(agent.report(third, fails=FAILS))
    assert server.state(third) == ("DOWN", "OUT_OF_SYNC")
    assert server.state(second) == ("ACTIVE", "OUT_OF_SYNC")  # until it fails again
    agent.send(agent.report(second, fails=FAILS))
    assert server.state(second) == ("DOWN", "OUT_OF_SYNC")


def test_ports_whose_reports_do_not_come_are_active_while_gating_is_off(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Later
) -> None:
    asked, absent, closed = make_port(), make_port(), make_port(admin_state_up=False)
    agent.specs(asked, closed)
    agent.send(agent.report(absent, FlowName.UNWIRE))
    elsewhere = make_port(**{"binding:host_id": "host-b"})
    other = FakeAgent(server, "host-b")
    other.specs(elsewhere)
    turn_off(server, "host-a")
    later(3)
    server.sweeper.sweep()
    assert server.state(asked) == ("ACTIVE", "SYNCING")
    assert server.state(absent) == ("DOWN", "ABSENT")
    assert server.state(closed) == ("DOWN", "SYNCING")
    assert server.state(elsewhere) == ("DOWN", "SYNCING")
    turn_on(server)
    later(3)
    server.sweeper.sweep()
    assert server.state(asked) == ("ACTIVE", "SYNCING")
    agent.wire(asked)
    assert server.state(asked) == ("ACTIVE", "IN_SYNC")


def test_no_port_of_a_host_without_a_live_agent_becomes_active(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Later
) -> None:
    port = make_port()
    agent.specs(port)
    turn_off(server)
    later(60)
    server.sweeper.sweep()
    assert server.state(port) == ("DOWN", "UNKNOWN")


def test_rules_that_a_host_refuses_take_no_port_down_while_gating_is_off(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str, later: Later
) -> None:
    port = make_port()
    agent.wire(port)
    turn_off(server)
    later(3)
    rules = [{"direction": "ingress", "protocol": "tcp"}]
    server.put("security-groups", group, security_group_rules=rules)
    agent.send(agent.report_of_group(group, fails=FAILS))
    assert server.state(port) == ("ACTIVE", "OUT_OF_SYNC")
    turn_on(server)
    later(3)
    agent.send(agent.report_of_group(group, fails=FAILS))
    assert server.state(port) == ("DOWN", "OUT_OF_SYNC")


def test_it_ends_by_itself_and_every_server_sees_the_same(
    server: Server,
    agent: FakeAgent,
    another: Callable[..., Server],
    make_port: MakePort,
    later: Later,
) -> None:
    second = another()
    ports = [make_port() for _ in range(3)]
    elsewhere = FakeAgent(second, "host-a", agent.identity)
    turn_off(server, hours=1)
    later(3)
    elsewhere.send(agent.report(ports[0], fails=FAILS))
    assert second.state(ports[0]) == ("ACTIVE", "OUT_OF_SYNC")
    later(3590)
    elsewhere.send(agent.report(ports[1], fails=FAILS))
    assert second.state(ports[1]) == ("ACTIVE", "OUT_OF_SYNC")
    later(8)  # it was read 8 s ago, but its end is known
    elsewhere.send(agent.report(ports[2], fails=FAILS))
    assert second.state(ports[2]) == ("DOWN", "OUT_OF_SYNC")


def test_agents_health_and_metrics_show_where_gating_is_off_and_why(
    server: Server, agent: FakeAgent, later: Later
) -> None:
    agent.beat()
    assert server.show("agents", "host-a")["gating_off"] is None
    turn_off(server, "host-a")
    off = server.show("agents", "host-a")["gating_off"]
    assert (off["by"], off["reason"]) == ("ann@here", BUG)
    with server.database.reader() as session:
        liveness = Liveness(server.rules, clock.now())
        found = agent_view.snapshot(session, server.directory, liveness)
        troubled = agent_view.troubled(session, liveness)
    assert found.gating_off == {"host-a": clock.now().timestamp() + 7200}
    assert [each.gated for each in found.agents] == [False]
    assert BUG in troubled["host-a"]
    later(7201)
    agent.beat()
    assert server.show("agents", "host-a")["gating_off"] is None


def test_the_administrator_turns_it_off_and_on_and_reads_who_did_so_and_why(
    manage: Manage,
) -> None:
    early = manage("gating", "status")
    assert (early.returncode, "older than this program" in early.stderr) == (1, True)
    assert manage("db", "upgrade").returncode == 0
    assert manage("gating", "status").stdout == "gating is on for all hosts\n"
    assert "--reason" in manage("gating", "off").stderr
    assert manage("gating", "off", "--reason", " ").returncode == 1
    assert "7 days" in manage("gating", "off", "--reason", BUG, "--for", "8d").stderr
    done = manage("gating", "off", "--reason", BUG, "--for", "30m", "--host", "host-a")
    line = r"gating is off for host host-a from \S+ until \S+, by \S+@\S+: reports are lost\n"
    assert re.fullmatch(line, done.stdout), done
    assert manage("gating", "status").stdout == done.stdout
    assert manage("gating", "on", "--host", "host-b").returncode == 1
    again = manage("gating", "off", "--reason", "still", "--host", "host-a")
    assert manage("gating", "status").stdout == again.stdout
    assert manage("gating", "on").stdout == "gating is on again for host host-a\n"
    shown = manage("gating", "status", "--all").stdout.splitlines()
    assert [each.split()[:3] for each in shown] == [
        ["gating", "is", "on"],
        ["gating", "was", "off"],
        ["gating", "was", "off"],
    ]
    assert "turned on by" in shown[1]
