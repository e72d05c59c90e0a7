"""Specs and reports survive the wire unchanged, and an invalid one is refused by its field."""

import datetime
import ipaddress
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows import spec
from agent_flows.report import FlowName, FlowReport, Step, TaskError, TaskOutcome, TaskState
from agent_flows.rpc import codec
from agent_flows.spec import (
    AddressGroupSpec,
    AddressPair,
    Direction,
    Ethertype,
    Member,
    NetworkSpec,
    NetworkType,
    PortSpec,
    SecurityGroupRule,
    SecurityGroupSpec,
    Spec,
)
from agent_flows.validation import Invalid
from lab import model
from lab.model import group_fields as group
from lab.model import port_fields as port

GROUP = model.numbered_id(2, 1)
OTHER = model.numbered_id(2, 2)
NETWORK = model.numbered_id(3, 1)

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


words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
names = st.from_regex(r"\A[a-z][a-z0-9-]{0,30}[a-z]\Z")
moments = st.datetimes(
    datetime.datetime(2020, 1, 2), datetime.datetime(2099, 1, 1), timezones=st.just(datetime.UTC)
)
numbers = st.integers(1, 2**31 - 1)


@st.composite
def outcomes(draw: st.DrawFn, name: str) -> TaskOutcome:
    state = draw(st.sampled_from(TaskState))
    reached = state is not TaskState.PENDING
    return TaskOutcome(
        name=name,
        step=draw(st.sampled_from(Step)),
        state=state,
        started_at=draw(moments) if reached else None,
        duration=draw(st.floats(0, 3600)) if reached else None,
        error=draw(st.builds(TaskError, type=names, message=words, detail=words))
        if state is TaskState.FAILED
        else None,
    )


@st.composite
def reports(draw: st.DrawFn) -> FlowReport:
    started = draw(moments)
    tasks = draw(st.lists(names, min_size=1, max_size=8, unique=True))
    return FlowReport(
        id=draw(ids),
        host="compute-1",
        resource_id=draw(ids),
        flow=draw(st.sampled_from(FlowName)),
        revision=draw(st.integers(0, 2**62 - 1)),
        attempt=draw(numbers),
        sequence=draw(st.integers(1, 2**62 - 1)),
        started_at=started,
        finished_at=started + draw(st.timedeltas(datetime.timedelta(0), datetime.timedelta(1))),
        tasks=tuple(draw(outcomes(name)) for name in tasks),
        security_group_revisions=draw(st.dictionaries(ids, st.integers(0, 2**62 - 1), max_size=3)),
    )


Read = Callable[[object], object]


@given(ports | groups | address_groups)
def test_a_spec_comes_back_from_json_unchanged(value: Spec) -> None:
    assert codec.spec_from_wire(json.loads(json.dumps(codec.to_wire(value)))) == value


@given(reports())
def test_a_report_comes_back_from_json_unchanged(value: FlowReport) -> None:
    assert codec.report_from_wire(json.loads(json.dumps(codec.to_wire(value)))) == value


@pytest.mark.parametrize("read", [codec.spec_from_wire, codec.report_from_wire])
@given(
    raw=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    )
)
def test_any_other_json_is_refused(read: Read, raw: object) -> None:
    with pytest.raises(Invalid):
        read(raw)


def ingress(**fields: object) -> dict[str, Any]:
    return group({"direction": "ingress", **fields})


def network(type_: str, **fields: object) -> dict[str, Any]:
    return port(network={"id": NETWORK, "network_type": type_, **fields})


def report(**fields: object) -> dict[str, Any]:
    return {**codec.to_wire(model.flow_report()), **fields}


def outcome(name: str = "bind-vlan", **fields: object) -> dict[str, Any]:
    return {"name": name, "step": "l2", "state": "SUCCEEDED", **fields}


def task(**fields: object) -> dict[str, Any]:
    return report(tasks=[outcome(**fields)])


