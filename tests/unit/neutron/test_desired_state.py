"""The desired state made of the agent's calls: changes, ports concerned, the specs."""

import uuid
from typing import Any

import pytest

from agent_flows.neutron.agent.desired_state import DesiredPorts
from agent_flows.neutron.interfaces import Interface
from agent_flows.spec import NetworkSpec, NetworkType

A, B = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
WEB, DB = str(uuid.UUID(int=11)), str(uuid.UUID(int=12))
NETWORK = NetworkSpec(str(uuid.UUID(int=21)), NetworkType.VXLAN, 77)


def port(port_id: str, *groups: str, **fields: Any) -> dict[str, Any]:
    return {
        "device": port_id,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": ["10.0.0.1"],
        "security_groups": list(groups),
        **fields,
    }


def plugged(*port_ids: str) -> dict[str, Interface]:
    return {
        port_id: Interface(f"tap{number}", number, 1, NETWORK, "fa:16:3e:00:00:99")
        for number, port_id in enumerate(port_ids, 1)
    }


def from_group(remote: str) -> list[dict[str, Any]]:
    return [{"direction": "ingress", "ethertype": "IPv4", "remote_group_id": remote}]


@pytest.fixture
def ports() -> DesiredPorts:
    """Port A in WEB, which lets DB in; port B in DB."""
    ports = DesiredPorts("here")
    ports.set_rules(WEB, from_group(DB))
    ports.set_rules(DB, [])
    ports.set_members(DB, {"IPv4": [("10.0.0.2", None)]})
    ports.set_port(port(A, WEB))
    ports.set_port(port(B, DB))
    return ports


def test_repeating_the_same_values_is_no_change(ports: DesiredPorts) -> None:
    before = ports.versions(A)
    ports.set_port(port(A, WEB, status="ACTIVE", revision_number=9))
    assert ports.set_rules(WEB, from_group(DB)) == frozenset()
    assert ports.set_members(DB, {"IPv4": [["10.0.0.2", None]]}) == frozenset()
    assert ports.versions(A) == before


def test_versions_tell_a_change_of_the_port_from_one_of_its_groups(ports: DesiredPorts) -> None:
    version, own = ports.versions(A)
    ports.set_rules(WEB, [])
    assert ports.versions(A) > (version, own)
    assert ports.versions(A)[1] == own
    ports.set_port(port(A, WEB, DB))
    assert ports.versions(A)[1] > own


def test_members_concern_the_ports_whose_rules_refer_to_their_group(ports: DesiredPorts) -> None:
    before = ports.versions(B)
    assert ports.set_members(DB, {"IPv4": []}) == {A, B}, "B is in the group itself"
    assert ports.set_rules(WEB, []) == {A}
    assert ports.versions(B) == before


def test_one_port_of_each_set_of_groups_stands_for_all(ports: DesiredPorts) -> None:
    same, both = str(uuid.UUID(int=3)), str(uuid.UUID(int=4))
    ports.set_port(port(same, WEB))
    ports.set_port(port(both, WEB, DB))
    assert ports.samples([DB]) == {B, both}
    assert ports.samples([WEB]) in ({A, both}, {same, both})
    assert ports.samples([]) == frozenset()


def test_the_desired_state_holds_all_that_a_port_refers_to(ports: DesiredPorts) -> None:
    resolved = ports.resolve(plugged(A))
    assert set(resolved.state.ports) == {A}
    assert resolved.state.ports[A].network == NETWORK
    assert set(resolved.state.security_groups) == {WEB, DB}
    assert [str(member.address) for member in resolved.state.security_groups[DB].members] == [
        "10.0.0.2/32"
    ]
    assert not resolved.refused


def test_an_address_group_is_known_as_such_by_the_rule_that_names_it(ports: DesiredPorts) -> None:
    friends = str(uuid.UUID(int=13))
    ports.set_members(friends, {"IPv4": [("192.0.2.0/24", None)]})
    ports.set_rules(WEB, [{"direction": "ingress", "ethertype": "IPv4",
                      "remote_address_group_id": friends}])  # fmt: skip
    state = ports.resolve(plugged(A)).state
    assert [str(prefix) for prefix in state.address_groups[friends].addresses] == ["192.0.2.0/24"]
    assert friends not in state.security_groups


