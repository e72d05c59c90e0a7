"""Each line as ovs-ofctl 3.1 prints it with --no-stats and --no-names."""

import pytest

from agent_flows.openflow import dump
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.pipeline import Register


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (" priority=3 actions=NORMAL", FlowEntry(0, 0, 3, "", "NORMAL")),
        (" table=5, actions=drop", FlowEntry(0, 5, 32768, "", "drop")),
        (" cookie=0x7, table=6, tcp actions=drop", FlowEntry(7, 6, 32768, "tcp", "drop")),
        (" cookie=0x8, table=7, idle_timeout=55, actions=drop", FlowEntry(8, 7, 32768, "", "drop")),
        (
            " cookie=0x7, table=5, idle_timeout=100, hard_timeout=1000, send_flow_rem reset_counts "
            "importance=4, priority=0,tcp actions=drop",
            FlowEntry(7, 5, 0, "tcp", "drop"),
        ),
        (
            " cookie=0x8, table=9, priority=77,in_port=4,vlan_tci=0x0000/0x1000 "
            "actions=pop_vlan,learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[])",
            FlowEntry(
                8, 9, 77, "in_port=4,vlan_tci=0x0000/0x1000",
                "pop_vlan,learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[])",
            ),
        ),
    ],
)  # fmt: skip
def test_dumped_flow_is_read(line: str, entry: FlowEntry) -> None:
    assert dump.read(line) == entry


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("-priority=3 actions=NORMAL", FlowEntry(0, 0, 3, "", "NORMAL")),
        ("-table=5  actions=drop", FlowEntry(0, 5, 32768, "", "drop")),
        ("+table=12  cookie=0x3 actions=drop", FlowEntry(3, 12, 32768, "", "drop")),
        (
            "-table=5 tcp cookie=0x7 idle_timeout=100 hard_timeout=1000 importance=4 actions=drop",
            FlowEntry(7, 5, 32768, "tcp", "drop"),
        ),
        (
            "+table=9 priority=77,in_port=4 cookie=0x8 actions=output:4",
            FlowEntry(8, 9, 77, "in_port=4", "output:4"),
        ),
    ],
)
def test_difference_is_read(line: str, entry: FlowEntry) -> None:
    found = dump.read_differences([line])
    assert found == (([entry], []) if line[0] == "-" else ([], [entry]))


def test_line_that_is_not_a_flow_is_refused() -> None:
    for line in ("NXST_FLOW reply (xid=0x4):", "what is this"):
        with pytest.raises(ValueError, match="no flow"):
            dump.read(line)
        with pytest.raises(ValueError, match=line.partition(" ")[0]):
            dump.read_differences([line])


def test_flow_is_shown_as_ovs_ofctl_takes_it() -> None:
    entry = FlowEntry(7, 5, 3, "tcp,reg5=0x2", "drop")
    assert str(entry) == "cookie=0x7,table=5,priority=3,tcp,reg5=0x2 actions=drop"
    assert FlowEntry(7, 5, 3, "", "drop").key == "table=5,priority=3"


@pytest.mark.parametrize(
    ("match", "ports"),
    [
        ("in_port=5", {5}),
        ("tcp,reg5=0x1f", {31}),
        ("reg5=0x5,in_port=7", {5, 7}),
        ("reg5=0x12/0xff", set()),
        ("in_port=LOCAL,reg15=7", set()),
        ("", set()),
    ],
)
def test_matched_ports(match: str, ports: set[int]) -> None:
    assert FlowEntry(0, 0, 0, match, "drop").matched_ports == ports


def test_receivers_are_outputs_and_the_ports_whose_rules_decide() -> None:
    actions = "output:7,load:0x5->NXM_NX_REG5[],set_field:6->reg5,load:0x9->NXM_NX_REG6[]"
    entry = FlowEntry(0, 0, 0, "", actions)
    assert entry.receivers == {5, 6, 7}
    assert entry.loaded(Register.NETWORK) == {9}


def test_number_of_a_field() -> None:
    entry = FlowEntry(0, 0, 0, "ip,conj_id=17,reg6=0x3,nw_src=10.0.0.0/24,vlan_tci=0x0/0xfff", "")
    assert [entry.number(name) for name in ("conj_id", "reg6", "vlan_tci", "ip", "tcp")] == [
        17, 3, None, None, None,
    ]  # fmt: skip
    assert entry.fields["nw_src"] == "10.0.0.0/24"
