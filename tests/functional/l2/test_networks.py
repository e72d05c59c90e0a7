"""Local VLANs that are never two networks', and zones that are empty for who comes next."""

import dataclasses

import pytest

from agent_flows.engine.task import TaskFailed
from agent_flows.l2.networks import Networks
from agent_flows.l2.vlans import VlanRecords
from agent_flows.openflow import ofctl as tool
from agent_flows.openflow.ofctl import Ofctl, Ran
from lab import model
from lab.process import wait_until
from lab.switch import Switch

KEY = "agent-flows-vlan-"


@pytest.fixture
def switch():
    """With packets that are injected, and conntrack for them."""
    with Switch("dummy", dummy=True) as running:
        yield running


class Tool:
    """ovs-ofctl, which may fail as the test wants it."""

    def __init__(self):
        self.calls = []
        self.fails = lambda words: False

    def __call__(self, argv, stdin, *rest, **more):
        words = [*argv, *stdin.splitlines()]
        self.calls.append(words)
        if self.fails(words):
            return Ran("", "ovs-ofctl: as the test wants it", 1)
        return tool.execute(argv, stdin, *rest, **more)


@pytest.fixture
def ofctl():
    return Tool()


@pytest.fixture
def make(switch, ovsdb, bridges, ofctl):
    """Networks as a new process has them."""

    def made():
        return Networks(
            VlanRecords(ovsdb, "br-int"),
            bridges,
            lambda bridge: Ofctl(str(switch.run_dir), bridge, 10, ofctl),
        )

    return made


@pytest.fixture
def networks(make):
    return make()


def port(network=None, *addresses):
    return model.port(network=network or model.network(), fixed_ips=addresses)


def provision(networks, *ports):
    given = networks.provision({each.id: each for each in ports})
    return [given[each.id] for each in ports]


def records(switch):
    words = switch.vsctl("get", "Bridge", "br-int", "external_ids").strip("{}").split(", ")
    pairs = dict(word.split("=") for word in words if word)
    return {k.removeprefix(KEY): v.strip('"') for k, v in pairs.items() if k.startswith(KEY)}


def seen(ovsdb, check):
    """Until our replica of the database has it."""

    def follows():
        with ovsdb.reading() as content:
            return check(content.row("Bridge", "br-int").external_ids)

    wait_until(follows, 5, "the replica follows")


def clear(switch, ovsdb):
    switch.vsctl("clear", "Bridge", "br-int", "external_ids")
    seen(ovsdb, lambda ids: not ids)


def carry(switch, ovsdb, name, network, tag):
    """A port that an older process bound to a local VLAN."""
    switch.vsctl(
        "add-port", "br-int", name, f"tag={tag}", "--", "set", "Port", name,
        f"other_config:net_uuid={network}", f"other_config:tag={tag}",
    )  # fmt: skip

    def known():
        with ovsdb.reading() as content:
            row = content.row("Port", name)
            return row is not None and list(row.tag) == [tag] and "tag" in row.other_config

    wait_until(known, 5, "the port is known")


def test_cleared_records_do_not_join_networks(switch, ovsdb, networks):
    one, two = port(), port()
    (first,) = provision(networks, one)
    clear(switch, ovsdb)
    (second,) = provision(networks, two)
    assert first != second
    assert provision(networks, one, two) == [first, second]
    assert records(switch) == {one.network.id: str(first), two.network.id: str(second)}


def test_cleared_records_are_restored_without_a_port(switch, ovsdb, networks):
    one = port()
    (vlan,) = provision(networks, one)
    clear(switch, ovsdb)
    networks.mend_records()
    assert records(switch) == {one.network.id: str(vlan)}


@pytest.mark.parametrize("value", ["77", "nonsense", "0", "4095", "-1", "99999"])
def test_changed_record_moves_no_port(switch, ovsdb, networks, value):
    one = port()
    (vlan,) = provision(networks, one)
    switch.vsctl("set", "Bridge", "br-int", f'external_ids:{KEY}{one.network.id}="{value}"')
    seen(ovsdb, lambda ids: ids[KEY + one.network.id] == value)
    assert provision(networks, one) == [vlan]
    assert records(switch) == {one.network.id: str(vlan)}


