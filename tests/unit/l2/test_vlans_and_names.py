"""Local VLANs, patch port names and the flows of a network: decided without a switch."""

import uuid

import hypothesis
import pytest
from hypothesis import strategies as st

from agent_flows.l2 import network_flows, vlans
from agent_flows.l2.bridges import Uplink, patch_names
from agent_flows.openflow import cookie
from agent_flows.spec import NetworkSpec, NetworkType

UPLINK = Uplink("physnet1", "br-ex", ofport=7, peer_ofport=3)


@hypothesis.given(
    taken=st.dictionaries(st.text("abc", min_size=1), st.integers(1, 4094), max_size=9),
    wanted=st.lists(st.text("abcdef", min_size=1), max_size=20),
)
def test_no_two_networks_share_a_vlan_and_none_changes_its_own(taken, wanted):
    taken = {network: vlan for vlan, network in {v: n for n, v in taken.items()}.items()}
    chosen = vlans.choose(taken, dict.fromkeys(wanted))
    assert not chosen.keys() & taken.keys()
    together = [*taken.values(), *chosen.values()]
    assert len(set(together)) == len(together)
    assert set(wanted) <= taken.keys() | chosen.keys()
    assert all(1 <= vlan <= 4094 for vlan in chosen.values())


def test_network_gets_no_vlan_when_all_are_in_use():
    taken = {f"net-{vlan}": vlan for vlan in vlans.VLANS}
    assert vlans.choose(taken, ["one-more"]) == {}
    del taken["net-17"]
    assert vlans.choose(taken, ["one-more", "and-another"]) == {"one-more": 17}


def test_first_source_of_a_vlan_counts():
    given, carried, recorded = {"a": 1}, {"a": 9, "b": 1, "c": 2}, {"b": 3, "c": 4, "d": 2, "e": 5}
    assert vlans.settle(given, carried, recorded) == {"a": 1, "c": 2, "b": 3, "e": 5}


@hypothesis.given(
    sources=st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 6)), max_size=4)
)
def test_settling_never_gives_two_networks_one_vlan(sources):
    settled = vlans.settle(*sources)
    assert len(set(settled.values())) == len(settled)
    if sources:
        claimed = list(sources[0].values())
        assert all(
            settled[network] == vlan
            for network, vlan in sources[0].items()
            if claimed.count(vlan) == 1
        )


def test_vlan_of_a_port_is_not_given_despite_the_records():
    assert vlans.choose({}, ["new"], busy={1, 2, 4}) == {"new": 3}


def test_vlan_freed_last_is_given_last():
    assert vlans.choose({"a": 7}, ["new"], after=6) == {"new": 8}
    assert vlans.choose({}, ["one", "two"], after=4093) == {"one": 4094, "two": 1}
    assert vlans.choose({}, ["new"], after=4094) == {"new": 1}


def test_patch_ports_are_named_as_neutron_names_them():
    # As neutron_lib.plugins.utils.get_interface_name does: six digits of the name's SHA-1.
    assert patch_names("br-ex") == ("int-br-ex", "phy-br-ex")
    assert patch_names("br-provider-one") == ("int-br-pr0ed082", "phy-br-pr0ed082")


@hypothesis.given(st.text("abcdefgh-0123456789", min_size=1, max_size=40))
def test_patch_port_names_fit_an_interface_name(bridge):
    near, far = patch_names(bridge)
    assert len(near) <= 15
    assert len(far) <= 15
    assert near != far


def network(kind, **more):
    return NetworkSpec(str(uuid.uuid4()), kind, **more)


def test_vlan_network_enters_and_leaves_with_its_segment():
    net = network(NetworkType.VLAN, physical_network="physnet1", segmentation_id=100)
    inside = network_flows.on_integration_bridge(net, 5, UPLINK)
    assert any("in_port=7,dl_vlan=100" in str(flow) for flow in inside)
    (out,) = network_flows.on_physical_bridge(net, 5, UPLINK)
    assert "in_port=3,dl_vlan=5" in str(out)
    assert f"set_field:{0x1000 | 100}->vlan_vid" in str(out)


def test_flat_network_is_the_untagged_traffic():
    net = network(NetworkType.FLAT, physical_network="physnet1")
    inside = network_flows.on_integration_bridge(net, 5, UPLINK)
    assert any("in_port=7,vlan_tci=0x0000/0x1000" in str(flow) for flow in inside)
    (out,) = network_flows.on_physical_bridge(net, 5, UPLINK)
    assert "strip_vlan" in str(out)


def test_local_network_has_no_uplink_flows():
    assert network_flows.on_integration_bridge(network(NetworkType.LOCAL), 5, None) == []


@pytest.mark.parametrize("vlan", [1, 4094])
def test_every_flow_of_a_network_has_its_cookie(vlan):
    net = network(NetworkType.FLAT, physical_network="physnet1")
    flows = network_flows.on_integration_bridge(net, vlan, UPLINK)
    removal, *lines = network_flows.replacement(flows, vlan)
    assert all(f"cookie={cookie.network(vlan):#x}," in line for line in lines)
    assert removal == network_flows.removal(vlan)
    assert f"{cookie.network(vlan):#x}" in removal


def test_nothing_untranslated_leaves_for_the_physical_network():
    dropped, rest = network_flows.base_of_physical_bridge(UPLINK)
    assert "in_port=3 actions=drop" in str(dropped)
    assert str(rest).endswith("priority=0 actions=NORMAL")
