"""Specs survive the wire unchanged, and nothing malformed gets in."""

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows import spec
from agent_flows.rpc import codec
from agent_flows.spec import (
    AddressGroupSpec,
    AddressPair,
    DesiredState,
    Direction,
    Ethertype,
    Member,
    NetworkSpec,
    NetworkType,
    PortSpec,
    SecurityGroupRule,
    SecurityGroupSpec,
)
from agent_flows.validation import Invalid

PORT = "4e8e5957-649f-477b-9e5b-f1f75b21c03c"
GROUP = "aa000000-0000-4000-8000-000000000001"
OTHER = "aa000000-0000-4000-8000-000000000002"
NETWORK = "bb000000-0000-4000-8000-000000000001"

ids = st.uuids().map(str)
revisions = st.integers(0, 2**62 - 1)
macs = st.lists(st.integers(0, 255), min_size=6, max_size=6).map(
    lambda octets: ":".join(f"{o:02x}" for o in [octets[0] & 0xFE, *octets[1:]])
)


@st.composite
def prefixes(draw: st.DrawFn, version: int | None = None) -> Any:
    address = draw(st.ip_addresses(v=version))
    length = draw(st.integers(0, address.max_prefixlen))
    return ipaddress.ip_network(f"{address}/{length}", strict=False)


@st.composite
def networks(draw: st.DrawFn) -> NetworkSpec:
    kind = draw(st.sampled_from(NetworkType))
    segment = None
    if kind is NetworkType.VLAN or kind.is_tunnel:
        segment = draw(st.integers(1, 2**24 - 1 if kind.is_tunnel else 4094))
    physical = kind in (NetworkType.FLAT, NetworkType.VLAN)
    return NetworkSpec(
        id=draw(ids),
        network_type=kind,
        segmentation_id=segment,
        physical_network="physnet1" if physical else None,
        mtu=draw(st.integers(68, 65535)),
    )


ports = st.builds(
    PortSpec,
    id=ids,
    revision=revisions,
    host=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}[a-z0-9]\Z"),
    network=networks(),
    mac_address=macs,
    fixed_ips=st.lists(st.ip_addresses(), max_size=4).map(tuple),
    allowed_address_pairs=st.lists(
        st.builds(AddressPair, ip_address=prefixes(), mac_address=st.none() | macs), max_size=3
    ).map(tuple),
    security_groups=st.lists(ids, max_size=3).map(tuple),
    port_security_enabled=st.booleans(),
    admin_state_up=st.booleans(),
    device_owner=st.text(
        max_size=30, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    ),
)


@st.composite
def rules(draw: st.DrawFn) -> SecurityGroupRule:
    ethertype = draw(st.sampled_from(Ethertype))
    protocol = draw(st.none() | st.sampled_from([1, 6, 17, 132, 47, 0, 255]))
    low = high = source_low = source_high = None
    if protocol in spec.PROTOCOLS_WITH_PORTS and draw(st.booleans()):
        low = draw(st.integers(1, 65535))
        high = draw(st.integers(low, 65535))
    if protocol in spec.PROTOCOLS_WITH_PORTS and draw(st.booleans()):
        source_low = draw(st.integers(1, 65535))
        source_high = draw(st.integers(source_low, 65535))
    elif protocol == spec.ICMP and draw(st.booleans()):
        low, high = draw(st.integers(0, 255)), draw(st.none() | st.integers(0, 255))
    remote = draw(st.sampled_from(["remote_ip_prefix", "remote_group_id", None]))
    remotes: dict[str, Any] = {}
    if remote == "remote_ip_prefix":
        remotes[remote] = draw(prefixes(ethertype.version))
    elif remote:
        remotes[remote] = draw(ids)
    return SecurityGroupRule(
        direction=draw(st.sampled_from(Direction)),
        ethertype=ethertype,
        protocol=protocol,
        port_range_min=low,
        port_range_max=high,
        source_port_range_min=source_low,
        source_port_range_max=source_high,
        **remotes,
    )


groups = st.builds(
    SecurityGroupSpec,
    id=ids,
    revision=revisions,
    stateful=st.booleans(),
    rules=st.lists(rules(), max_size=5).map(tuple),
    members=st.lists(
        st.builds(Member, address=prefixes(), mac_address=st.none() | macs), max_size=5
    ).map(tuple),
)
address_groups = st.builds(
    AddressGroupSpec, id=ids, addresses=st.lists(prefixes(), max_size=5).map(tuple)
)


@given(ports | groups | address_groups)
def test_a_spec_comes_back_from_json_as_it_was(value: spec.Spec) -> None:
    assert codec.spec_from_wire(json.loads(json.dumps(codec.to_wire(value)))) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
)


@given(json_values)
def test_anything_else_is_refused_and_never_a_crash(raw: object) -> None:
    with pytest.raises(Invalid):
        codec.spec_from_wire(raw)


def port(**changes: object) -> dict[str, Any]:
    return {
        "kind": "port",
        "version": "1.0",
        "id": PORT,
        "revision": 1,
        "host": "compute-1",
        "network": {"id": NETWORK, "network_type": "local"},
        "mac_address": "fa:16:3e:00:00:01",
        **changes,
    }


