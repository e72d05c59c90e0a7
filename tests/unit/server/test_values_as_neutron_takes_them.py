"""Names and values of Neutron are accepted, or refused with a plain reason."""

from typing import Any

import pytest

from lab.model import new_id
from lab.server_parts import Server

ID = new_id()
MAC = "fa:16:3e:00:00:01"


@pytest.mark.parametrize("name", ["dc1/leaf3", "provider net", "x", "é" * 64, "physnet_1.a-b"])
def test_a_physical_network_has_any_name_that_bridge_mappings_can_hold(
    server: Server, name: str
) -> None:
    server.put("networks", ID, network_type="flat", physical_network=name)
    assert server.show("networks", ID)["physical_network"] == name


@pytest.mark.parametrize("name", ["a:b", "a,b", " a", "a ", "", "x" * 65, "a\x1bb", "a\u202eb", 7])
def test_a_physical_network_that_no_mapping_can_name_is_refused(
    server: Server, name: object
) -> None:
    answer = server.try_put("networks", ID, network_type="flat", physical_network=name)
    assert answer.status_code == 400
    assert answer.json["error"]["field"] == "physical_network"


@pytest.mark.parametrize("host", ["Compute-7", "compute_7", "compute-7.", "_x", "10.0.0.7", "a@b"])
def test_a_port_is_bound_to_a_host_of_any_usual_name(
    server: Server, network: str, host: str
) -> None:
    server.put("ports", ID, network_id=network, mac_address=MAC, **{"binding:host_id": host})
    assert server.show("ports", ID)["binding:host_id"] == host


@pytest.mark.parametrize("host", ["a b", "a/b", "#", "*", "a\nb", "hôte", "x" * 256])
def test_a_host_that_no_topic_of_the_bus_can_name_is_refused_in_plain_words(
    server: Server, network: str, host: str
) -> None:
    answer = server.try_put(
        "ports", ID, network_id=network, mac_address=MAC, **{"binding:host_id": host}
    )
    assert answer.status_code == 400
    assert answer.json["error"]["field"] == "binding:host_id"
    assert "must be a host's name" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"protocol": "TCP"}, {"protocol": "tcp"}),
        ({"protocol": "6"}, {"protocol": "tcp"}),
        ({"protocol": 6}, {"protocol": "tcp"}),
        ({"protocol": "ANY"}, {"protocol": None}),
        ({"protocol": "IPv6-ICMP", "ethertype": "ipv6"}, {"ethertype": "IPv6"}),
        ({"ethertype": "ipv4"}, {"ethertype": "IPv4"}),
        (
            {"protocol": "Udp", "port_range_min": "53", "port_range_max": "53"},
            {"protocol": "udp", "port_range_min": 53, "port_range_max": 53},
        ),
    ],
)
def test_protocols_ethertypes_and_numbers_are_accepted_in_any_of_neutrons_spellings(
    server: Server, given: dict[str, Any], shown: dict[str, Any]
) -> None:
    server.put("security-groups", ID, security_group_rules=[{"direction": "ingress", **given}])
    (rule,) = server.show("security-groups", ID)["security_group_rules"]
    assert rule.items() >= shown.items()


@pytest.mark.parametrize("mac", ["00:00:00:00:00:00", "00-00-00-00-00-00", "ff:ff:ff:ff:ff:ff"])
@pytest.mark.parametrize("place", ["mac_address", "allowed_address_pairs.0.mac_address"])
def test_a_mac_address_that_no_interface_can_have_is_refused(
    server: Server, network: str, mac: str, place: str
) -> None:
    pair = {"ip_address": "10.0.0.9", "mac_address": mac}
    fields = (
        {"mac_address": mac}
        if place == "mac_address"
        else {"mac_address": MAC, "allowed_address_pairs": [pair]}
    )
    answer = server.try_put("ports", ID, network_id=network, **fields)
    assert answer.status_code == 400
    assert answer.json["error"]["field"] == place


@pytest.mark.parametrize(
    "name",
    [
        "\x1b[31mowned",
        "bell\x07",
        "two\nlines",
        "\x7f",
        "c1\x9b31m",
        "a\u202eb",
        "a\u2066b",
        "\u200f",
    ],
)
@pytest.mark.parametrize("collection", ["networks", "security-groups", "address-groups"])
def test_name_with_control_characters_is_refused(
    server: Server, collection: str, name: str
) -> None:
    fields = {"network_type": "local"} if collection == "networks" else {}
    answer = server.try_put(collection, ID, name=name, **fields)
    assert answer.status_code == 400
    assert answer.json["error"]["field"] == "name"
    assert "control characters" in answer.json["error"]["message"]
    assert answer.json["error"]["message"].isprintable()


@pytest.mark.parametrize("name", ["Größe", "数据库", "family 👨\u200d👩", "a\u00a0b"])
def test_a_name_in_any_script_is_accepted(server: Server, name: str) -> None:
    server.put("networks", ID, network_type="local", name=name)
    assert server.show("networks", ID)["name"] == name


def test_an_id_in_capitals_is_refused_in_plain_words(server: Server, network: str) -> None:
    answer = server.try_put("ports", ID, network_id=network.upper(), mac_address=MAC)
    assert answer.status_code == 400
    assert "network_id: must be a UUID in lower case" in answer.json["error"]["message"]
