"""Which agent may report for a host, its heartbeats and troubles, and numbers that are refused."""

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from agent_flows.report import FlowName
from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.server.core import agents, clock, models, silence
from agent_flows.server.core.directory import CLAIMED
from agent_flows.server.core.errors import NotFound
from agent_flows.server.core.liveness import Liveness, Rules
from agent_flows.server.standalone import bodies
from agent_flows.server.standalone.models import Port
from agent_flows.validation import Invalid
from lab.model import flow_report, new_id
from lab.server_parts import FakeAgent, Server, together

MakePort = Callable[..., str]
DAY = 24 * 3600.0


def microseconds(ahead: float = 0) -> int:
    """The server's clock as sequences have it, ``ahead`` seconds from now."""
    return int((clock.now().timestamp() + ahead) * 1_000_000)


def row_of(server: Server, host: str = "host-a") -> models.Agent | None:
    with server.database.reader() as session:
        return session.get(models.Agent, host)


def last_error(server: Server, port: str) -> dict[str, Any]:
    task = server.find("tasks", resource_id=port, limit=1)[0]
    assert (task["name"], task["task_state"]) == ("await-report", "FAILED")
    return dict(task["error"])


def an_agent(server: Server, *earlier: str, host: str = "host-a") -> FakeAgent:
    """An agent that starts now; ``earlier`` are the boot ids of its state directory."""
    return FakeAgent(server, host, Identity.following(earlier))


def boot_id(agent: FakeAgent) -> str:
    assert agent.identity is not None
    return agent.identity.boot_id


# Numbers are held against the clock.


