"""A flow as Neutron's driver writes it and as ovs-ofctl prints it: the same, or another."""

from typing import Any

import pytest

from agent_flows.neutron.verify.canonical_flow import effect, installed, key_of, texts
from agent_flows.openflow import dump

FLOW: dict[str, Any] = {"table": 82, "priority": 77, "actions": "output:5"}


@pytest.mark.parametrize(
    ("written", "printed"),
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
def test_both_notations_of_a_match_are_equal(written: dict[str, Any], printed: str) -> None:
    line = f" cookie=0x7e07, table=82, priority=77,{printed} actions=output:5"
    assert installed(dump.read(line)).key == key_of(FLOW | written)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ({"reg_port": 5}, "reg5=0x6"),
        ({"ct_state": "+est"}, "ct_state=-est"),
        ({"dl_type": 0x0800, "nw_proto": 6, "tcp_dst": "0x0050"}, "tcp,tp_src=80"),
        ({"dl_type": 0x0800, "nw_proto": 6}, "tcp6"),
        ({"dl_type": 0x0800, "nw_src": "10.0.0.0/25"}, "ip,nw_src=10.0.0.0/24"),
    ],
)
def test_another_match_is_not_equal(written: dict[str, Any], printed: str) -> None:
    line = f"cookie=0x7e07, table=82, priority=77,{printed} actions=output:5"
    assert installed(dump.read(line)).key != key_of(FLOW | written)


def test_key_contains_table_and_priority() -> None:
    line = "cookie=0x1, table=82, priority=77,ip actions=drop"
    assert installed(dump.read(line)).key == key_of(FLOW | {"dl_type": 0x0800})
    assert installed(dump.read(line.replace("82", "72"))).key != key_of(FLOW | {"dl_type": 0x0800})
    assert installed(dump.read(line.replace("77", "76"))).key != key_of(FLOW | {"dl_type": 0x0800})


@pytest.mark.parametrize(
    ("written", "printed"),
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
def test_both_notations_of_actions_are_equal(written: str, printed: str) -> None:
    assert effect(written) == effect(printed) != frozenset()


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
def test_other_actions_are_not_equal(one: str, other: str) -> None:
    assert effect(one) != effect(other)


def test_texts_show_flows_as_ovs_ofctl_prints_them() -> None:
    key = key_of(FLOW | {"dl_type": 0x0800, "nw_proto": 6, "tcp_dst": "0x50/0xfff0"})
    assert list(texts([key])) == [
        "table=82,priority=77,dl_type=0x800,nw_proto=0x6,tp_dst=0x50/0xfff0"
    ]