def test_port_does_without_a_group_that_has_no_rules(ports: DesiredPorts) -> None:
    ports.set_port(port(A, WEB, DB))
    assert ports.resolve(plugged(A)).state.ports[A].security_groups == (WEB,)


def test_port_does_without_a_group_whose_rules_have_not_come(ports: DesiredPorts) -> None:
    coming = str(uuid.UUID(int=14))
    ports.set_port(port(A, WEB, coming))
    before = ports.versions(A)
    resolved = ports.resolve(plugged(A))
    assert resolved.state.ports[A].security_groups == (WEB,)
    assert not resolved.refused
    assert coming not in ports.group_revisions(A), "a report must not name rules that have not come"
    assert ports.set_rules(coming, from_group(DB)) == {A}
    assert ports.versions(A) > before
    assert ports.resolve(plugged(A)).state.ports[A].security_groups == (WEB, coming)


def test_remote_group_has_no_members_until_they_come(ports: DesiredPorts) -> None:
    coming, friends = str(uuid.UUID(int=14)), str(uuid.UUID(int=15))
    ports.set_rules(WEB, [*from_group(coming), {"direction": "ingress", "ethertype": "IPv4",
                                           "remote_address_group_id": friends}])  # fmt: skip
    state = ports.resolve(plugged(A)).state
    assert state.security_groups[coming].members == ()
    assert state.address_groups[friends].addresses == ()


def test_group_of_stateful_and_stateless_rules_refuses_its_ports(
    ports: DesiredPorts,
) -> None:
    ports.set_rules(WEB, [{**from_group(DB)[0], "stateful": value} for value in (True, False)])
    resolved = ports.resolve(plugged(A, B))
    assert set(resolved.refused) == {A}
    assert set(resolved.state.ports) == {B}
    ports.set_rules(WEB, [])
    assert not ports.resolve(plugged(A, B)).refused


def test_each_item_left_out_is_logged_once(
    ports: DesiredPorts, caplog: pytest.LogCaptureFixture
) -> None:
    pair = {"ip_address": "192.0.2.100", "mac_address": "03:bf:c0:00:02:64"}
    unknown = {**from_group(DB)[0], "only_on_sundays": True}
    for _ in range(3):
        ports.set_port(port(A, WEB, allowed_address_pairs=[pair]))
        ports.set_rules(WEB, [*from_group(DB), unknown])
        ports.set_members(DB, {"IPv4": [("10.0.0.2", None), ("10.0.0.3", "there")]})
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    for record, words in zip(
        caplog.records,
        ([A, "192.0.2.100"], [WEB, "only_on_sundays"], [DB, "10.0.0.3"]),
        strict=True,
    ):
        assert all(word in record.message for word in words)
    assert not ports.resolve(plugged(A, B)).refused
    ports.remove(A)
    ports.set_port(port(A, WEB, allowed_address_pairs=[pair]))
    assert len(caplog.records) == 4, "a port that came again"


def test_a_trusted_port_is_one_without_port_security(ports: DesiredPorts) -> None:
    ports.set_trusted(B)
    spec = ports.resolve(plugged(A, B)).state.ports[B]
    assert (spec.port_security_enabled, spec.security_groups) == (False, ())
    assert spec.mac_address == "fa:16:3e:00:00:99"
    assert set(ports.filtered_ports()) == {A}


def test_ports_without_port_security_are_not_among_the_filtered(ports: DesiredPorts) -> None:
    ports.set_port(port(B, port_security_enabled=False))
    assert set(ports.filtered_ports()) == {A}
    assert ports.port_ids() == {A, B}


def test_groups_without_port_are_forgotten(ports: DesiredPorts) -> None:
    ports.remove(A)
    ports.forget_unused()
    ports.set_port(port(A, WEB))
    assert WEB not in ports.resolve(plugged(A)).state.security_groups
