"""The faults of a live Neutron: what breaks, and how it mends."""

import contextlib
import dataclasses
import random
import time

from lab.process import held, wait_until
from lab.wall_clock import WallClock
from tests.faults.any_stage import BRIDGE, SECONDS
from tests.faults.neutron.stage import OURS, WATCHED, NeutronStage
from tests.faults.scenario import Scenario, pause

_AGENT_KILLS, _SERVER_KILLS = 3, 2
"""In a round."""
_WIRING_SECONDS = 2.5
"""About what Neutron's agent takes to wire these ports: kills fall before, into and after it."""
_STARTING_SECONDS = 4.0
"""About what it takes from the opening of the outbox until it wires."""
_OUTAGE_SECONDS = 5
"""What nothing in Neutron shows lasts so long."""
_HOUR = 3600


def agent_killed(stage: NeutronStage, random_: random.Random) -> None:
    stage.rewire(stage.lines)
    pause(random_, _WIRING_SECONDS)
    stage.host.kill_agent()
    # Nobody changes the switch now.
    assert (wrong := stage.unproven()) == [], wrong
    for _ in range(_AGENT_KILLS - 1):
        stage.replug(stage.lines)
        stage.begin_agent()
        pause(random_, _STARTING_SECONDS + _WIRING_SECONDS)
        stage.host.kill_agent()
        assert (damage := stage.records.damage()) == [], damage
    stage.host.launch_agent()


def server_killed(stage: NeutronStage, random_: random.Random) -> None:
    for _ in range(_SERVER_KILLS):
        stage.rewire(stage.lines)
        if random_.random() < 0.5:
            pause(random_, _WIRING_SECONDS)
        else:
            # Its answer may be lost, and the reports sent again.
            with stage.records.next_commit() as committed:
                wait_until(committed, SECONDS, "a report is committed", poll=0)
        stage.controller.stop_server()
        assert (damage := stage.records.damage()) == [], damage
        stage.controller.start_server()
        stage.until_delivered()


# Open vSwitch.


def vswitchd_killed(stage: NeutronStage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 3))
    pause(random_, _WIRING_SECONDS)
    with stage.host.switch_gone():
        stage.until_unknown(or_failed=True)


def vswitchd_stopped(stage: NeutronStage, random_: random.Random) -> None:
    with stage.switch.held_vswitchd():
        stage.until_unknown()


def ovsdb_killed(stage: NeutronStage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 3))
    pause(random_, _WIRING_SECONDS)
    stage.switch.kill_ovsdb()
    # Without it ovs-vswitchd does nothing: it has lost the lock in the database.
    stage.until_unknown(or_failed=True)
    stage.switch.start_ovsdb()


def bridge_deleted(stage: NeutronStage, random_: random.Random) -> None:
    stage.rewire(random_.sample(stage.lines, 3))
    pause(random_, _WIRING_SECONDS)
    stage.switch.vsctl("del-br", BRIDGE)
    stage.until_unknown(or_failed=True)
    # Neutron's agent makes the bridge at its start only. Until our firewall driver is loaded,
    # everything that is plugged passes.
    stage.host.kill_agent()
    stage.host.start_agent()
    stage.plug(list(stage.host.vms.values()))


def booted(stage: NeutronStage, random_: random.Random) -> None:
    stage.host.kill_agent()
    with stage.host.switch_gone():
        pass
    # The bridge drops everything: it has no flow, and its fail mode is secure.
    pause(random_, _WIRING_SECONDS)
    stage.host.launch_agent()


def tables_full(stage: NeutronStage, random_: random.Random) -> None:
    line = random_.choice(stage.lines)

    def unplug() -> None:
        stage.unplug([line])
        stage.wait_port(line, sync_state="ABSENT")

    plugged = stage.flows_by_table()
    unplug()
    tables = sorted(plugged - stage.flows_by_table())
    print(f"tables {tables}")
    assert len(tables) > 5, tables
    for table in random_.sample(tables, 2):
        print(f"table {table}")
        with stage.switch.full_table(table):
            stage.plug([line])
            stage.wait_port(line, status="DOWN", sync_state="OUT_OF_SYNC")
        stage.wait_port(line, status="ACTIVE", sync_state="IN_SYNC")
        unplug()
    stage.plug([line])


# RabbitMQ.


def rabbit_stopped(stage: NeutronStage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 3))
    pause(random_, _WIRING_SECONDS)
    with stage.controller.bus_away():
        stage.replug(random_.sample(stage.lines, 3))
        stage.until_unknown()


def rabbit_loses_queues(stage: NeutronStage, random_: random.Random) -> None:
    stage.replug(stage.lines)
    pause(random_, _WIRING_SECONDS)
    stage.controller.rabbit.lose_queues()


def rabbit_cut_off(stage: NeutronStage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 3))
    pause(random_, _WIRING_SECONDS)
    with stage.controller.rabbit.cut_off():
        stage.replug(random_.sample(stage.lines, 3))
        stage.until_unknown()


# The database.


def database_stopped(stage: NeutronStage, random_: random.Random) -> None:
    stage.replug(stage.lines)
    pause(random_, _WIRING_SECONDS)
    stage.controller.mariadb.pause()
    stage.replug(random_.sample(stage.lines, 3))
    time.sleep(max(stage.lasting, _OUTAGE_SECONDS))
    stage.controller.mariadb.resume()


def database_hangs(stage: NeutronStage, random_: random.Random) -> None:
    stage.replug(stage.lines)
    pause(random_, _WIRING_SECONDS)
    with stage.controller.mariadb.frozen():
        time.sleep(max(stage.lasting, _OUTAGE_SECONDS))


# The host.