def test_record_that_claims_the_vlan_of_another_network_is_dropped(switch, ovsdb, networks):
    one, two = port(), port()
    (first,) = provision(networks, one)
    switch.vsctl("set", "Bridge", "br-int", f'external_ids:{KEY}{two.network.id}="{first}"')
    seen(ovsdb, lambda ids: KEY + two.network.id in ids)
    networks.mend_records()
    assert records(switch) == {one.network.id: str(first)}
    (second,) = provision(networks, two)
    assert second != first


def test_two_records_of_one_vlan_become_two_vlans_after_a_restart(switch, ovsdb, make):
    one, two = port(), port()
    for each in (one, two):
        switch.vsctl("set", "Bridge", "br-int", f'external_ids:{KEY}{each.network.id}="7"')
    seen(ovsdb, lambda ids: len(ids) == 2)
    given = provision(make(), one, two)
    assert 7 in given
    assert len(set(given)) == 2
    assert sorted(records(switch).values()) == sorted(map(str, given))


def test_tags_of_ports_replace_lost_records_after_a_restart(switch, ovsdb, make):
    one, two = port(), port()
    carry(switch, ovsdb, "p1", one.network.id, 1)
    clear(switch, ovsdb)
    restarted = make()
    (second,) = provision(restarted, two)
    assert second != 1
    assert provision(restarted, one) == [1]


def test_tag_without_a_network_is_not_given(switch, ovsdb, networks):
    switch.vsctl("add-port", "br-int", "theirs", "tag=1")

    def known():
        with ovsdb.reading() as content:
            row = content.row("Port", "theirs")
            return row is not None and list(row.tag) == [1]

    wait_until(known, 5, "the port is known")
    assert provision(networks, port()) == [2]


def test_freed_vlan_is_not_given_at_once(networks):
    one = port()
    (first,) = provision(networks, one)
    networks.release([one.id])
    (second,) = provision(networks, port())
    assert second != first


def test_network_whose_flows_could_not_be_removed_is_removed_later(switch, networks, ofctl):
    one = port()
    (vlan,) = provision(networks, one)
    ofctl.fails = lambda words: "--bundle" in words
    with pytest.raises(TaskFailed):
        networks.release([one.id])
    assert records(switch) == {one.network.id: str(vlan)}
    assert networks.vlans() == {one.network.id: vlan}
    ofctl.fails = lambda words: False
    networks.release([one.id])
    assert records(switch) == {}
    assert networks.vlans() == {}


def test_tool_that_cannot_be_run_fails_the_whole_batch(networks, monkeypatch):
    monkeypatch.setattr(tool, "_OFCTL", ("/nonexistent/ovs-ofctl",))
    with pytest.raises(TaskFailed) as failed:
        provision(networks, port(), port())
    assert failed.value.whole_batch


# Connections: a packet of UDP that conntrack keeps in a zone.


@pytest.fixture
def connect(switch, bridges):
    switch.vsctl("add-port", "br-int", "in", "--", "set", "Interface", "in", "type=dummy")

    def connected(zone, source, destination):
        v6 = ":" in source
        switch.ofctl(
            "add-flow",
            switch.management("br-int"),
            f"{'ipv6' if v6 else 'ip'} actions=ct(commit,zone={zone})",
        )
        ip = (
            f"eth_type(0x86dd),ipv6(src={source},dst={destination},label=0,proto=17,tclass=0,"
            "hlimit=64,frag=no)"
            if v6
            else f"eth_type(0x0800),ipv4(src={source},dst={destination},proto=17,tos=0,ttl=64,"
            "frag=no)"
        )
        ends = "eth(src=fa:16:3e:00:00:01,dst=fa:16:3e:00:00:02)"
        switch.appctl(
            "netdev-dummy/receive", "in", f"in_port(1),{ends},{ip},udp(src=5000,dst=6000)"
        )
        wait_until(lambda: source in connections(switch, zone), 5, "conntrack has it")

    return connected