REFUSED_SPECS = [
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
    (network("stt"), "network.network_type", "stt"),
    (network("gre"), "network.segmentation_id", "None"),
    (
        network("vxlan", segmentation_id=2**24),
        "network.segmentation_id",
        "16777216",
    ),
    (
        network("geneve", segmentation_id=5000, physical_network="p"),
        "network.physical_network",
        "p",
    ),
    (network("vlan"), "network.physical_network", "None"),
    (
        network("vlan", physical_network="p"),
        "network.segmentation_id",
        "None",
    ),
    (
        network("vlan", physical_network="p", segmentation_id=4095),
        "network.segmentation_id",
        "4095",
    ),
    (
        network("flat", physical_network="x" * 65),
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


REFUSED_REPORTS = [
    (report(colour="red"), "colour", "red"),
    (report(id="1"), "id", "1"),
    (report(host="../../etc"), "host", "../../etc"),
    (report(resource_type="router"), "resource_type", "router"),
    (report(flow="delete"), "flow", "delete"),
    (report(revision=2**62), "revision", str(2**62)),
    (report(attempt=0), "attempt", "0"),
    (report(sequence=0), "sequence", "0"),
    (report(sequence=1.5), "sequence", "1.5"),
    (report(started_at="2026-01-01T00:00:00"), "started_at", "2026-01-01T00:00:00"),
    (report(started_at="1970-01-01T00:00:00Z"), "started_at", "1970"),
    (report(finished_at="2150-01-01T00:00:00Z"), "finished_at", "2150"),
    (report(finished_at="2025-12-31T00:00:00Z"), "finished_at", "2025-12-31"),
    (report(tasks=[]), "tasks", "[]"),
    (report(tasks=[outcome(f"task-{n}") for n in range(65)]), "tasks", "task-0"),
    (report(tasks=[outcome(), outcome()]), "tasks", "bind-vlan"),
    (report(security_group_revisions={"x": 1}), "security_group_revisions.x.[key]", "x"),
    (task(name="drop table"), "tasks.0.name", "drop table"),
    (task(step="l3"), "tasks.0.step", "l3"),
    (task(state="DONE"), "tasks.0.state", "DONE"),
    (task(duration=-1), "tasks.0.duration", "-1"),
    (task(duration=float("nan")), "tasks.0.duration", "nan"),
    (task(state="FAILED"), "tasks.0.error", "None"),
    (task(error={"type": "Timeout", "message": "late"}), "tasks.0.error", "Timeout"),
    (
        task(state="FAILED", error={"type": "Time out", "message": ""}),
        "tasks.0.error.type",
        "Time out",
    ),
    (report(version="2.0"), "version", "2.0"),
    (report(version="1"), "version", "1"),
    ("report", "", "report"),
]


REFUSED: list[tuple[Read, object, str, str]] = [
    *[(codec.spec_from_wire, *row) for row in REFUSED_SPECS],
    *[(codec.report_from_wire, *row) for row in REFUSED_REPORTS],
]


@pytest.mark.parametrize(
    ("read", "raw", "field", "value"),
    REFUSED,
    ids=[f"{field}-{value[:20]}" for _, _, field, value in REFUSED],
)
def test_a_refusal_names_the_field_and_the_value(
    read: Read, raw: object, field: str, value: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        read(raw)
    assert refusal.value.field == field
    assert value in refusal.value.value
    assert len(str(refusal.value)) < 1000


def test_a_cidr_with_host_bits_is_refused_with_the_right_one() -> None:
    with pytest.raises(Invalid, match=r"did you mean 10\.0\.0\.0/24\?"):
        codec.spec_from_wire(ingress(remote_ip_prefix="10.0.0.1/24"))


def test_a_missing_field_is_named() -> None:
    raw = port()
    del raw["mac_address"]
    with pytest.raises(Invalid) as refusal:
        codec.spec_from_wire(raw)
    assert refusal.value.field == "mac_address"


@pytest.mark.parametrize(
    ("read", "raw"), [(codec.spec_from_wire, port()), (codec.report_from_wire, report())]
)
def test_fields_of_a_newer_minor_version_are_ignored(read: Read, raw: dict[str, Any]) -> None:
    assert read({**raw, "version": "1.7", "colour": "red"}) == read(raw)


def test_an_invalid_spec_is_refused_alone() -> None:
    good = codec.to_wire(model.group(revision=3))
    rule = {"direction": "ingress", "protocol": 6, "port_range_min": 90, "port_range_max": 80}
    state = codec.state_from_wire([good, {**good, "id": OTHER, "rules": [rule]}])
    assert set(state.security_groups) == {good["id"]}
    refused = state.refused[OTHER]
    assert refused.revision == 3
    assert "rules.0.port_range_max" in refused.reason
    assert "'port_range_min': 90" in refused.detail


def test_a_spec_with_too_many_levels_is_refused_alone() -> None:
    good = codec.to_wire(model.group(model.ingress()))
    levels: list[Any] = []
    for _ in range(1_000):
        levels = [levels]
    bad = {**good, "id": OTHER, "rules": [{**good["rules"][0], "direction": levels}]}
    state = codec.state_from_wire([good, bad])
    assert set(state.security_groups) == {good["id"]}
    assert "levels" in state.refused[OTHER].reason


@pytest.mark.parametrize("raw", [7, {"kind": "port"}, {"kind": "port", "id": "../etc"}])
def test_an_invalid_spec_without_an_id_makes_the_answer_invalid(raw: object) -> None:
    with pytest.raises(Invalid):
        codec.state_from_wire([raw])
