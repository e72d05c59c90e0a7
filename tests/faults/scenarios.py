"""The faults: what breaks, and how it mends."""

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from agent_flows.rpc import transport
from lab.model import egress_to_anywhere
from lab.process import Daemon, held, slowed, wait_until
from lab.unprivileged import helper_of
from lab.vm import Plugged
from lab.wall_clock import WallClock
from tests.faults.any_stage import BRIDGE, SECONDS, WEB
from tests.faults.overload import MAX_REPORTS, Agents
from tests.faults.scenario import WIRING_SECONDS, Chance, Scenario, pause
from tests.faults.stage import HOST, OTHER_HOST, Stage

_STARTING_SECONDS = 0.5
"""About what the agent takes from its first step, to open its outbox, until it wires."""
_KILLS = 5
"""In a round of ``agent-killed`` or ``server-killed``."""
_HOUR = 3600
_OVERLOAD = 10
_DOWN_TIME = 35
"""The default: how long a message of 500 reports may take does not shrink with what it is here."""
_MEASURED = 2000
_STORM_HOSTS, _STORM_PORTS = 4, 25
_SHARE = 0.1
"""Of its time the server runs in the overload, so that the others can make ten times its load; and
so does the slow database."""
_TURN = 1.0
"""Seconds of which the slow database uses its share: a commit takes nearly as long."""
_SERVERS_TURN = 0.05
_ENOUGH = 2000
_MOST_MIB = 32 * _STORM_HOSTS
"""Each host has one message of at most 500 reports on its way, however many it has made."""
_MOST_CALLS = 4 * (_STORM_HOSTS + 1)
"""Each host reports, sends a heartbeat and asks, one call of each kind at a time."""
_UPDATES = 10_000
_BURST_SECONDS = 1.0
_HANDFUL = 20


# The product's own processes.


def agent_killed(stage: Stage, random_: random.Random) -> None:
    agent = stage.site.agent
    stage.rewire(stage.lines)
    pause(random_)
    agent.end(signal.SIGKILL, SECONDS)
    # Nobody changes the switch now.
    assert (wrong := stage.unproven()) == [], wrong
    for _ in range(_KILLS - 1):
        stage.replug(stage.lines)
        stage.begin_agent()
        pause(random_, _STARTING_SECONDS + WIRING_SECONDS)
        agent.end(signal.SIGKILL, SECONDS)
        assert (damage := stage.records.damage()) == [], damage
    agent.start()


def helper_killed(stage: Stage, random_: random.Random) -> None:
    agent = stage.site.agent
    for _ in range(2):
        stage.rewire(stage.lines)
        pause(random_)
        os.kill(helper_of(agent), signal.SIGKILL)
        # A signal that does nothing.
        code = agent.end(signal.SIGCONT, SECONDS)
        assert code == 1, f"the agent ended with {code}"
        stage.site.start_agent()


def server_killed(stage: Stage, random_: random.Random) -> None:
    server, repeated = stage.site.server, 0.0
    for _ in range(_KILLS):
        stage.rewire(stage.lines)
        if random_.random() < 0.5:
            pause(random_)
        else:
            # Its answer may be lost, and the reports sent again.
            with stage.records.next_commit() as committed:
                wait_until(committed, SECONDS, "a report is committed", poll=0)
        server.end(signal.SIGKILL, SECONDS)
        assert (damage := stage.records.damage()) == [], damage
        server.start()
        server.ready(stage.api.answers, SECONDS)
        stage.until_delivered()
        repeated += stage.redelivered()
    print(f"{repeated:.0f} reports were sent again that the server had")


# Open vSwitch.