def connections(switch, zone):
    return "\n".join(
        line
        for line in switch.appctl("dpctl/dump-conntrack").splitlines()
        if line.endswith(f"zone={zone}") or f"zone={zone}," in line
    )


def test_zone_of_a_removed_network_is_empty(switch, networks, connect):
    one = port(None, "10.0.0.1")
    (vlan,) = provision(networks, one)
    connect(vlan, "10.0.0.1", "10.0.0.2")
    networks.release([one.id])
    assert connections(switch, vlan) == ""


def test_zone_with_connections_of_an_older_process_is_emptied_before_use(switch, make, connect):
    connect(1, "10.0.0.1", "10.0.0.2")
    assert provision(make(), port()) == [1]
    assert connections(switch, 1) == ""


def test_zones_emptied_ahead_cost_the_first_port_of_a_network_no_call(networks, ofctl):
    networks.empty_ahead()
    assert sum("ct-flush" in words for words in ofctl.calls) == 4
    ofctl.calls.clear()
    networks.empty_ahead()
    provision(networks, port(), port())
    assert not any("ct-flush" in words for words in ofctl.calls)
    networks.empty_ahead()
    assert sum("ct-flush" in words for words in ofctl.calls) == 2


def test_zone_of_a_network_known_only_from_ports_is_not_emptied_ahead(switch, ovsdb, make, connect):
    one = port()
    carry(switch, ovsdb, "p1", one.network.id, 1)
    connect(1, "10.0.0.1", "10.0.0.2")
    make().empty_ahead()
    assert "10.0.0.1" in connections(switch, 1)


def test_network_keeps_its_connections_over_a_restart_of_the_agent(switch, make, connect):
    one = port(None, "10.0.0.1")
    (vlan,) = provision(make(), one)
    connect(vlan, "10.0.0.1", "10.0.0.2")
    assert provision(make(), one) == [vlan]
    assert "10.0.0.1" in connections(switch, vlan)


@pytest.mark.parametrize("own", ["10.0.0.1", "2001:db8::1"])
def test_only_connections_of_a_removed_port_end_in_both_directions(switch, networks, connect, own):
    net = model.network()
    leaves, stays = port(net, own), port(net, "10.0.0.9")
    vlan, _ = provision(networks, leaves, stays)
    other = "2001:db8::2" if ":" in own else "10.0.0.2"
    connect(vlan, own, other)
    connect(vlan, other, own)
    connect(vlan, "10.0.0.9", "10.0.0.8")
    networks.release([leaves.id])
    left = connections(switch, vlan)
    assert f"src={own}," not in left
    assert f"dst={own}," not in left
    assert "10.0.0.9" in left


def test_removed_address_loses_its_connections(switch, networks, connect):
    one = port(None, "10.0.0.1", "10.0.0.3")
    (vlan,) = provision(networks, one)
    connect(vlan, "10.0.0.1", "10.0.0.2")
    connect(vlan, "10.0.0.3", "10.0.0.2")
    provision(networks, dataclasses.replace(one, revision=2, fixed_ips=("10.0.0.3",)))
    left = connections(switch, vlan)
    assert "10.0.0.1" not in left
    assert "10.0.0.3" in left


def test_shared_address_keeps_its_connections_until_the_last_port_is_gone(
    switch, networks, connect
):
    net = model.network()
    one, two, three = port(net, "10.0.0.1"), port(net, "10.0.0.1"), port(net, "10.0.0.9")
    vlan, *_ = provision(networks, one, two, three)
    connect(vlan, "10.0.0.1", "10.0.0.2")
    networks.release([one.id])
    assert "10.0.0.1" in connections(switch, vlan)
    networks.release([two.id])
    assert "10.0.0.1" not in connections(switch, vlan)


