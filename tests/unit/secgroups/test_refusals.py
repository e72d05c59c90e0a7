"""Errors of ovs-ofctl, as version 3.1 prints them, and the ports that they blame."""

from agent_flows.engine.task import PortErrors, TaskFailed
from agent_flows.openflow.ofctl import SwitchUnreachable, error_from
from agent_flows.secgroups.blame import blame
from agent_flows.secgroups.installed import Installed
from agent_flows.secgroups.plan import Plan

TABLE_FULL = """\
Error OFPFMFC_TABLE_FULL for: OFPT_FLOW_MOD (OF1.4) (xid=0x7): ADD table:82 priority=74,tcp,\
reg5=0x2,tp_dst=80 cookie:0xaf10010000040002 actions=drop
Error OFPBFC_MSG_FAILED for: OFPT_BUNDLE_CONTROL (OF1.4) (xid=0xc):
 bundle_id=0 type=COMMIT_REQUEST flags=atomic ordered
ovs-ofctl: talking to unix:/run/br-int.mgmt (Protocol error)
"""
UNREADABLE = "ovs-ofctl: -:3: unknown keyword foo\n"
NOT_THERE = "ovs-ofctl: connecting to unix:/nonexistent (No such file or directory)\n"

PLAN = Plan(
    [
        "delete cookie=0xaf10010000040001/0xffffffffffffffff",
        "add cookie=0xaf10010000040002,table=82 actions=drop",
        "add cookie=0xaf10010000050001,table=82 actions=drop",
    ],
    [{"four"}, {"four"}, {"five"}],
    Installed(),
)


def test_refused_flow_is_identified_by_its_cookie() -> None:
    (refusal,) = error_from(TABLE_FULL).refusals
    assert refusal.error == "OFPFMFC_TABLE_FULL"
    assert refusal.cookie == 0xAF10010000040002
    assert refusal.text.startswith("Error OFPFMFC_TABLE_FULL for: OFPT_FLOW_MOD")


def test_refused_flow_blames_its_port() -> None:
    error = blame(error_from(TABLE_FULL), PLAN)
    assert isinstance(error, PortErrors)
    assert list(error.errors) == ["four"]
    assert error.errors["four"].type == "FlowRefused"
    assert "OFPFMFC_TABLE_FULL" in error.errors["four"].message
    assert "tp_dst=80" in error.errors["four"].detail


def test_unreadable_line_blames_its_port() -> None:
    error = blame(error_from(UNREADABLE), PLAN)
    assert isinstance(error, PortErrors)
    assert list(error.errors) == ["five"]
    assert "unknown keyword" in error.errors["five"].message


def test_refused_flow_of_no_port_blames_no_port() -> None:
    error = blame(error_from(TABLE_FULL.replace("40002", "70002")), PLAN)
    assert isinstance(error, TaskFailed)
    assert not error.whole_batch


def test_switch_without_a_socket_is_unreachable() -> None:
    assert isinstance(error_from(NOT_THERE), SwitchUnreachable)


def test_other_message_is_kept() -> None:
    error = error_from("ovs-ofctl: something new\n")
    assert not isinstance(error, SwitchUnreachable)
    assert error.message == "ovs-ofctl: something new"
    assert error_from("").message