def group(*rules: dict[str, object], **changes: object) -> dict[str, Any]:
    return {
        "kind": "security_group",
        "version": "1.0",
        "id": GROUP,
        "revision": 1,
        "rules": list(rules),
        **changes,
    }


def ingress(**fields: object) -> dict[str, Any]:
    return group({"direction": "ingress", **fields})


REFUSED = [
    (port(colour="red"), "colour", "red"),
    (port(id="4E8E5957"), "id", "4E8E5957"),
    (port(revision="1"), "revision", "'1'"),
    (port(revision=-1), "revision", "-1"),
    (port(revision=True), "revision", "True"),
    (port(host="com pute"), "host", "com pute"),
    (port(host=""), "host", "''"),
    (port(mac_address="01:00:5e:00:00:01"), "mac_address", "01:00:5e:00:00:01"),
    (port(mac_address="nonsense"), "mac_address", "nonsense"),
    (port(fixed_ips=["10.0.0.256"]), "fixed_ips.0", "10.0.0.256"),
    (port(fixed_ips=["fe80::1%eth0"]), "fixed_ips.0", "fe80::1%eth0"),
    (port(admin_state_up="yes"), "admin_state_up", "yes"),
    (port(device_owner="x" * 256), "device_owner", "x" * 100),
    (port(network={"id": NETWORK, "network_type": "stt"}), "network.network_type", "stt"),
    (port(network={"id": NETWORK, "network_type": "gre"}), "network.segmentation_id", "None"),
    (
        port(network={"id": NETWORK, "network_type": "vxlan", "segmentation_id": 2**24}),
        "network.segmentation_id",
        "16777216",
    ),
    (
        port(
            network={
                "id": NETWORK,
                "network_type": "geneve",
                "segmentation_id": 5000,
                "physical_network": "p",
            }
        ),
        "network.physical_network",
        "p",
    ),
    (port(network={"id": NETWORK, "network_type": "vlan"}), "network.physical_network", "None"),
    (
        port(network={"id": NETWORK, "network_type": "vlan", "physical_network": "p"}),
        "network.segmentation_id",
        "None",
    ),
    (
        port(
            network={
                "id": NETWORK,
                "network_type": "vlan",
                "physical_network": "p",
                "segmentation_id": 4095,
            }
        ),
        "network.segmentation_id",
        "4095",
    ),
    (
        port(network={"id": NETWORK, "network_type": "flat", "physical_network": "x" * 65}),
        "network.physical_network",
        "x" * 65,
    ),
    (
        port(allowed_address_pairs=[{"ip_address": "10.0.0.1/24"}]),
        "allowed_address_pairs.0.ip_address",
        "10.0.0.1/24",
    ),
    (ingress(direction="sideways"), "rules.0.direction", "sideways"),
    (ingress(ethertype="IPv5"), "rules.0.ethertype", "IPv5"),
    (ingress(protocol="tpc"), "rules.0.protocol", "tpc"),
    (ingress(protocol=256), "rules.0.protocol", "256"),
    (ingress(protocol="icmpv6"), "rules.0.protocol", "58"),
    (ingress(port_range_min=1, port_range_max=2), "rules.0.port_range_min", "1"),
    (
        ingress(protocol="tcp", port_range_min=80, port_range_max=79),
        "rules.0.port_range_max",
        "79",
    ),
    (ingress(protocol="tcp", port_range_min=80), "rules.0.port_range_max", "None"),
    (
        ingress(protocol="udp", port_range_min=0, port_range_max=79),
        "rules.0.port_range_min",
        "0",
    ),
    (
        ingress(protocol="tcp", port_range_min=1, port_range_max=65536),
        "rules.0.port_range_max",
        "65536",
    ),
    (
        ingress(source_port_range_min=1, source_port_range_max=2),
        "rules.0.source_port_range_min",
        "1",
    ),
    (
        ingress(protocol="icmp", source_port_range_min=8, source_port_range_max=8),
        "rules.0.source_port_range_min",
        "8",
    ),
    (
        ingress(protocol="tcp", source_port_range_min=80, source_port_range_max=79),
        "rules.0.source_port_range_max",
        "79",
    ),
    (ingress(protocol="icmp", port_range_min=256), "rules.0.port_range_min", "256"),
    (ingress(protocol="icmp", port_range_max=0), "rules.0.port_range_min", "None"),
    (ingress(remote_ip_prefix="10.0.0.1/24"), "rules.0.remote_ip_prefix", "10.0.0.1/24"),
    (ingress(remote_ip_prefix="::/0"), "rules.0.remote_ip_prefix", "::/0"),
    (
        ingress(remote_ip_prefix="10.0.0.0/8", remote_group_id=OTHER),
        "rules.0.remote_group_id",
        OTHER,
    ),
    (group(stateful=1), "stateful", "1"),
    (
        {"kind": "address_group", "version": "1.0", "id": GROUP, "addresses": ["10.0.0.1/8"]},
        "addresses.0",
        "10.0.0.1/8",
    ),
    ({"kind": "router"}, "kind", "router"),
    (port(version="2.0"), "version", "2.0"),
    (port(version=None), "version", "None"),
    ([], "", "[]"),
]


