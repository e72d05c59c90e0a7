"""The documentation's worked example is what a real switch does."""

import re
from collections.abc import Iterator

import pytest

from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.pipeline import Table
from agent_flows.secgroups.firewall import Firewall
from doc import example
from lab.switch import Switch

BRIDGE = "br-example"


@pytest.fixture
def bridge(dummy_switch: Switch) -> Iterator[Switch]:
    dummy_switch.add_bridge(BRIDGE)
    for name, ofport in example.OFPORTS.items():
        dummy_switch.vsctl(
            "add-port", BRIDGE, name, "--", "set", "Interface", name, "type=dummy",
            f"ofport_request={ofport}",
        )  # fmt: skip
    firewall = Firewall(Ofctl(str(dummy_switch.run_dir), BRIDGE, 30))
    firewall.start()
    firewall.apply(example.state(), example.attachments())
    firewall.verify(example.attachments().keys())
    try:
        yield dummy_switch
    finally:
        dummy_switch.vsctl("del-br", BRIDGE)


def trace(switch: Switch, port: int) -> str:
    (web_mac, web), (db_mac, db) = example.ADDRESSES["web"], example.ADDRESSES["db"]
    packet = (
        f"in_port={example.OFPORTS['web']},tcp,dl_src={web_mac},dl_dst={db_mac},"
        f"nw_src={web},nw_dst={db},nw_ttl=64,tp_dst={port}"
    )
    return switch.appctl("ofproto/trace", BRIDGE, packet, "--ct-next", "trk,new")


def tables(traced: str) -> list[Table]:
    numbers = re.findall(r"^\s*(\d+)\. ", traced, re.MULTILINE)
    return [Table(int(number)) for number in numbers]


def test_the_allowed_connection_takes_the_way_the_page_tells(bridge: Switch) -> None:
    traced = trace(bridge, 5432)
    assert tuple(tables(traced))[: len(example.WAY)] == example.WAY
    assert f"output:{example.OFPORTS['db']}" in traced


def test_another_port_ends_where_the_rules_are(bridge: Switch) -> None:
    traced = trace(bridge, 5433)
    assert Table.ACCEPT_INGRESS not in tables(traced)
    assert "output" not in traced