def disk_full(stage: NeutronStage, random_: random.Random) -> None:
    ballast = stage.state_dir / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    stage.until_trouble("outbox")
    some = random_.sample(stage.lines, 3)
    stage.replug(some)
    # What is desired is applied all the same.
    wait_until(lambda: stage.are_open(some), SECONDS, "the ports are wired")
    ballast.unlink()


def clock_set(stage: NeutronStage, random_: random.Random) -> None:
    with WallClock() as clock:
        stage.host.kill_agent()
        # It has this clock for as long as it runs.
        stage.host.agent.env |= clock.env
        try:
            stage.host.start_agent()
            for hours in random_.sample((1, -1), 2):
                stage.replug(random_.sample(stage.lines, 3))
                if hours < 0:
                    # Neutron's loop waits by this clock: set back while it is at work, it would
                    # sleep for hours.
                    stage.host.await_iterations(2)
                clock.set(hours * _HOUR)
                stage.replug(random_.sample(stage.lines, 3))
                print(f"{hours:+} h: converged in {stage.wait_converged():.1f} s")
            stage.host.kill_agent()
        finally:
            for name in clock.env:
                del stage.host.agent.env[name]
        stage.replug(random_.sample(stage.lines, 3))
        stage.host.launch_agent()


# What the server is asked.


def port_deleted_while_reported(stage: NeutronStage, random_: random.Random) -> None:
    for _ in range(2):
        some = stage.boot(2, stage.web)
        pause(random_, _WIRING_SECONDS)
        for vm in some:
            stage.lose(vm)


def migrated(stage: NeutronStage, random_: random.Random) -> None:
    agents = [host.agent.pid for host in stage.neutron.hosts.values()]
    for line in random_.sample(stage.lines, 2):
        vm = line
        for host, before in ((WATCHED, OURS), (OURS, WATCHED)):
            with held(*random_.sample(agents, random_.randint(0, 1))):
                vm = stage.migrate(vm, host, lambda: pause(random_, 1.0))
                pause(random_, 1.0)
            with held(*agents):
                # What they have sent by now is taken.
                pause(random_, 0.5)
                assert (wrong := stage.unproven()) == [], wrong
            # If the machine were back before, Neutron's agent would delete its interface.
            stage.neutron.hosts[before].await_iterations(2)


_SCENARIOS = (
    Scenario(
        "agent-killed",
        f"The OVS agent is killed (kill -9), {_AGENT_KILLS} times, at a random instant of its "
        "start or of the wiring of 5 ports.",
        "Each time it is started again.",
        agent_killed,
    ),
    Scenario(
        "server-killed",
        f"Neutron's API and RPC server are killed (kill -9), {_SERVER_KILLS} times, at a random "
        "instant of taking the reports of 5 ports, or after a commit.",
        "Each time they are started again.",
        server_killed,
        # A call of Neutron's agent that was under way is not answered: rpc_response_timeout.
        seconds=180,
    ),
    Scenario(
        "vswitchd-killed",
        "ovs-vswitchd is killed (kill -9) while ports are wired, until all ports are "
        "UNKNOWN or have failed.",
        "It is started again, without a flow.",
        vswitchd_killed,
    ),
    Scenario(
        "vswitchd-stopped",
        "ovs-vswitchd is stopped (SIGSTOP) until all ports are UNKNOWN.",
        "It goes on (SIGCONT).",
        vswitchd_stopped,
    ),
    Scenario(
        "ovsdb-killed",
        "ovsdb-server is killed (kill -9) while ports are wired, until all ports are "
        "UNKNOWN or have failed.",
        "It is started again on its file.",
        ovsdb_killed,
    ),
    Scenario(
        "booted",
        "The host is as after a boot: its machines are plugged, ovs-vswitchd has no flow, and the "
        "OVS agent does not run.",
        "The agent is started.",
        booted,
    ),
    Scenario(
        "tables-full",
        "Two tables that have a port's flows are full, one after the other, while it is plugged.",
        "The limit is lifted.",
        tables_full,
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
        "database-stopped",
        f"MariaDB is stopped for {_OUTAGE_SECONDS} s while reports come.",
        "It is started again.",
        database_stopped,
    ),
    Scenario(
        "database-hangs",
        f"MariaDB answers nothing (SIGSTOP) for {_OUTAGE_SECONDS} s.",
        "It goes on (SIGCONT).",
        database_hangs,
    ),
    Scenario(
        "disk-full",
        "The disk of the extension's outbox is full; 3 ports are replugged.",
        "There is room again.",
        disk_full,
    ),
    Scenario(
        "port-deleted",
        "4 ports are deleted in the API while their reports are on the way.",
        "Their machines are shut down.",
        port_deleted_while_reported,
        refuses=True,
    ),
    Scenario(
        "migrated",
        "2 machines move live to a host with Neutron's firewall and back, while reports of both "
        "hosts are on the way.",
        "They are where they were.",
        migrated,
        refuses=True,
    ),
    Scenario(
        "clock-set",
        "The OVS agent's clock is set an hour forward and an hour back.",
        "It is killed, and started again with the right clock.",
        clock_set,
    ),
    Scenario(
        "bridge-deleted",
        "The integration bridge is deleted while ports are wired, until all ports are "
        "UNKNOWN or have failed.",
        "The OVS agent is started again and makes it; the ports are plugged again.",
        bridge_deleted,
    ),
)

_IN_EVERY_RUN = ("vswitchd-killed", "booted", "rabbit-cut-off", "migrated")
"""The others take five minutes more."""
ALL = tuple(
    each if each.name in _IN_EVERY_RUN else dataclasses.replace(each, rounds=0)
    for each in _SCENARIOS
)
