"""The faults: what breaks, and how it mends."""

import contextlib
import random
import signal
import threading

from lab.model import egress_to_anywhere
from lab.process import wait_until
from tests.faults.scenario import Scenario
from tests.faults.stage import BRIDGE, HOST, SECONDS, WEB, Stage

_WIRING_SECONDS = 1.5
"""About what the wiring of 45 ports takes here: kills fall before, into and after it."""


_UPDATES = 500


def _pause(random_: random.Random, longest: float = _WIRING_SECONDS) -> None:
    """A random instant is what a kill needs; nothing is proven by this."""
    threading.Event().wait(random_.uniform(0, longest))


# The product's own processes.


def agent_killed(stage: Stage, random_: random.Random) -> None:
    stage.rewire(stage.lines)
    _pause(random_)
    stage.site.agent.end(signal.SIGKILL, SECONDS)
    # Nobody changes the switch now.
    assert (wrong := stage.unproven()) == [], wrong
    stage.site.agent.start()


def server_killed(stage: Stage, random_: random.Random) -> None:
    stage.rewire(stage.lines)
    _pause(random_)
    stage.site.server.end(signal.SIGKILL, SECONDS)
    stage.site.server.start()


# Open vSwitch.


def vswitchd_killed(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    _pause(random_)
    stage.switch.kill_vswitchd()
    stage.until_unknown()
    stage.switch.start_vswitchd()


def ovsdb_killed(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    _pause(random_)
    stage.switch.kill_ovsdb()
    stage.until_trouble("ovsdb")
    stage.switch.start_ovsdb()


def vswitchd_stopped(stage: Stage, random_: random.Random) -> None:
    with stage.switch.held_vswitchd():
        stage.until_unknown()


def bridge_deleted(stage: Stage, random_: random.Random) -> None:
    stage.rewire(random_.sample(stage.lines, 10))
    _pause(random_)
    stage.switch.vsctl("del-br", BRIDGE)
    wait_until(
        lambda: BRIDGE in stage.switch.vsctl("list-br").split(), SECONDS, "the agent makes it"
    )
    stage.plug(stage.ports)


def ports_deleted_in_mid_flow(stage: Stage, random_: random.Random) -> None:
    for _ in range(3):
        _pause(random_, 0.5)
        some = random_.sample(stage.lines, 15)
        stage.unplug(some)
        _pause(random_, 0.5)
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
    _pause(random_, 0.5)
    stage.tool.flag.touch()
    stage.replug(random_.sample(stage.lines, 5))
    stage.until_trouble("openflow")
    stage.tool.flag.unlink()


# RabbitMQ.


def rabbit_stopped(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    _pause(random_)
    stage.rabbit.pause()
    stage.replug(random_.sample(stage.lines, 10))
    stage.until_unknown()
    stage.rabbit.resume()


def rabbit_loses_queues(stage: Stage, random_: random.Random) -> None:
    stage.replug(stage.lines)
    _pause(random_)
    stage.rabbit.lose_queues()


def rabbit_cut_off(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 10))
    _pause(random_)
    with stage.cut_off_from_rabbit():
        stage.replug(random_.sample(stage.lines, 10))
        stage.until_unknown()


# The database.


def database_stopped(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 20))
    _pause(random_)
    stage.postgresql.pause()
    stage.replug(random_.sample(stage.lines, 10))
    wait_until(lambda: not stage.api.answers(), SECONDS, "/healthz shows it")
    stage.postgresql.resume()


def database_hangs(stage: Stage, random_: random.Random) -> None:
    stage.replug(random_.sample(stage.lines, 20))
    _pause(random_)
    with stage.postgresql.frozen():
        wait_until(lambda: not stage.api.answers(), SECONDS, "/healthz shows it")


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


# What the server is asked.


def port_deleted_while_reported(stage: Stage, random_: random.Random) -> None:
    some = random_.sample(stage.lines, 10)
    stage.rewire(some)
    _pause(random_, 1.0)
    for line in some:
        stage.api.delete("ports", line.port_id)
        if random_.random() < 0.5:
            stage.desire(line)
    for line in some:
        stage.desire(line)


def updated_again_and_again(stage: Stage, random_: random.Random) -> None:
    line = random_.choice(stage.lines)
    before = stage.attempts(line)
    for number in range(_UPDATES - 1):
        stage.desire(line, admin_state_up=bool(number % 2))
    stage.desire(line)
    stage.api.wait_port(line.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    run = stage.attempts(line) - before
    assert run < _UPDATES / 2, f"{run} flows ran for {_UPDATES} updates"


# Several hosts.


def second_agent(stage: Stage, random_: random.Random) -> None:
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


ALL = (
    Scenario(
        "agent-killed",
        "The agent is killed (kill -9) at a random instant of the wiring of 45 ports.",
        "It is started again.",
        agent_killed,
    ),
    Scenario(
        "server-killed",
        "The server is killed (kill -9) at a random instant of taking the reports of 45 ports.",
        "It is started again.",
        server_killed,
    ),
    Scenario(
        "vswitchd-killed",
        "ovs-vswitchd is killed (kill -9) while ports are wired, until all ports are UNKNOWN.",
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
        "disk-full",
        "The disk of the agent's outbox is full; 10 ports are replugged.",
        "There is room again.",
        disk_full,
    ),
    Scenario(
        "port-deleted",
        "10 ports are deleted in the API while their reports are on the way.",
        "They are made again.",
        port_deleted_while_reported,
    ),
    Scenario(
        "updates",
        f"One port is updated {_UPDATES} times, as fast as the API takes it.",
        "The last update is what was before.",
        updated_again_and_again,
    ),
    Scenario(
        "second-agent",
        "A second agent of the same host starts, with an empty bridge; rules are revoked.",
        "It is stopped; the rules are as before.",
        second_agent,
    ),
)