def vswitchd_killed(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    pause(random_)
    stage.switch.kill_vswitchd()
    stage.until_unknown(or_failed=True)
    stage.switch.start_vswitchd()


def ovsdb_killed(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    pause(random_)
    stage.switch.kill_ovsdb()
    stage.until_trouble("ovsdb")
    stage.switch.start_ovsdb()


def vswitchd_stopped(stage: Stage, random_: random.Random) -> None:
    with stage.switch.held_vswitchd():
        stage.until_unknown()


def bridge_deleted(stage: Stage, random_: random.Random) -> None:
    stage.rewire(random_.sample(stage.lines, 10))
    pause(random_)
    stage.switch.vsctl("del-br", BRIDGE)
    wait_until(
        lambda: BRIDGE in stage.switch.vsctl("list-br").split(), SECONDS, "the agent makes it"
    )
    stage.plug(stage.ports)


def ports_deleted_in_mid_flow(stage: Stage, random_: random.Random) -> None:
    for _ in range(3):
        pause(random_, 0.5)
        some = random_.sample(stage.lines, 15)
        stage.unplug(some)
        pause(random_, 0.5)
        stage.plug(some)


def ofports_changed(stage: Stage, random_: random.Random) -> None:
    for number, line in enumerate(random_.sample(stage.lines, 10)):
        wanted = 20_000 + random_.randrange(1000) * 10 + number
        stage.switch.vsctl("set", "Interface", line.tap, f"ofport_request={wanted}")


def tables_full(stage: Stage, random_: random.Random) -> None:
    line = random_.choice(stage.lines)

    def unplug() -> None:
        stage.unplug([line])
        stage.api.wait_port(line.port_id, SECONDS, sync_state="ABSENT")

    plugged = stage.flows_by_table()
    unplug()
    tables = sorted(plugged - stage.flows_by_table())
    assert len(tables) > 5, tables
    for table in tables:
        with stage.switch.full_table(table):
            stage.plug([line])
            stage.api.wait_port(line.port_id, SECONDS, status="DOWN", sync_state="OUT_OF_SYNC")
        stage.api.wait_port(line.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
        unplug()
    stage.plug([line])


def device_missing(stage: Stage, random_: random.Random) -> None:
    line = random_.choice(stage.lines)
    stage.unplug([line])
    stage.switch.namespace.ip("link", "delete", line.tap)
    # It waits for the switch, which reports the missing device as an error.
    stage.plug([line])
    stage.api.wait_port(line.port_id, SECONDS, status="DOWN", sync_state="OUT_OF_SYNC")
    stage.lay([line])


def ofctl_hangs(stage: Stage, random_: random.Random) -> None:
    stage.rewire(random_.sample(stage.lines, 20))
    pause(random_, 0.5)
    stage.tool.flag.touch()
    stage.replug(random_.sample(stage.lines, 5))
    stage.until_trouble("openflow")
    stage.tool.flag.unlink()


# RabbitMQ.


def rabbit_stopped(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    pause(random_)
    stage.rabbit.pause()
    stage.replug(random_.sample(stage.lines, 10))
    stage.until_unknown()
    stage.rabbit.resume()


def rabbit_loses_queues(stage: Stage, random_: random.Random) -> None:
    stage.replug(stage.lines)
    pause(random_)
    stage.rabbit.lose_queues()


def rabbit_cut_off(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    pause(random_)
    with stage.rabbit.cut_off():
        stage.replug(random_.sample(stage.lines, 10))
        stage.until_unknown()


def rabbit_blocks(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    pause(random_)
    with stage.rabbit.blocking():
        stage.replug(random_.sample(stage.lines, 10))
        stage.until_unknown()


# The database.


def database_fails_over(stage: Stage, random_: random.Random) -> None:
    standby = stage.standby()
    stage.replug(random_.sample(stage.lines, 20))
    pause(random_)
    standby.take_over()
    stage.postgresql = standby


def database_stopped(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 20))
    pause(random_)
    stage.postgresql.pause()
    stage.replug(random_.sample(stage.lines, 10))
    stage.until_unhealthy()
    stage.postgresql.resume()


def database_hangs(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 20))
    pause(random_)
    with stage.postgresql.frozen():
        stage.until_unhealthy()


def database_slow(stage: Stage, random_: random.Random) -> None:
    with slowed(stage.postgresql.frozen, _TURN, _SHARE):
        stage.replug(stage.lines)
        over = time.monotonic() + max(stage.lasting, _OVERLOAD)
        while time.monotonic() < over:
            assert stage.agent()["alive"], "declared dead"
            time.sleep(0.5)


# The host.


def disk_full(stage: Stage, random_: random.Random) -> None:
    ballast = stage.site.state_dir / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    stage.until_trouble("outbox")
    some = random_.sample(stage.lines, 10)
    stage.replug(some)
    # What is desired is applied all the same.
    wait_until(lambda: stage.are_open(some), SECONDS, "the ports are wired")
    ballast.unlink()


def clock_set(stage: Stage, random_: random.Random) -> None:
    with WallClock() as clock:
        stage.site.agent.stop()
        # It has this clock for as long as it runs.
        stage.site.agent.env |= clock.env
        try:
            stage.site.start_agent()
            for hours in random_.sample((1, -1), 2):
                stage.replug(random_.sample(stage.lines, 10))
                clock.set(hours * _HOUR)
                stage.replug(random_.sample(stage.lines, 10))
                print(f"{hours:+} h: converged in {stage.wait_converged():.1f} s")
                stage.site.agent.end(signal.SIGKILL, SECONDS)
                stage.site.agent.start()
                stage.replug(random_.sample(stage.lines, 10))
                print(f"restarted: converged in {stage.wait_converged():.1f} s")
            clock.set(0)
        finally:
            for name in clock.env:
                del stage.site.agent.env[name]
        stage.replug(random_.sample(stage.lines, 10))


# All of them.


def every_order(stage: Stage, random_: Chance) -> None:
    agent, server = stage.site.agent, stage.site.server

    def end(daemon: Daemon) -> None:
        code = daemon.end(signal.SIGTERM, SECONDS)
        assert code == 0, f"{daemon.name} ended with {code}"

    down: Mapping[str, Callable[[], None]] = {
        "agent": lambda: end(agent),
        "server": lambda: end(server),
        "bus": stage.rabbit.pause,
        "database": stage.postgresql.pause,
        "switch": stage.switch.stop,
    }
    up: Mapping[str, Callable[[], None]] = {
        "agent": agent.start,
        "server": server.start,
        "bus": stage.rabbit.resume,
        "database": stage.postgresql.resume,
        "switch": stage.switch.start,
    }
    orders = list(itertools.permutations(sorted(up)))
    for order, steps in (
        (random_.choice(orders), down),
        (orders[random_.seed_number % len(orders)], up),
    ):
        print(f"{'down' if steps is down else 'up'}: {', '.join(order)}")
        for name in order:
            steps[name]()
            pause(random_, 1.0)


# What the server is asked.


def port_deleted_while_reported(stage: Stage, random_: random.Random) -> None:
    some = random_.sample(stage.lines, 10)
    stage.rewire(some)
    pause(random_, 1.0)
    for line in some:
        stage.api.delete("ports", line.port_id)
        if random_.random() < 0.5:
            stage.desire(line)
    for line in some:
        stage.desire(line)


def updated(stage: Stage, random_: random.Random) -> None:
    _update(stage, random_, contextlib.nullcontext())


def updated_while_stopped(stage: Stage, random_: random.Random) -> None:
    _update(stage, random_, stage.held_agent())


def _update(
    stage: Stage,
    random_: random.Random,
    during: contextlib.AbstractContextManager[None],
) -> None:
    line = random_.choice(stage.lines)
    before = stage.records.attempts(line.port_id)
    revision = stage.api.port(line.port_id)["revision_number"]
    with ThreadPoolExecutor(1) as beside, stage.caster() as casts, during:
        began = time.monotonic()
        committing = beside.submit(stage.records.update, line.port_id, _UPDATES, _BURST_SECONDS)
        for _ in range(_UPDATES):
            casts.ports_changed(HOST, [line.port_id])
        cast, committed = time.monotonic() - began, committing.result()
        stage.desire(line)
    began = time.monotonic()
    stage.api.wait_port(line.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    settled = time.monotonic() - began
    stage.wait_heartbeats()
    run = stage.records.attempts(line.port_id) - before
    print(
        f"{_UPDATES} updates were committed in {committed:.1f} s, their notifications sent in "
        f"{cast:.1f} s; {run} flows, the last ended {settled:.1f} s after the last update"
    )
    risen = stage.api.port(line.port_id)["revision_number"] - revision
    assert risen == _UPDATES + 1, f"the revision rose by {risen}"
    assert 0 < run <= _HANDFUL, f"{run} flows ran for {_UPDATES} updates"


def overloaded(stage: Stage, random_: random.Random) -> None:
    hosts = stage.other_hosts(_STORM_HOSTS, _STORM_PORTS)
    server = stage.site.server
    with (
        stage.server_with(agent_down_time=_DOWN_TIME),
        Agents(stage.switch.namespace, stage.rabbit.url, hosts) as agents,
        stage.rabbit.depths(transport.SERVER_TOPIC) as depths,
    ):
        stage.wait_agents_alive([HOST, *hosts])
        memory = stage.site.memory_mib(server)
        with slowed(partial(held, server.pid), _SERVERS_TURN, _SHARE):
            # What it can take is what it takes of more than enough.
            agents.make(_ENOUGH)
            before, began = agents.load().acknowledged, time.monotonic()
            wait_until(
                lambda: agents.load().acknowledged >= before + _MEASURED,
                SECONDS,
                f"{_MEASURED} reports are taken",
                poll=0.2,
            )
            capacity = (agents.load().acknowledged - before) / (time.monotonic() - began)
            began = time.monotonic()
            agents.make(10 * capacity)
            grown = 0.0
            while time.monotonic() - began < max(stage.lasting, _OVERLOAD):
                dead = [a["host"] for a in stage.api.find("agents") if not a["alive"]]
                assert not dead, f"declared dead: {dead}"
                grown = max(grown, stage.site.memory_mib(server) - memory)
                time.sleep(0.5)
            agents.make(0)
            at_end = agents.load()
        ended = time.monotonic()
        wait_until(lambda: not agents.load().waiting, SECONDS, "what waits is taken", poll=0.2)
        drained = time.monotonic() - ended
        done = agents.load()
    deepest = max(each.ready + each.unacknowledged for each in depths)
    print(
        f"the server took {capacity:.0f} reports/s, and was sent {10 * capacity:.0f}; "
        f"{at_end.made} made, {done.acknowledged} acknowledged, others were superseded; "
        f"{at_end.waiting} waited in the end, for {drained:.1f} s; the slowest of {done.beats} "
        f"heartbeats took {done.beat} s; its memory grew by {grown:.0f} MiB; at most "
        f"{deepest} calls were in RabbitMQ's queue"
    )
    assert grown < _MOST_MIB, f"the memory of the server grew by {grown:.0f} MiB"
    assert at_end.waiting <= _STORM_HOSTS * MAX_REPORTS, f"{at_end.waiting} reports wait"
    assert deepest <= _MOST_CALLS, f"{deepest} calls were in RabbitMQ's queue"
    assert done.beat is not None, "a heartbeat was not answered"
    line = random_.choice(stage.lines)
    stage.rewire([line])
    began = time.monotonic()
    stage.api.wait_port(line.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    print(f"a port is ACTIVE {time.monotonic() - began:.1f} s after it was plugged")
    stage.forget_hosts(hosts)


# Several hosts.


def migrated(stage: Stage, random_: random.Random) -> None:
    some = random_.sample(stage.lines, 10)
    with stage.other_host(some) as other:
        agents = (stage.site.agent.pid, other.pid)
        for _ in range(6):
            with held(random_.choice(agents)):
                _migrate(stage, random_, some)
                pause(random_, 0.5)
            _migrate(stage, random_, some)
            pause(random_, 0.5)
            with held(*agents):
                # What they have sent by now is taken.
                pause(random_, 0.5)
                assert (wrong := stage.unproven()) == [], wrong
        for line in some:
            stage.desire(line, **{"binding:host_id": OTHER_HOST})
        for line in some:
            stage.api.wait_port(line.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
        assert (wrong := stage.unproven()) == [], wrong
        for line in some:
            stage.desire(line)
    stage.forget_hosts({OTHER_HOST: []})


def _migrate(stage: Stage, random_: random.Random, ports: Sequence[Plugged]) -> None:
    for port in ports:
        stage.desire(port, **{"binding:host_id": random_.choice((HOST, OTHER_HOST))})


def second_agent(stage: Stage, random_: random.Random) -> None:
    failures = stage.records.failures()
    with stage.other_agent(HOST) as second:
        wait_until(
            lambda: stage.agent().get("conflict") is not None, SECONDS, "the conflict is shown"
        )
        wait_until(lambda: "is taken" in second.last_words(200), SECONDS, "it logs it")
        states = {(port["status"], port["sync_state"]) for port in stage.shown()}
        assert states == {("ACTIVE", "IN_SYNC")}, states
        # What is revoked meanwhile must go.
        stage.cloud.group("web", egress_to_anywhere(), stage.web)
        wait_until(lambda: not stage.client.ping(stage.server_vm.ip), SECONDS, "it is revoked")
        stage.rewire(random_.sample(stage.lines, 5))
        stage.cloud.group("web", WEB, stage.web)
        stage.wait_converged()
        assert stage.records.failures() == failures, "what the second agent did made a flow fail"


ALL = (
    Scenario(
        "agent-killed",
        f"The agent is killed (kill -9), {_KILLS} times, at a random instant of its start or of "
        "the wiring of 45 ports.",
        "Each time it is started again.",
        agent_killed,
    ),
    Scenario(
        "helper-killed",
        "The agent's privileged helper is killed (kill -9), twice, at a random instant of the "
        "wiring of 45 ports; the agent ends with an error.",
        "Each time the agent is started again, as systemd does.",
        helper_killed,
    ),
    Scenario(
        "server-killed",
        f"The server is killed (kill -9), {_KILLS} times, at a random instant of taking the "
        "reports of 45 ports, or after a commit.",
        "Each time it is started again.",
        server_killed,
    ),
    Scenario(
        "vswitchd-killed",
        "ovs-vswitchd is killed (kill -9) while ports are wired, until all ports are "
        "UNKNOWN or have failed.",
        "It is started again, without a flow.",
        vswitchd_killed,
    ),
    Scenario(
        "ovsdb-killed",
        "ovsdb-server is killed (kill -9) while ports are wired.",
        "It is started again on its file.",
        ovsdb_killed,
    ),
    Scenario(
        "vswitchd-stopped",
        "ovs-vswitchd is stopped (SIGSTOP) until all ports are UNKNOWN.",
        "It goes on (SIGCONT).",
        vswitchd_stopped,
    ),
    Scenario(
        "bridge-deleted",
        "The integration bridge is deleted while ports are wired.",
        "The agent makes it again; the ports are plugged again.",
        bridge_deleted,
    ),
    Scenario(
        "ports-deleted",
        "Interfaces are deleted in the middle of their flows, three times 15.",
        "They are plugged again.",
        ports_deleted_in_mid_flow,
    ),
    Scenario(
        "ofports-changed",
        "The ofport of 10 wired ports changes.",
        "They keep the new one.",
        ofports_changed,
        # A round soon after another is the trouble "drift", for a minute.
        seconds=90,
    ),
    Scenario(
        "tables-full",
        "Each table that has a port's flows is full, one after the other, while it is plugged.",
        "The limit is lifted.",
        tables_full,
    ),
    Scenario(
        "device-missing",
        "An interface is plugged whose device does not exist.",
        "The device is made.",
        device_missing,
    ),
    Scenario(
        "ofctl-hangs",
        "ovs-ofctl does not end, and ignores SIGTERM.",
        "It works again.",
        ofctl_hangs,
    ),
    Scenario(
        "rabbit-stopped",
        "RabbitMQ is stopped until all ports are UNKNOWN; ports are plugged meanwhile.",
        "It is started again.",
        rabbit_stopped,
    ),
    Scenario(
        "rabbit-loses-queues",
        "RabbitMQ loses every queue, with what waits in it.",
        "Nothing: clients have to make them again.",
        rabbit_loses_queues,
    ),
    Scenario(
        "rabbit-cut-off",
        "Packets to and from RabbitMQ vanish, without a reset, until all ports are UNKNOWN.",
        "They pass again.",
        rabbit_cut_off,
        seconds=90,
    ),
    Scenario(
        "rabbit-blocks",
        "RabbitMQ has no memory left and blocks its publishers, until all ports are UNKNOWN.",
        "It has memory again.",
        rabbit_blocks,
        seconds=90,
    ),
    Scenario(
        "database-fails-over",
        "PostgreSQL is killed (kill -9) while the server takes reports.",
        "Its standby takes over.",
        database_fails_over,
    ),
    Scenario(
        "database-stopped",
        "PostgreSQL is stopped while the server takes reports.",
        "It is started again.",
        database_stopped,
    ),
    Scenario(
        "database-hangs",
        "PostgreSQL answers nothing (SIGSTOP), until /healthz shows it.",
        "It goes on (SIGCONT).",
        database_hangs,
    ),
    Scenario(
        "database-slow",
        "PostgreSQL works a tenth of each second; 45 ports are replugged, and their agent is never "
        "declared dead.",
        "It works all the time.",
        database_slow,
    ),
    Scenario(
        "disk-full",
        "The disk of the agent's outbox is full; 10 ports are replugged.",
        "There is room again.",
        disk_full,
    ),
    Scenario(
        "clock-set",
        "The agent's clock is set an hour forward and an hour back; it is killed and started "
        "again in between.",
        "It is right again.",
        clock_set,
    ),
    Scenario(
        "every-order",
        "Agent, server, RabbitMQ, PostgreSQL and Open vSwitch are stopped in any order.",
        "They are started in any order.",
        every_order,
    ),
    Scenario(
        "port-deleted",
        "10 ports are deleted in the API while their reports are on the way.",
        "They are made again.",
        port_deleted_while_reported,
        refuses=True,
    ),
    Scenario(
        "updates",
        f"One port is updated {_UPDATES} times in a second, each time to another desired state, "
        "and its agent is notified of each.",
        f"The last update is what was before; at most {_HANDFUL} flows run.",
        updated,
    ),
    Scenario(
        "updates-at-once",
        f"The agent takes nothing (SIGSTOP), and the notifications of {_UPDATES} such updates "
        "wait for it in RabbitMQ.",
        f"It takes all at once (SIGCONT); at most {_HANDFUL} flows run.",
        updated_while_stopped,
    ),
    Scenario(
        "overloaded",
        f"{_STORM_HOSTS} other hosts make 10 times the reports that the server can take.",
        "They make no more.",
        overloaded,
    ),
    Scenario(
        "migrated",
        "10 ports move between two hosts and back, while reports of both are on the way.",
        "They are bound to the first one.",
        migrated,
        refuses=True,
    ),
    Scenario(
        "second-agent",
        "A second agent of the same host starts, with an empty bridge; rules are revoked.",
        "It is stopped; the rules are as before.",
        second_agent,
    ),
)
