"""Which ports the extension closes as soon as the agent speaks of them."""

import types
from typing import Any

from agent_flows.neutron.agent.port_events import Event, Gone, Here, Resync, arrived, to_close
from agent_flows.neutron.agent.quarantine import Closed

PORT = "00000000-0000-0000-0000-000000000001"
MAC = "fa:16:3e:00:00:01"


def details(**fields: Any) -> dict[str, Any]:
    return {
        "port_id": PORT, "mac_address": MAC, "local_vlan": 3, "network_type": "vxlan",
        "physical_network": None, "segmentation_id": 77, "allowed_address_pairs": [],
        "vif_port": types.SimpleNamespace(ofport=5), **fields,
    }  # fmt: skip


def closed(*events: Event) -> list[Closed]:
    return [to_close(each) for each in arrived(events)]


def test_a_port_is_closed_under_every_mac_it_may_use() -> None:
    pairs = [{"ip_address": "10.0.0.9", "mac_address": "FA:16:3E:00:00:09"},
             {"ip_address": "10.0.0.8"}]  # fmt: skip
    macs = frozenset({MAC, "fa:16:3e:00:00:09"})
    assert closed(Here(details(allowed_address_pairs=pairs))) == [Closed(PORT, 5, 3, macs)]


def test_on_a_physical_network_the_segments_tag_is_known() -> None:
    vlan = details(network_type="vlan", physical_network="physnet1")
    flat = details(network_type="flat", physical_network="physnet1", segmentation_id=None)
    assert [each.segment for each in closed(Here(vlan))] == [77]
    assert [each.segment for each in closed(Here(flat))] == [0]


def test_without_a_local_vlan_the_ofport_is_closed() -> None:
    assert closed(Here(details(local_vlan=None))) == [Closed(PORT, 5)]


def test_a_mac_that_is_not_one_stations_is_left_out_and_the_others_are_closed() -> None:
    pairs = [{"ip_address": "10.0.0.9", "mac_address": each}
             for each in ("output:1", "03:bf:c0:00:02:64", "fa:16:3e:00:00:09")]  # fmt: skip
    [found] = closed(Here(details(allowed_address_pairs=pairs)))
    assert found == Closed(PORT, 5, 3, frozenset({MAC, "fa:16:3e:00:00:09"}))
    [found] = closed(Here(details(mac_address="output:1")))
    assert found == Closed(PORT, 5, 3)


def test_what_has_gone_again_is_not_closed() -> None:
    assert closed(Here(details()), Gone(PORT), Resync(None)) == []
    assert closed(Gone(PORT), Here(details())) == [Closed(PORT, 5, 3, frozenset({MAC}))]
