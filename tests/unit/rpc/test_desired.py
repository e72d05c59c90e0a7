"""What a host lacks of the desired state, on the wire: a hostile part is refused alone."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest

from agent_flows.rpc.desired import (
    AddressesChange,
    GroupChange,
    MembersChange,
    Update,
    change_from_wire,
    change_of,
    from_wire,
    members_of,
)
from agent_flows.spec import Member
from agent_flows.validation import Invalid
from lab.model import group, ingress, numbered_id, port

WEB = group(ingress(protocol="tcp", port=80), revision=4)
PORT, OTHER = numbered_id(1, 1), numbered_id(1, 2)
ADDRESS = (ip_network("10.0.0.1"), "fa:16:3e:00:00:01")
UPDATE = Update(
    ports=[port(WEB, id=PORT, revision=3)],
    security_groups=[GroupChange(WEB.id, 4, rules=WEB.rules), GroupChange(OTHER, 2, False)],
    members=[
        MembersChange(WEB.id, 7, 6, {PORT: (ADDRESS,), OTHER: ()}),
        MembersChange(OTHER, 1),
    ],
    address_groups=[AddressesChange(OTHER, 2, (ip_network("10.1.0.0/16"),))],
    gone=[numbered_id(1, 3)],
)


def test_what_the_server_sends_is_what_the_agent_reads() -> None:
    assert from_wire(UPDATE.to_wire()) == UPDATE


def test_rules_that_the_host_has_are_not_sent() -> None:
    first, second = UPDATE.to_wire()["security_groups"]
    assert "rules" in first
    assert "rules" not in second


def test_fields_of_a_newer_server_are_ignored() -> None:
    wire = UPDATE.to_wire()
    wire["mood"] = "fine"
    for name in ("security_groups", "members", "address_groups"):
        wire[name] = [{**part, "mood": "fine"} for part in wire[name]]
    assert from_wire(wire) == UPDATE


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("security_groups", {"revision": -1}),
        ("security_groups", {"revision": "4"}),
        ("security_groups", {"stateful": "yes"}),
        ("security_groups", {"rules": [{"direction": "sideways", "ethertype": "IPv4"}]}),
        ("security_groups", {"rules": "all"}),
        ("members", {"since": -1}),
        ("members", {"ports": []}),
        ("members", {"ports": {"not-a-uuid": []}}),
        ("members", {"ports": {PORT: [["10.0.0.300", None]]}}),
        ("members", {"ports": {PORT: [["10.0.0.1"]]}}),
        ("members", {"ports": {PORT: [["10.0.0.1", "no mac"]]}}),
        ("address_groups", {"addresses": ["everywhere"]}),
        ("address_groups", {"addresses": None}),
    ],
    ids=repr,
)
def test_a_hostile_part_is_refused_with_its_id_and_no_other(
    name: str, fields: Mapping[str, Any]
) -> None:
    wire = UPDATE.to_wire()
    good, bad = wire[name][0], numbered_id(2, 9)
    wire[name] = [good, {**good, "id": bad, **fields}]
    update = from_wire(wire)
    assert set(update.refused) == {bad}
    assert len(getattr(update, name)) == 1


@pytest.mark.parametrize(
    "wire",
    [
        None,
        [],
        "everything",
        {"ports": {}},
        {"security_groups": "all"},
        {"members": [7]},
        {"members": [{"revision": 1}]},
        {"members": [{"id": "../etc", "revision": 1}]},
        {"gone": [7]},
        {"gone": "all"},
    ],
    ids=repr,
)
def test_an_answer_that_cannot_be_read_is_invalid(wire: object) -> None:
    with pytest.raises(Invalid):
        from_wire(wire)


def test_an_address_of_two_ports_is_one_member() -> None:
    other = (ip_network("10.0.0.2"), None)
    members = members_of({PORT: (other, ADDRESS), OTHER: (ADDRESS,)})
    assert members == (Member(*ADDRESS), Member(*other))


CHANGE = Update(
    security_groups=[GroupChange(WEB.id, 5, rules=WEB.rules, since=4)],
    members=[MembersChange(WEB.id, 7, 6, {PORT: (ADDRESS,), OTHER: ()})],
    address_groups=[AddressesChange(OTHER, 2, (ip_network("10.1.0.0/16"),))],
)


def change() -> dict[str, Any]:
    made = change_of([WEB.id], CHANGE)
    assert made is not None
    return dict(made.wire)


def test_what_a_cast_carries_is_what_the_agent_reads() -> None:
    assert change_from_wire(change()).to_wire() == CHANGE.to_wire()
    assert "ports" not in change(), "a cast is small"


def test_what_is_too_large_for_a_cast_is_not_carried() -> None:
    ports = {numbered_id(1, number): (ADDRESS,) for number in range(1000)}
    assert change_of([WEB.id], Update(members=[MembersChange(WEB.id, 7, 6, ports)])) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"security_groups": [{"id": WEB.id, "revision": 5, "rules": []}]},
        {"members": [{"id": WEB.id, "revision": 5, "ports": {}}]},
        {"security_groups": [{"id": WEB.id, "revision": 5, "since": -1}]},
        {"security_groups": [{"id": "all", "revision": 5, "since": 4}]},
        {"security_groups": "all"},
        {"members": {"ports": 7}},
        {"ports": [{}]},
        {"ports": UPDATE.to_wire()["ports"]},
        {"gone": [WEB.id]},
        {"padding": "x" * 100_000},
        {"padding": {1, 2}},
    ],
    ids=repr,
)
def test_a_hostile_cast_is_refused_whole(fields: Mapping[str, Any]) -> None:
    with pytest.raises(Invalid):
        change_from_wire({**change(), **fields})


@pytest.mark.parametrize("raw", [[], "change", 7], ids=repr)
def test_a_cast_that_carries_no_object_is_refused(raw: object) -> None:
    with pytest.raises(Invalid):
        change_from_wire(raw)
