"""Desired state has the meaning of Neutron's API."""

import pytest

from agent_flows.spec import DesiredState, NetworkSpec, NetworkType
from agent_flows.validation import Invalid
from lab import model

NETWORK = model.numbered_id(3, 1)


@pytest.mark.parametrize(
    ("protocol", "ethertype", "number"),
    [
        (None, "IPv4", None),
        ("any", "IPv6", None),
        ("icmp", "IPv4", 1),
        ("icmp", "IPv6", 58),
        ("ipv6-icmp", "IPv6", 58),
        ("tcp", "IPv4", 6),
        ("112", "IPv4", 112),
        (0, "IPv4", 0),
    ],
)
def test_a_protocol_is_a_name_or_a_number(
    protocol: object, ethertype: str, number: int | None
) -> None:
    group = model.group(model.ingress(protocol=protocol, ethertype=ethertype))
    assert group.rules[0].protocol_number == number


@pytest.mark.parametrize(
    ("owner", "trusted"),
    [("network:dhcp", True), ("network:router_interface", True), ("compute:nova", False)],
)
def test_a_port_of_the_network_itself_is_trusted(owner: str, trusted: bool) -> None:
    assert model.port(device_owner=owner).trusted is trusted


def test_icmp_type_0_is_a_type() -> None:
    group = model.group(model.ingress(protocol="icmp", port_range_min=0))
    assert group.rules[0].port_range_min == 0


def test_two_specs_of_one_port_are_refused() -> None:
    port = model.port()
    with pytest.raises(Invalid, match="twice"):
        DesiredState.of([port, port])


@pytest.mark.parametrize("name", ["dc1/leaf3", "provider net", "a:b", "é" * 64])
def test_a_physical_network_may_have_any_name_of_neutron(name: str) -> None:
    network = NetworkSpec(NETWORK, NetworkType.FLAT, physical_network=name)
    assert network.physical_network == name


@pytest.mark.parametrize(
    ("kind", "top"),
    [(NetworkType.VLAN, 4094), (NetworkType.VXLAN, 2**24 - 1), (NetworkType.GRE, 2**32 - 1)],
)
def test_a_segmentation_id_has_the_limit_of_its_type(kind: NetworkType, top: int) -> None:
    physical = "physnet1" if kind is NetworkType.VLAN else None
    assert NetworkSpec(NETWORK, kind, top, physical).segmentation_id == top
    with pytest.raises(ValueError, match=r"at most|less than or equal"):
        NetworkSpec(NETWORK, kind, top + 1, physical)