def test_release_whose_connections_could_not_be_ended_is_repeated(switch, networks, connect, ofctl):
    net = model.network()
    one, two = port(net, "10.0.0.1"), port(net, "10.0.0.9")
    vlan, _ = provision(networks, one, two)
    connect(vlan, "10.0.0.1", "10.0.0.2")
    ofctl.fails = lambda words: "ct-flush" in words
    with pytest.raises(TaskFailed):
        networks.release([one.id])
    ofctl.fails = lambda words: False
    networks.release([one.id])
    assert "10.0.0.1" not in connections(switch, vlan)


# The way out of the host.


@pytest.fixture
def provider(switch, ovsdb, bridges):
    switch.add_bridge("br-ex", fail_mode="standalone")
    ovsdb.settle()
    net = model.network("vlan", segmentation_id=100)
    return port(net)


def follow(bridges, before):
    wait_until(lambda: bridges.current_uplink("physnet1") != before, 5, "the replica follows")


def translated(switch):
    return [line for line in switch.flows("br-ex") if "dl_vlan" in line]


def inside(switch):
    return [line for line in switch.flows("br-int") if "dl_vlan=100" in line]


@pytest.mark.parametrize(
    "words",
    [
        ["set-fail-mode", "br-ex", "secure"],
        ["set-controller", "br-ex", "tcp:127.0.0.1:1"],
        ["set", "Interface", "phy-br-ex", "options:peer=elsewhere"],
        ["del-port", "phy-br-ex"],
        ["del-port", "int-br-ex"],
        ["set", "Interface", "int-br-ex", "ofport_request=77"],
        ["set", "Interface", "phy-br-ex", "ofport_request=77"],
        ["set", "Bridge", "br-ex", "protocols=OpenFlow10"],
        ["set", "Interface", "int-br-ex", "type=internal"],
    ],
    ids=" ".join,
)
def test_changed_uplink_is_repaired_with_its_flows(switch, bridges, networks, provider, words):
    (vlan,) = provision(networks, provider)
    before = bridges.current_uplink("physnet1")
    switch.vsctl(*words)
    follow(bridges, before)
    assert provision(networks, provider) == [vlan]
    uplink = bridges.current_uplink("physnet1")
    assert uplink is not None
    (out,) = translated(switch)
    assert f"in_port={uplink.peer_ofport},dl_vlan={vlan}" in out
    (way_in,) = inside(switch)
    assert f"in_port={uplink.ofport}" in way_in
    (closed,) = [line for line in switch.flows("br-ex") if "actions=drop" in line]
    assert f"in_port={uplink.peer_ofport} " in closed


def test_replaced_bridge_gets_patch_ports_and_flows(switch, ovsdb, bridges, networks, provider):
    provision(networks, provider)
    before = bridges.current_uplink("physnet1")
    switch.vsctl("del-br", "br-ex")
    follow(bridges, before)
    with pytest.raises(TaskFailed) as failed:
        networks.join("physnet1")
    assert failed.value.error.type == "BridgeNotFound"
    assert inside(switch) == [], "what is not translated must not get out"
    switch.add_bridge("br-ex", fail_mode="standalone")
    ovsdb.settle()
    assert networks.join("physnet1").made_of != before.made_of
    provision(networks, provider)
    assert len(translated(switch)) == len(inside(switch)) == 1


def test_deleted_flows_of_a_network_are_written_again_with_rewrite(switch, networks, provider):
    provision(networks, provider)
    switch.ofctl("del-flows", switch.management("br-ex"))
    switch.ofctl("del-flows", switch.management("br-int"), "dl_vlan=100")
    networks.provision({provider.id: provider}, rewrite=True)
    assert len(translated(switch)) == len(inside(switch)) == 1
    assert any(line.endswith("priority=0 actions=NORMAL") for line in switch.flows("br-ex"))


def test_network_is_removed_without_its_physical_bridge(switch, ovsdb, bridges, networks, provider):
    provision(networks, provider)
    before = bridges.current_uplink("physnet1")
    switch.vsctl("del-br", "br-ex")
    follow(bridges, before)
    networks.release([provider.id])
    assert records(switch) == {}
    assert inside(switch) == []
