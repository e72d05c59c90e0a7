"""Any message between agent and server may be lost: the host converges nevertheless."""

import pytest

from lab.process import wait_until
from lab.vm import Vm, plug
from tests.functional.convergence.conftest import World
from tests.functional.convergence.lossy import EVER

CASTS = ("ports_changed", "security_groups_changed", "resync")


@pytest.fixture
def wired(world: World) -> tuple[Vm, Vm]:
    """A web server and a database, in sync."""
    web, db = world.boot("web", world.web), world.boot("db", world.db)
    plug(world.switch, [web, db])
    world.in_sync(web, db)
    # A report that is still to be sent would be about an older desired state by then.
    world.idle()
    return web, db


def change(world: World, web: Vm) -> Vm:
    """Changes by which every kind of message is sent: another web server comes, so that the
    database has to accept it, and the first one becomes a database as well."""
    other = world.boot("other", world.web)
    plug(world.switch, [other])
    world.declare(web, world.web, world.db)
    return other


def check(world: World, web: Vm, db: Vm, other: Vm) -> None:
    """Everything is as desired, and each report is in the history once."""
    world.in_sync(web, db, other)
    assert other.reach(db.ip, 5432) == "db"
    assert other.reach(web.ip, 5432) == "web"
    assert not db.connect(web.ip, 5432)
    # Groups are reported after the ports that need them.
    world.idle()
    for id_ in (web.port_id, db.port_id, other.port_id, world.web, world.db):
        assert world.attempts(id_) == world.bus.reports_of(id_)
    assert len(world.attempts(other.port_id, "wire")) == 1


@pytest.mark.parametrize("answer", [False, True], ids=["call", "answer"])
@pytest.mark.parametrize("method", ["report", "get_desired", "heartbeat"])
def test_invariant_12_a_lost_call_or_answer_delays_and_changes_nothing(
    world: World, wired: tuple[Vm, Vm], method: str, answer: bool
) -> None:
    web, db = wired
    world.bus.lose(method, answer=answer)
    other = change(world, web)
    wait_until(lambda: world.bus.lost(method) == 1, 10, f"a {method} is lost")
    check(world, web, db, other)


@pytest.mark.parametrize("method", ["ports_changed", "security_groups_changed"])
def test_invariant_12_a_lost_cast_is_repaired(
    world: World, wired: tuple[Vm, Vm], method: str
) -> None:
    web, db = wired
    world.bus.lose(method)
    other = change(world, web)
    wait_until(lambda: world.bus.lost(method) == 1, 10, f"a {method} is lost")
    check(world, web, db, other)


@pytest.mark.parametrize("answer", [False, True], ids=["call", "answer"])
def test_invariant_12_a_repair_whose_own_call_is_lost_is_repeated(
    world: World, wired: tuple[Vm, Vm], answer: bool
) -> None:
    web, db = wired
    # Of the first web server's port, which nothing else brings: neither a cast that it has changed
    # nor one that its report is late.
    world.bus.lose("ports_changed", times=EVER)
    world.bus.lose("resync", times=EVER)
    world.bus.lose("get_revisions", answer=answer)
    other = change(world, web)
    wait_until(lambda: world.bus.lost("get_revisions") == 1, 10, "a get_revisions is lost")
    check(world, web, db, other)


def test_invariant_12_a_host_that_receives_no_cast_at_all_converges(
    world: World, wired: tuple[Vm, Vm]
) -> None:
    web, db = wired
    for cast in CASTS:
        world.bus.lose(cast, times=EVER)
    other = change(world, web)
    check(world, web, db, other)
    # A group is left, a port is deleted, and one that has no interface is bound.
    world.declare(web, world.web)
    world.api.delete("ports", other.port_id)
    absent = world.boot("absent", world.web)
    world.api.wait_port(absent.port_id, 20, sync_state="ABSENT")
    wait_until(lambda: not other.connect(db.ip, 5432), 20, "a deleted port is closed")
    world.in_sync(web, db)
    assert not absent.connect(db.ip, 5432)
    world.idle()


def test_invariant_12_an_agent_that_was_silent_reports_again_although_it_is_never_asked(
    world: World, wired: tuple[Vm, Vm]
) -> None:
    web, db = wired
    world.bus.lose("resync", times=EVER)
    world.bus.lose("heartbeat", times=EVER)
    for vm in wired:
        world.api.wait_port(vm.port_id, 20, sync_state="UNKNOWN")
    world.bus.lose("heartbeat", times=0)
    world.in_sync(web, db)
    assert world.bus.lost("resync") > 0


def test_an_absent_port_costs_no_questions(world: World, wired: tuple[Vm, Vm]) -> None:
    """It is bound here, has no interface and no flows: it is no lasting difference."""
    _, db = wired
    absent = world.boot("absent", world.db)
    world.api.wait_port(absent.port_id, 20, sync_state="ABSENT")
    # The group of the absent port changes; no port with flows is in it any more.
    world.declare(db, world.web)
    world.in_sync(db)
    world.cloud.group("db", [], world.db)
    world.idle()
    assert len(world.attempts(absent.port_id)) == 1
    assert world.api.port(absent.port_id)["sync_state"] == "ABSENT"
