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
