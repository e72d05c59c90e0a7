"""The replica notifies its listener of the updates of python-ovs."""

import uuid
from types import SimpleNamespace

import pytest
from ovs.db import idl

from agent_flows.l2.replica import Replica


class Listener:
    def __init__(self):
        self.calls = []

    def interfaces_changed(self, port_ids):
        self.calls.append(("interfaces", port_ids))

    def wiring_changed(self, port_ids):
        self.calls.append(("wiring", port_ids))

    def bridges_changed(self):
        self.calls.append("bridges")

    def database_reloaded(self):
        self.calls.append("reload")


SCHEMA = {
    "name": "Open_vSwitch",
    "version": "8.3.0",
    "tables": {
        "Open_vSwitch": {"columns": {"cur_cfg": {"type": "integer"}}},
        "Bridge": {"columns": {"name": {"type": "string"}, "fail_mode": {"type": "string"}}},
        "Port": {"columns": {"name": {"type": "string"}}},
        "Interface": {"columns": {"name": {"type": "string"}}},
    },
}


@pytest.fixture
def replica(tmp_path):
    helper = idl.SchemaHelper(None, SCHEMA)
    helper.register_all()
    found = Replica(f"unix:{tmp_path}/none.sock", helper)
    found.listener = Listener()
    return found


def row(table, **columns):
    data = {name: SimpleNamespace(to_python=lambda _, v=v: v) for name, v in columns.items()}
    return SimpleNamespace(
        _table=SimpleNamespace(name=table),
        uuid=uuid.UUID(int=1),
        _data=data,
        _uuid_to_row=None,
        **columns,
    )


def test_reload_is_notified_even_with_an_update(replica):
    replica.notify("create", row("Open_vSwitch", cur_cfg=1))
    replica.notify("update", row("Open_vSwitch", cur_cfg=2), row("Open_vSwitch", cur_cfg=1))
    replica.run()
    assert replica.listener.calls == ["reload"]
    replica.run()
    assert replica.listener.calls == ["reload"]


def test_fail_mode_changed_and_changed_back_is_notified_and_counted(replica):
    bridge = row("Bridge", name="br-int", fail_mode="secure")
    replica.notify("create", bridge)
    replica.notify("update", bridge, row("Bridge", fail_mode="secure"))
    replica.notify("update", bridge, row("Bridge", fail_mode="standalone"))
    replica.run()
    assert replica.listener.calls == ["bridges"]
    assert replica.content.makes(bridge) == 2


def test_other_column_of_a_bridge_is_not_counted(replica):
    bridge = row("Bridge", name="br-int", fail_mode="secure")
    replica.notify("create", bridge)
    replica.notify("update", bridge, row("Bridge", name="br-int"))
    assert replica.content.makes(bridge) == 0


PORT_ID = "0a1b2c3d-0000-4000-8000-000000000001"
OPENED = {"ofport": [7], "error": [], "admin_state": ["up"], "mtu": [1500]}


def interface(**columns):
    defaults = {"name": "tap1", "type": "", "external_ids": {"iface-id": PORT_ID}, **OPENED}
    made = row("Interface", **{**defaults, **columns})
    made.uuid = uuid.UUID(int=2)
    return made


def port(**columns):
    made = row("Port", **{"name": "tap1", "tag": [], "other_config": {}, **columns})
    made.uuid = uuid.UUID(int=3)
    return made


def notified(replica, made, **old):
    """The calls after an update of the row of interface ``tap1``, or of its port."""
    table = made._table.name
    replica.notify("create", interface())
    replica.notify("create", port())
    replica.run()
    replica.listener.calls.clear()
    replica.notify("update", made, row(table, **old))
    replica.run()
    return replica.listener.calls


WIRING = [("wiring", frozenset({PORT_ID}))]
PLUGGED = [("interfaces", frozenset({PORT_ID}))]


@pytest.mark.parametrize(
    ("made", "old"),
    [
        (port(tag=[999]), {"tag": [1]}),
        (port(other_config={"tag": "7"}), {"other_config": {}}),
        (interface(admin_state=["down"]), {"admin_state": ["up"]}),
        (interface(mtu=[1400]), {"mtu": [1500]}),
        (interface(mtu=[]), {"mtu": [1500]}),
        (interface(ofport=[8]), {"ofport": [7]}),
        (interface(ofport=[-1], error=["gone"]), {"ofport": [7], "error": []}),
        (interface(error=["no room"]), {"error": []}),
    ],
)
def test_wiring_that_changed_is_no_plugging(replica, made, old):
    assert notified(replica, made, **old) == WIRING


@pytest.mark.parametrize(
    ("made", "old"),
    [
        (interface(), {"ofport": [], "admin_state": [], "mtu": []}),
        (interface(), {"ofport": [-1], "error": ["no such device"]}),
        (interface(ofport=[-1], error=["no such device"]), {"ofport": [], "error": []}),
        (interface(type="tap"), {"type": ""}),
        (interface(), {"external_ids": {}}),
        (interface(external_ids={}), {"external_ids": {"iface-id": PORT_ID}}),
    ],
)
def test_an_interface_that_came_went_or_was_opened_is_plugged(replica, made, old):
    if "external_ids" in old and not old["external_ids"]:
        replica.notify("create", interface(external_ids={}))
        replica.notify("create", port())
        replica.run()
        replica.notify("update", made, row("Interface", **old))
        replica.run()
        assert replica.listener.calls == PLUGGED
    else:
        assert notified(replica, made, **old) == PLUGGED


@pytest.mark.parametrize(
    ("made", "old"),
    [
        (interface(mtu_request=[1500]), {"mtu_request": []}),
        (
            interface(external_ids={"iface-id": PORT_ID, "iface-status": "active"}),
            {"external_ids": {"iface-id": PORT_ID}},
        ),
        (interface(options={"n": "1"}), {"options": {}}),
    ],
)
def test_a_column_that_no_port_depends_on_notifies_of_nothing(replica, made, old):
    assert notified(replica, made, **old) == []