@pytest.mark.parametrize("ahead", [1.01 * DAY, 2 * DAY, 146_000 * 365.25 * DAY])
def test_a_sequence_beyond_a_day_ahead_is_refused_and_does_not_block_later_reports(
    server: Server, agent: FakeAgent, make_port: MakePort, ahead: float
) -> None:
    port = make_port()
    lie = agent.report(port, FlowName.UNWIRE, sequence=min(microseconds(ahead), 2**62 - 1))
    answer = agent.send(lie)
    assert "a day ahead of the server's clock" in answer.rejected[lie.id]
    assert answer.sequence == 0
    true = agent.report(port, sequence=microseconds())
    assert agent.send(true).accepted == [true.id]
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_sequence_less_than_a_day_ahead_is_taken(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    fast = agent.report(port, sequence=microseconds(0.9 * DAY))
    assert agent.send(fast).accepted == [fast.id]


@pytest.mark.parametrize("poison", [2**62 - 1, 2**60])
def test_a_host_whose_stored_sequences_are_poisoned_recovers_with_the_next_report(
    server: Server, agent: FakeAgent, make_port: MakePort, poison: int
) -> None:
    port, other = make_port(), make_port()
    agent.wire(port, other)
    with server.database.writer() as session:
        session.execute(sa.update(models.Agent).values(sequence=poison))
        session.execute(sa.update(Port).values(sequence=poison))
    assert agent.beat().sequence == 0
    gone = agent.report(port, FlowName.UNWIRE, sequence=microseconds())
    assert agent.send(gone).sequence == gone.sequence
    assert server.state(port) == ("DOWN", "ABSENT")
    moved = make_port()  # a port that is bound again starts from the host's sequence
    agent.send(agent.report(moved, sequence=microseconds(1)))
    assert server.state(moved) == ("ACTIVE", "IN_SYNC")


def test_times_of_a_clock_that_is_years_ahead_are_kept_as_of_now(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    report = agent.report(port, fails="bind-vlan")
    years = datetime.timedelta(days=365 * 70)
    tasks = tuple(
        type(task)(**{**vars(task), "started_at": task.started_at and task.started_at + years})
        for task in report.tasks
    )
    times = {"started_at": report.started_at + years, "finished_at": report.finished_at + years}
    agent.send(flow_report(**{**vars(report), **times, "tasks": tasks}))
    shown = server.find("tasks", resource_id=port, task_state="FAILED")[0]["started_at"]
    assert datetime.datetime.fromisoformat(shown) <= clock.now()


def test_a_servers_clock_that_is_set_back_a_month_does_not_block_reports(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    wired, changed = make_port(), make_port()
    agent.wire(wired, changed)
    agent.send(agent.report(wired, sequence=microseconds()))
    server.put("ports", changed, **{**_body(server, changed), "mac_address": "fa:16:3e:99:99:99"})
    later(-30 * DAY)
    server.sweeper.sweep()  # the clock of report_timeout started in the future: at once
    assert server.state(changed)[1] == "UNKNOWN"
    gone = agent.report(wired, FlowName.UNWIRE, sequence=microseconds())
    agent.send(gone)
    assert server.state(wired) == ("DOWN", "ABSENT")
    agent.wire(changed)
    later(36)
    server.sweeper.sweep()
    assert server.state(changed)[1] == "UNKNOWN"
    assert last_error(server, changed)["type"] == "AgentSilent"


def test_an_agent_that_died_before_the_clock_was_set_back_is_found_silent(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    port = make_port()
    agent.wire(port)
    later(-30 * DAY)
    server.sweeper.sweep()
    later(36)
    server.sweeper.sweep()
    assert last_error(server, port)["type"] == "AgentSilent"


def _body(server: Server, port: str) -> dict[str, Any]:
    shown = server.show("ports", port)
    read_only = {"id", *bodies.READ_ONLY[bodies.Port]}
    return {name: value for name, value in shown.items() if name not in read_only}


# Which agent may report for a host.


def test_a_second_agent_of_the_same_name_takes_nothing_from_the_first(
    server: Server, make_port: MakePort, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = an_agent(server)
    port = make_port()
    first.wire(port)
    second = an_agent_that_is_refused(server)
    for _ in range(3):
        with pytest.raises(HostTaken):
            second.send(flow_report(resource_id=port, flow=FlowName.UNWIRE, sequence=9))
        with pytest.raises(HostTaken):
            second.specs()
        with pytest.raises(HostTaken):
            second.specs(port)
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    server.new_casts()
    server.put("security-groups", group, security_group_rules=[{"direction": "egress"}])
    assert [host for host, _, _ in server.new_casts()] == ["host-a"]
    first.wire(port)
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    lines = [record for record in caplog.records if "Two agents report as host" in record.message]
    assert len(lines) == 1
    assert b"agent_flows_host_taken_total 10.0" in server.metrics.text()


def an_agent_that_is_refused(server: Server) -> FakeAgent:
    made = FakeAgent(server, "host-a", Identity.following(()), alive=False)
    with pytest.raises(HostTaken, match="host host-a is taken"):
        made.beat()
    return made


def test_the_conflict_is_known_while_it_lasts(
    server: Server, later: Callable[[float], None]
) -> None:
    first = an_agent(server)
    second = an_agent_that_is_refused(server)
    with pytest.raises(HostTaken):
        second.beat()
    row = row_of(server)
    assert row is not None
    conflict = Liveness(server.rules, clock.now()).conflict(row)
    assert conflict is not None
    assert conflict.boot_id == boot_id(second)
    for _ in range(2):
        later(20)
        first.beat()
    row = row_of(server)
    assert row is not None
    assert Liveness(server.rules, clock.now()).conflict(row) is None


def test_an_agent_that_was_started_again_goes_on_at_once(
    server: Server, make_port: MakePort
) -> None:
    first = an_agent(server)
    port = make_port()
    again = an_agent(server, boot_id(first))
    again.wire(port)
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    with pytest.raises(HostTaken):
        first.beat()


def test_an_agent_that_was_upgraded_goes_on_at_once_and_the_old_one_no_more(
    server: Server, agent: FakeAgent
) -> None:
    an_agent(server)
    with pytest.raises(HostTaken):
        agent.beat()


def test_an_agent_of_a_new_state_directory_goes_on_when_the_other_is_silent(
    server: Server, make_port: MakePort, later: Callable[[float], None]
) -> None:
    first = an_agent(server)
    port = make_port()
    first.wire(port)
    another = an_agent_that_is_refused(server)
    later(36)
    another.beat()
    row = row_of(server)
    assert row is not None
    assert row.boot_id == boot_id(another)
    assert row.contended_at is None
    with pytest.raises(HostTaken):
        first.beat()


def test_a_host_that_another_agent_has_reported_for_is_asked_for_everything(
    server: Server, make_port: MakePort, later: Callable[[float], None]
) -> None:
    """What the other one said is of its own switch: ports that are not there are on this one."""
    first = an_agent(server)
    proven, absent = make_port(), make_port()
    first.wire(proven)
    first.send(first.report(absent, FlowName.UNWIRE))
    another = an_agent_that_is_refused(server)
    later(36)
    server.new_casts()
    another.beat()
    everything = [("host-a", "resync", frozenset({proven, absent}))]
    assert server.new_casts() == everything
    assert {server.state(port)[1] for port in (proven, absent)} == {"SYNCING"}
    another.send(another.report(proven, FlowName.UNWIRE, sequence=microseconds()))
    assert server.state(proven) == ("DOWN", "ABSENT")
    later(36)
    first.beat()
    assert server.new_casts() == everything
    assert server.state(proven) == ("DOWN", "SYNCING")
    first.beat()
    assert server.new_casts() == []


def test_vouching_keeps_an_agent_alive_and_takes_no_host(
    server: Server, make_port: MakePort, later: Callable[[float], None]
) -> None:
    first = an_agent(server)
    port = make_port()
    first.wire(port)
    for _ in range(3):
        later(20)
        server.store.vouch("host-a")
        server.sweeper.sweep()
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    # It sent nothing itself for so long that another may: vouching names no agent.
    an_agent(server)


# Ports without an agent that reports.


def test_a_port_bound_where_no_agent_was_ever_seen_is_unknown_with_a_task(
    server: Server, make_port: MakePort
) -> None:
    port = make_port(**{"binding:host_id": "host-z"})
    assert server.state(port) == ("DOWN", "UNKNOWN")
    error = last_error(server, port)
    assert error["type"] == "AgentNeverSeen"
    assert "host-z" not in error["message"]
    assert "no agent was ever seen on host host-z" in error["detail"]
    server.new_casts()
    newcomer = FakeAgent(server, "host-z")
    assert server.state(port) == ("DOWN", "SYNCING")
    assert server.new_casts() == [("host-z", "resync", frozenset({port}))]
    newcomer.wire(port)
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_port_bound_while_its_agent_is_dead_is_unknown_with_the_time_of_its_last_heartbeat(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    before = clock.now()
    agent.beat()
    after = clock.now()
    later(36)
    server.sweeper.sweep()
    port = make_port()
    assert server.state(port) == ("DOWN", "UNKNOWN")
    error = last_error(server, port)
    assert error["type"] == "AgentSilent"
    beats = (moment.isoformat(timespec="seconds") for moment in (before, after))
    assert any(beat in error["message"] for beat in beats)
    agent.beat()
    assert server.state(port) == ("DOWN", "SYNCING")


def test_an_agent_that_comes_back_is_asked_for_its_ports_unless_it_has_just_started(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    port = make_port()
    agent.wire(port)
    later(36)
    server.sweeper.sweep()
    assert server.state(port) == ("ACTIVE", "UNKNOWN")
    server.new_casts()
    started = an_agent(server)
    assert server.state(port) == ("ACTIVE", "SYNCING")
    assert server.new_casts() == []
    later(36)
    server.sweeper.sweep()
    server.new_casts()
    started.beat()
    assert server.state(port) == ("ACTIVE", "SYNCING")
    assert server.new_casts() == [("host-a", "resync", frozenset({port}))]


def test_a_port_bound_to_no_host_is_absent(server: Server, make_port: MakePort) -> None:
    port = make_port(**{"binding:host_id": ""})
    assert server.state(port) == ("DOWN", "ABSENT")


def test_moved_to_a_host_without_an_agent_a_port_is_unknown_and_moved_back_it_waits(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.wire(port)
    body = _body(server, port)
    server.put("ports", port, **{**body, "binding:host_id": "host-z"})
    assert server.state(port) == ("DOWN", "UNKNOWN")
    server.put("ports", port, **body)
    assert server.state(port) == ("DOWN", "SYNCING")


def test_a_change_for_ports_of_a_dead_agent_leaves_them_unknown(
    server: Server,
    agent: FakeAgent,
    make_port: MakePort,
    group: str,
    later: Callable[[float], None],
) -> None:
    port = make_port()
    agent.wire(port)
    later(36)
    server.sweeper.sweep()
    server.put("security-groups", group, security_group_rules=[{"direction": "egress"}])
    server.put("ports", port, **{**_body(server, port), "mac_address": "fa:16:3e:99:99:98"})
    assert server.state(port) == ("ACTIVE", "UNKNOWN")
    assert len(server.find("tasks", resource_id=port, name="await-report")) == 1


# Troubles that an agent reports of its host.


@pytest.mark.parametrize(
    ("source", "error"), [("switch", "SwitchUnreachable"), ("bridge", "BridgeMissing")]
)
def test_a_trouble_that_makes_claims_untrue_makes_ports_unknown_until_it_is_over(
    server: Server, agent: FakeAgent, make_port: MakePort, source: str, error: str
) -> None:
    port = make_port()
    agent.wire(port)
    line = "ovs-vswitchd of host-a does not answer"
    agent.beat(troubles={source: line}, trouble=line)
    assert server.state(port) == ("ACTIVE", "UNKNOWN")
    shown = last_error(server, port)
    assert shown["type"] == error
    assert "ovs-vswitchd of its host does not answer" in shown["message"]
    assert "host-a" not in shown["message"]
    assert line in shown["detail"]
    agent.beat(troubles={source: line}, trouble=line)
    assert len(server.find("tasks", resource_id=port, name="await-report")) == 1
    server.new_casts()
    agent.beat(troubles={})
    assert server.state(port) == ("ACTIVE", "SYNCING")
    assert server.new_casts() == [("host-a", "resync", frozenset({port}))]


def test_a_failure_that_is_reported_during_a_trouble_is_newer_knowledge(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.wire(port)
    agent.beat(troubles={"switch": "gone"})
    agent.send(agent.report(port, fails="bind-vlan"))
    agent.beat(troubles={"switch": "gone"})
    assert server.state(port) == ("DOWN", "OUT_OF_SYNC")


def test_a_trouble_that_leaves_claims_true_leaves_ports_alone(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.wire(port)
    agent.beat(troubles={"outbox": "the disk is full"}, trouble="the disk is full")
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    assert server.show("agents", "host-a")["state"]["troubles"] == {"outbox": "the disk is full"}


def test_of_a_heartbeat_only_what_is_known_is_kept_and_it_has_a_size(server: Server) -> None:
    agent = FakeAgent(server, "host-a")
    agent.beat(
        bridge="br-int\x1b[31m",
        known=3,
        padding="x" * 15_000,
        nested={"a": {"b": "c" * 1000}},
        troubles={"switch": "y" * 5000, "flux": "a newer agent knows it", "odd\x07" * 99: "z"},
        **{f"number_{number}": number for number in range(200)},
    )
    state = server.show("agents", "host-a")["state"]
    assert state["bridge"] == "br-int\N{REPLACEMENT CHARACTER}[31m"
    assert state["known"] == 3
    assert "padding" not in state
    assert "nested" not in state
    assert set(state["troubles"]) == {"switch", "other"}
    assert len(json.dumps(state)) < 3000


# Agents that are gone.


def test_hosts_that_were_made_up_are_bounded_and_make_room_when_they_are_silent(
    another: Callable[..., Server], make_port: MakePort, later: Callable[[float], None]
) -> None:
    server = another(rules=Rules(most_idle=20))
    bound = FakeAgent(server, "host-a")
    bound.wire(make_port())
    for number in range(20):
        FakeAgent(server, f"ghost-{number}")
    with pytest.raises(Invalid, match="max_idle_agents"):
        FakeAgent(server, "one-more")
    with pytest.raises(Invalid, match="max_idle_agents"):
        server.store.take_reports("one-more", [flow_report(host="one-more")])
    make_port(**{"binding:host_id": "compute-7"})
    FakeAgent(server, "compute-7")  # a host with ports is always known
    server.store.vouch("compute-8")  # and one that another source vouches for
    assert len(server.find("agents")) == 23
    later(36)
    server.sweeper.sweep()
    FakeAgent(server, "honest")
    assert {agent["host"] for agent in server.find("agents")} == {"host-a", "compute-7", "honest"}


def test_agents_without_ports_are_forgotten_by_age(
    another: Callable[..., Server], make_port: MakePort, later: Callable[[float], None]
) -> None:
    server = another(rules=Rules(forget_after=3600))
    FakeAgent(server, "host-a").wire(make_port())
    FakeAgent(server, "host-b")
    later(3590)
    server.sweeper.sweep()
    assert [agent["host"] for agent in server.find("agents")] == ["host-a", "host-b"]
    later(20)
    server.sweeper.sweep()
    assert [agent["host"] for agent in server.find("agents")] == ["host-a"]


def test_an_agent_that_is_forgotten_comes_back_with_its_next_heartbeat(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port()
    agent.wire(port)
    with server.database.writer() as session:
        agents.forget(session, "host-a")
    server.sweeper.sweep()
    assert last_error(server, port)["type"] == "AgentNeverSeen"
    agent.beat()
    assert server.state(port)[1] == "SYNCING"
    with server.database.writer() as session, pytest.raises(NotFound):
        agents.forget(session, "host-z")


def test_a_sweep_looks_at_dead_agents_once(
    another: Callable[..., Server], make_port: MakePort, later: Callable[[float], None]
) -> None:
    """A dead agent without claims is not locked again by every sweep of every worker."""
    server = another()
    FakeAgent(server, "host-a").wire(make_port())
    later(36)
    server.sweeper.sweep()
    with server.database.reader() as session:
        assert silence.newly_silent(session, clock.now(), server.rules) == set()
        claimed = server.directory.hosts_in_states(session, CLAIMED)
        assert silence.without_agent(session, claimed) == set()


def test_heartbeats_of_a_new_host_at_many_workers_make_one_agent(
    server: Server, another: Callable[..., Server]
) -> None:
    workers = [another() for _ in range(4)]
    identity = Identity.following(())
    host = f"new-{new_id()[:8]}"
    together(*(lambda w=w: w.store.take_heartbeat(host, {}, identity) for w in workers))
    assert [agent["host"] for agent in server.find("agents")] == [host]
