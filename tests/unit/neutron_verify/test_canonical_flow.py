"""What Neutron's driver words and what ovs-ofctl prints is the same flow, or it is not."""

from typing import Any

import pytest

from agent_flows.neutron.verify.canonical_flow import effect, key_of, read, texts

FLOW: dict[str, Any] = {"table": 82, "priority": 77, "actions": "output:5"}


@pytest.mark.parametrize(
    ("worded", "printed"),
    [
        ({"dl_type": 0x0800, "nw_proto": 6, "reg_port": 5, "tcp_dst": "0x0050"},
         "tcp,reg5=0x5,tp_dst=80"),
        ({"dl_type": 0x86DD, "nw_proto": 17, "udp_src": "0x0400/0xfc00"},
         "udp6,tp_src=0x400/0xfc00"),
        ({"dl_type": 0x86DD, "nw_proto": 58, "icmp_type": 135, "nd_target": "2001:DB8::0:1"},
         "icmp6,icmp_type=135,nd_target=2001:db8::1"),
        ({"dl_type": 0x0800, "nw_proto": 58}, "ip,nw_proto=58"),
        ({"dl_type": "0x0800", "nw_src": "10.0.0.7/24"}, "ip,nw_src=10.0.0.0/24"),
        ({"dl_type": 0x0800, "nw_src": "0.0.0.0/0", "reg_net": 3}, "ip,reg6=0x3"),
        ({"dl_type": 0x0806, "arp_spa": "10.0.0.7"}, "arp,arp_spa=10.0.0.7"),
        ({"dl_dst": "FA:16:3E:00:00:01", "dl_vlan": "0x7"}, "dl_vlan=7,dl_dst=fa:16:3e:00:00:01"),
        ({"ct_state": "+trk+inv", "ct_mark": "0x1"}, "ct_state=+inv+trk,ct_mark=0x1"),
        ({"ct_state": "+est", "ct_zone": 7}, "ct_state=+est,ct_zone=7"),
        ({"vlan_tci": "0x0000/0x1fff"}, "vlan_tci=0x0000/0x1fff"),
        ({"conj_id": 17, "dl_type": 0x0800}, "conj_id=17,ip"),
        ({"dl_type": "0x88cc"}, "dl_type=0x88cc"),
    ],
)  # fmt: skip
def test_the_same_match_in_the_words_of_both(worded: dict[str, Any], printed: str) -> None:
    line = f" cookie=0x7e07, table=82, priority=77,{printed} actions=output:5"
    assert read(line).key == key_of(FLOW | worded)


@pytest.mark.parametrize(
    ("worded", "printed"),
    [
        ({"reg_port": 5}, "reg5=0x6"),
        ({"ct_state": "+est"}, "ct_state=-est"),
        ({"dl_type": 0x0800, "nw_proto": 6, "tcp_dst": "0x0050"}, "tcp,tp_src=80"),
        ({"dl_type": 0x0800, "nw_proto": 6}, "tcp6"),
        ({"dl_type": 0x0800, "nw_src": "10.0.0.0/25"}, "ip,nw_src=10.0.0.0/24"),
    ],
)
def test_another_match(worded: dict[str, Any], printed: str) -> None:
    line = f"cookie=0x7e07, table=82, priority=77,{printed} actions=output:5"
    assert read(line).key != key_of(FLOW | worded)


def test_a_flow_is_known_by_table_and_priority_too() -> None:
    line = "cookie=0x1, table=82, priority=77,ip actions=drop"
    assert read(line).key == key_of(FLOW | {"dl_type": 0x0800})
    assert read(line.replace("82", "72")).key != key_of(FLOW | {"dl_type": 0x0800})
    assert read(line.replace("77", "76")).key != key_of(FLOW | {"dl_type": 0x0800})


def test_flags_beside_the_match_are_no_part_of_it() -> None:
    plain = "cookie=0x1, table=71, priority=110,ct_state=+trk actions=ct_clear,resubmit(,71)"
    flagged = plain.replace("priority", "idle_timeout=5, reset_counts priority")
    assert read(flagged) == read(plain)


def test_a_flow_of_table_0_without_a_cookie_is_printed_without_either() -> None:
    flow = read(" priority=2,in_port=3 actions=drop")
    assert (flow.cookie, flow.key.table, flow.key.priority) == (0, 0, 2)


def test_what_is_no_flow_is_refused() -> None:
    with pytest.raises(ValueError, match="no flow"):
        read("NXST_FLOW reply (xid=0x4):")


@pytest.mark.parametrize(
    ("worded", "printed"),
    [
        ("set_field:5->reg5,set_field:1->reg6,resubmit(,71)",
         "set_field:0x5->reg5,set_field:0x1->reg6,resubmit(,71)"),
        ("set_field:5->reg5,resubmit(,81)", "load:0x5->NXM_NX_REG5[],resubmit(,81)"),
        ("ct(table=82,zone=NXM_NX_REG6[0..15])", "ct(table=82,zone=NXM_NX_REG6[0..15])"),
        ("mod_vlan_vid:1,normal", "set_field:4097->vlan_vid,NORMAL"),
        ("conjunction(16,2/2),conjunction(24,2/2)", "conjunction(24,2/2),conjunction(16,2/2)"),
        ("ct(commit,zone=NXM_NX_REG6[0..15],exec(set_field:0x1->ct_mark))",
         "ct(commit,zone=NXM_NX_REG6[0..15],exec(set_field:0x1->ct_mark))"),
    ],
)  # fmt: skip
def test_the_same_actions_in_the_words_of_both(worded: str, printed: str) -> None:
    assert effect(worded) == effect(printed) != frozenset()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("resubmit(,71)", "resubmit(,73)"),
        ("output:5", "output:6"),
        ("output:5", "drop"),
        ("set_field:5->reg5,resubmit(,81)", "set_field:6->reg5,resubmit(,81)"),
        ("conjunction(16,2/2)", "conjunction(17,2/2)"),
        ("conjunction(16,2/2)", "conjunction(16,1/2)"),
    ],
)
def test_other_actions(one: str, other: str) -> None:
    assert effect(one) != effect(other)


def test_people_are_shown_flows_in_ovs_ofctls_words() -> None:
    key = key_of(FLOW | {"dl_type": 0x0800, "nw_proto": 6, "tcp_dst": "0x50/0xfff0"})
    assert list(texts([key])) == [
        "table=82,priority=77,dl_type=0x800,nw_proto=0x6,tp_dst=0x50/0xfff0"
    ]