@pytest.mark.parametrize(
    ("raw", "field", "value"), REFUSED, ids=[f"{field}-{value[:20]}" for _, field, value in REFUSED]
)
def test_a_refusal_names_the_field_and_the_value(raw: object, field: str, value: str) -> None:
    with pytest.raises(Invalid) as refusal:
        codec.spec_from_wire(raw)
    assert refusal.value.field == field
    assert value in refusal.value.value
    assert len(str(refusal.value)) < 1000


def test_a_cidr_with_host_bits_is_refused_with_the_right_one() -> None:
    with pytest.raises(Invalid, match=r"did you mean 10\.0\.0\.0/24\?"):
        codec.spec_from_wire(ingress(remote_ip_prefix="10.0.0.1/24"))


def test_what_a_newer_minor_version_adds_is_ignored() -> None:
    assert codec.spec_from_wire(port(version="1.7", colour="red")) == codec.spec_from_wire(port())


def test_a_missing_field_is_named() -> None:
    raw = port()
    del raw["mac_address"]
    with pytest.raises(Invalid) as refusal:
        codec.spec_from_wire(raw)
    assert refusal.value.field == "mac_address"


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
    read = codec.spec_from_wire(ingress(protocol=protocol, ethertype=ethertype))
    assert isinstance(read, SecurityGroupSpec)
    assert read.rules[0].protocol_number == number


@pytest.mark.parametrize(
    ("owner", "trusted"),
    [("network:dhcp", True), ("network:router_interface", True), ("compute:nova", False)],
)
def test_a_port_of_the_network_itself_is_trusted(owner: str, trusted: bool) -> None:
    read = codec.spec_from_wire(port(device_owner=owner))
    assert isinstance(read, PortSpec)
    assert read.trusted is trusted


def test_icmp_type_0_is_a_type() -> None:
    read = codec.spec_from_wire(ingress(protocol="icmp", port_range_min=0))
    assert isinstance(read, SecurityGroupSpec)
    assert read.rules[0].port_range_min == 0


def test_a_spec_for_a_port_twice_is_refused() -> None:
    read = codec.spec_from_wire(port())
    with pytest.raises(Invalid, match="twice"):
        DesiredState.of([read, read])


def test_a_port_is_reported_with_the_revision_of_each_of_its_groups() -> None:
    state = DesiredState.of(
        [
            codec.spec_from_wire(port(security_groups=[GROUP])),
            codec.spec_from_wire(group(revision=7)),
        ]
    )
    assert state.security_group_revisions(state.ports[PORT]) == {GROUP: 7}


def test_a_port_whose_group_is_missing_cannot_be_wired() -> None:
    state = DesiredState.of([codec.spec_from_wire(port(security_groups=[OTHER]))])
    with pytest.raises(Invalid) as refusal:
        state.security_group_revisions(state.ports[PORT])
    assert refusal.value.field == "security_groups"
    assert OTHER in refusal.value.value


def test_one_spec_that_makes_no_sense_is_refused_and_the_others_stand() -> None:
    good = codec.to_wire(SecurityGroupSpec("00000000-0000-0000-0000-000000000001", 3))
    rule = {"direction": "ingress", "protocol": 6, "port_range_min": 90, "port_range_max": 80}
    bad = {**good, "id": "00000000-0000-0000-0000-000000000002", "rules": [rule]}
    state = codec.state_from_wire([good, bad])
    assert set(state.security_groups) == {good["id"]}
    refused = state.refused["00000000-0000-0000-0000-000000000002"]
    assert refused.revision == 3
    assert "rules.0.port_range_max" in refused.reason
    assert "'port_range_min': 90" in refused.detail


@pytest.mark.parametrize("raw", [7, {"kind": "port"}, {"kind": "port", "id": "../etc"}])
def test_a_spec_of_nobody_in_particular_refuses_the_answer(raw: object) -> None:
    with pytest.raises(Invalid):
        codec.state_from_wire([raw])


@pytest.mark.parametrize("name", ["dc1/leaf3", "provider net", "a:b", "é" * 64])
def test_a_physical_network_is_named_as_neutron_names_it(name: str) -> None:
    network = NetworkSpec(NETWORK, NetworkType.FLAT, physical_network=name)
    assert network.physical_network == name


@pytest.mark.parametrize(
    ("kind", "top"),
    [(NetworkType.VLAN, 4094), (NetworkType.VXLAN, 2**24 - 1), (NetworkType.GRE, 2**32 - 1)],
)
def test_a_segment_goes_as_far_as_neutron_lets_it(kind: NetworkType, top: int) -> None:
    physical = "physnet1" if kind is NetworkType.VLAN else None
    assert NetworkSpec(NETWORK, kind, top, physical).segmentation_id == top
    with pytest.raises(ValueError, match=r"at most|less than or equal"):
        NetworkSpec(NETWORK, kind, top + 1, physical)
