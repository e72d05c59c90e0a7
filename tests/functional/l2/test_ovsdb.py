"""The connection to OVSDB: quick to notify, exact about failures, back after a restart."""

import threading
import uuid

import pytest

from agent_flows.engine.task import TaskFailed
from agent_flows.l2 import interfaces
from agent_flows.l2.bindings import Binding, Bindings
from agent_flows.l2.ovsdb import Ovsdb, OvsdbUnreachable
from agent_flows.l2.vswitchd import SwitchWatch
from lab import model
from lab.process import wait_until


class Recorder:
    def __init__(self):
        self.ports = []
        self.bridges = 0
        self.reloads = threading.Event()

    def interfaces_changed(self, port_ids):
        self.ports.append(port_ids)

    def wiring_changed(self, port_ids):
        """The tests are about plugging."""

    def bridges_changed(self):
        self.bridges += 1

    def database_reloaded(self):
        self.reloads.set()

    def all(self):
        return frozenset().union(*self.ports)


@pytest.fixture
def recorder(switch, ovsdb, bridges):
    listener = Recorder()
    connection = Ovsdb(switch.database, timeout=5)
    connection.start(listener)
    listener.ovsdb = connection
    yield listener
    connection.stop()


def id_of(name):
    """The id of a port that is plugged in as ``name``."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def plug(switch, *names, no_wait=False):
    words = ["--no-wait"] if no_wait else []
    for name in names:
        words += ["--", "add-port", "br-int", name, "--", "set", "Interface", name]
        words += ["type=internal", f"external_ids:iface-id={id_of(name)}"]
    switch.vsctl(*words)


def settled(ovsdb, port_id):
    found = interfaces.find(ovsdb, "br-int", [port_id])
    return found and found[port_id].is_settled


def test_ports_of_one_transaction_are_notified_at_once(switch, recorder):
    names = [f"p{n}" for n in range(30)]
    plug(switch, *names)
    wait_until(lambda: len(recorder.all()) == 30, 5, "all are notified")
    assert max(map(len, recorder.ports)) == 30
    assert len(recorder.ports) <= 4


def test_other_interfaces_and_statistics_are_not_notified(switch, recorder):
    switch.vsctl(
        "add-port", "br-int", "nobody", "--", "set", "Interface", "nobody", "type=internal"
    )
    plug(switch, "known")
    wait_until(
        lambda: settled(recorder.ovsdb, id_of("known")), 5, "the other is notified, with its ofport"
    )
    before = len(recorder.ports)
    switch.vsctl("set", "Open_vSwitch", ".", "other_config:stats-update-interval=5000")
    switch.vsctl("set", "Interface", "known", "bfd:enable=false")
    plug(switch, "last")
    wait_until(lambda: id_of("last") in recorder.all(), 5, "the last is notified")
    assert recorder.all() == {id_of("known"), id_of("last")}
    assert all(ports == {id_of("last")} for ports in recorder.ports[before:])


def test_removed_or_renamed_port_is_notified(switch, recorder):
    plug(switch, "one")
    wait_until(recorder.all, 5, "it is notified")
    switch.vsctl("set", "Interface", "one", "external_ids:iface-id=" + id_of("other"))
    wait_until(lambda: {id_of("one"), id_of("other")} in recorder.ports, 5, "both are notified")
    recorder.ports.clear()
    switch.vsctl("del-port", "one")
    wait_until(lambda: recorder.all() == {id_of("other")}, 5, "its end is notified")


def test_interface_of_a_port_is_found_by_its_id_on_its_bridge_only(switch, ovsdb, bridges):
    switch.add_bridge("br-other")
    plug(switch, "one")
    # The replica follows the database at its own pace.
    wait_until(lambda: settled(ovsdb, id_of("one")), 5, "an ofport")
    found = interfaces.find(ovsdb, "br-int", [id_of("one"), id_of("none")])
    assert found[id_of("one")].name == "one"
    assert found[id_of("one")].ofport == switch.ofport("one")
    assert list(found) == [id_of("one")]
    assert interfaces.find(ovsdb, "br-other", [id_of("one")]) == {}


def test_two_working_interfaces_of_one_port_are_an_error(switch, ovsdb, bridges):
    plug(switch, "one", "two")
    wait_until(lambda: settled(ovsdb, id_of("one")), 5, "an ofport")
    switch.vsctl("set", "Interface", "two", "external_ids:iface-id=" + id_of("one"))
    wait_until(
        lambda: interfaces.find(ovsdb, "br-int", [id_of("one")])[id_of("one")].error, 5, "the clash"
    )
    found = interfaces.find(ovsdb, "br-int", [id_of("one")])
    error = interfaces.missing([id_of("one")], found)[id_of("one")]
    assert "one and two" in error.message


def test_reading_returns_the_current_content(switch, ovsdb, bridges):
    def name_of(port):
        found = interfaces.find(ovsdb, "br-int", [port])
        return found[port].name if port in found else None

    plug(switch, "one")
    wait_until(lambda: name_of(id_of("one")) == "one", 5, "it carries its port")
    switch.vsctl("set", "Interface", "one", "external_ids:iface-id=" + id_of("other"))
    wait_until(lambda: name_of(id_of("other")) == "one", 5, "it carries another port")
    assert name_of(id_of("one")) is None
    # Gone and back in one transaction: another row of the same name.
    switch.vsctl(
        *("del-port", "one", "--", "add-port", "br-int", "one"),
        *(
            "--",
            "set",
            "Interface",
            "one",
            "type=internal",
            "external_ids:iface-id=" + id_of("one"),
        ),
    )
    wait_until(lambda: name_of(id_of("one")) == "one", 5, "it is the port it was")
    assert name_of(id_of("other")) is None
    switch.restart_ovsdb()
    switch.vsctl("--no-wait", "del-port", "one")
    wait_until(lambda: name_of(id_of("one")) is None, 15, "it is gone")


def ovsdb_keys(ovsdb, name):
    with ovsdb.reading() as content:
        row = content.row("Port", name)
        return set(row.other_config) if row is not None else None


def test_binding_a_port_keeps_keys_of_others(switch, ovsdb, bridges):
    plug(switch, "one")
    switch.vsctl("set", "Port", "one", "other_config:theirs=kept", "other_config:tag=7")
    wait_until(lambda: ovsdb_keys(ovsdb, "one") == {"theirs", "tag"}, 5, "it is known")
    network = model.network()
    bindings = Bindings(ovsdb)
    assert bindings.bind({id_of("one"): Binding("one", 5, network)}) == {"one"}
    assert switch.vsctl("get", "Port", "one", "tag") == "5"
    assert switch.vsctl("get", "Port", "one", "other_config:theirs") == "kept"
    assert switch.vsctl("get", "Port", "one", "other_config:tag") == '"5"'
    assert bindings.bind({id_of("one"): Binding("one", 5, network)}) == frozenset()


def test_missing_port_can_be_closed_but_not_bound(ovsdb, bridges):
    network = model.network()
    with pytest.raises(TaskFailed) as failed:
        Bindings(ovsdb).bind({id_of("ghost"): Binding("ghost", 5, network)})
    assert "ghost" in failed.value.error.detail
    Bindings(ovsdb).close(["ghost"])


def test_refused_transaction_is_an_error_with_its_message(ovsdb, bridges):
    with pytest.raises(TaskFailed) as failed:
        ovsdb.transact([ovsdb.api.add_br("br-int", may_exist=False)])
    assert failed.value.error.type == "OvsdbError"
    assert "br-int" in failed.value.error.detail


def test_missing_row_is_an_error(ovsdb, bridges):
    with pytest.raises(TaskFailed):
        ovsdb.transact([ovsdb.api.db_set("Port", "ghost", ("tag", 4), if_exists=False)])


def test_switch_that_does_not_act_is_a_timeout_of_the_whole_batch(switch, bridges):
    hasty = Ovsdb(switch.database, timeout=1)
    hasty.start()
    switch.stop_vswitchd()
    with pytest.raises(TaskFailed) as failed:
        hasty.settle()
    hasty.stop()
    assert failed.value.error.type == "Timeout"
    assert failed.value.whole_batch


def test_missing_database_is_unreachable(tmp_path):
    with pytest.raises(OvsdbUnreachable):
        Ovsdb(f"unix:{tmp_path}/none.sock", timeout=1).start()


def test_everything_is_read_again_after_a_restart_of_the_database(switch, recorder):
    plug(switch, "before")
    wait_until(recorder.all, 5, "it is notified")
    switch.restart_ovsdb()
    assert recorder.reloads.wait(15)
    plug(switch, "after", no_wait=True)
    wait_until(lambda: id_of("after") in recorder.all(), 5, "the new one is notified")


def lagging(ovsdb):
    try:
        ovsdb.check()
    except OvsdbUnreachable as exc:
        return str(exc)
    return ""


def test_database_that_does_not_answer_is_unreachable_and_blocks_no_caller(switch):
    ovsdb = Ovsdb(switch.database, timeout=1)
    assert not lagging(ovsdb)
    with switch.held_ovsdb(), pytest.raises(OvsdbUnreachable, match="no answer within 1 s"):
        ovsdb.start()
    assert switch.database in lagging(ovsdb)
    ovsdb.start()
    assert not lagging(ovsdb)
    ovsdb.stop()


def test_silent_database_is_noticed_within_five_seconds_and_so_is_its_return(
    switch, ovsdb, bridges
):
    assert not lagging(ovsdb)
    with switch.held_ovsdb():
        wait_until(lambda: lagging(ovsdb), 5, "it is known")
        with pytest.raises(TaskFailed) as failed:
            ovsdb.transact([ovsdb.api.db_set("Bridge", "br-int", ("external_ids", {"a": "b"}))])
        assert failed.value.whole_batch
    wait_until(lambda: not lagging(ovsdb), 10, "it is back")
    ovsdb.transact([ovsdb.api.db_set("Bridge", "br-int", ("external_ids", {"a": "b"}))])


def test_ended_database_is_noticed_within_five_seconds_and_so_is_its_return(switch, ovsdb):
    switch.stop_ovsdb()
    assert "ovsdb-server does not answer" in wait_until(lambda: lagging(ovsdb), 5, "it is known")
    switch.start_ovsdb()
    wait_until(lambda: not lagging(ovsdb), 10, "it is back")


def test_readers_wait_a_limited_time_for_a_busy_connection(ovsdb):
    held, enough = threading.Event(), threading.Event()

    def hold():
        with ovsdb.reading():
            held.set()
            enough.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    with pytest.raises(TaskFailed) as failed, ovsdb.reading():
        pass
    enough.set()
    thread.join()
    assert failed.value.error.type == "Timeout"


def test_listener_that_failed_is_notified_of_everything_again(switch, recorder):
    works = recorder.interfaces_changed

    def fails(port_ids):
        recorder.interfaces_changed = works
        raise ValueError("as the test wants it")

    recorder.interfaces_changed = fails
    plug(switch, "one")
    assert recorder.reloads.wait(10)
    wait_until(lambda: id_of("one") in recorder.all(), 5, "it is notified again")
    wait_until(lambda: not lagging(recorder.ovsdb), 5, "all is well again")


@pytest.mark.parametrize("end", ["stop_vswitchd", "kill_vswitchd"])
def test_every_kind_of_end_of_the_switch_is_noticed(switch, bridges, end):
    back = threading.Event()
    watch = SwitchWatch(str(switch.run_dir), "br-int", back.set)
    watch.start()
    getattr(switch, end)()
    assert not back.is_set()
    switch.start_vswitchd()
    assert back.wait(10)
    watch.stop()


def test_replaced_bridge_is_noticed(switch, bridges):
    back = threading.Event()
    watch = SwitchWatch(str(switch.run_dir), "br-int", back.set)
    watch.start()
    switch.vsctl("del-br", "br-int")
    switch.add_bridge("br-int")
    assert back.wait(10)
    watch.stop()
