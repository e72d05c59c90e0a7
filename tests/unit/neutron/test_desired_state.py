"""What the agent has told: what of it is news, whom it concerns, and what it adds up to."""

import uuid
from typing import Any

import pytest

from agent_flows.neutron.agent.desired_state import Told
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
def told() -> Told:
    """Port A in WEB, which lets DB in; port B in DB."""
    told = Told("here")
    told.rules(WEB, from_group(DB))
    told.rules(DB, [])
    told.members(DB, {"IPv4": [("10.0.0.2", None)]})
    told.port(port(A, WEB))
    told.port(port(B, DB))
    return told


def test_the_same_again_is_no_news(told: Told) -> None:
    before = told.versions(A)
    told.port(port(A, WEB, status="ACTIVE", revision_number=9))
    assert told.rules(WEB, from_group(DB)) == frozenset()
    assert told.members(DB, {"IPv4": [["10.0.0.2", None]]}) == frozenset()
    assert told.versions(A) == before


def test_a_change_of_the_port_itself_is_told_from_one_of_its_groups(told: Told) -> None:
    version, own = told.versions(A)
    told.rules(WEB, [])
    assert told.versions(A) > (version, own)
    assert told.versions(A)[1] == own
    told.port(port(A, WEB, DB))
    assert told.versions(A)[1] > own


def test_members_concern_the_ports_whose_rules_refer_to_their_group(told: Told) -> None:
    before = told.versions(B)
    assert told.members(DB, {"IPv4": []}) == {A, B}, "B is in the group itself"
    assert told.rules(WEB, []) == {A}
    assert told.versions(B) == before


def test_the_desired_state_holds_all_that_a_port_refers_to(told: Told) -> None:
    wanted = told.wanted(plugged(A))
    assert set(wanted.state.ports) == {A}
    assert wanted.state.ports[A].network == NETWORK
    assert set(wanted.state.security_groups) == {WEB, DB}
    assert [str(each.address) for each in wanted.state.security_groups[DB].members] == [
        "10.0.0.2/32"
    ]
    assert not wanted.refused


def test_an_address_group_is_known_as_such_by_the_rule_that_names_it(told: Told) -> None:
    friends = str(uuid.UUID(int=13))
    told.members(friends, {"IPv4": [("192.0.2.0/24", None)]})
    told.rules(WEB, [{"direction": "ingress", "ethertype": "IPv4",
                      "remote_address_group_id": friends}])  # fmt: skip
    state = told.wanted(plugged(A)).state
    assert [str(each) for each in state.address_groups[friends].addresses] == ["192.0.2.0/24"]
    assert friends not in state.security_groups


def test_a_group_without_rules_says_nothing_on_its_state(told: Told) -> None:
    told.port(port(A, WEB, DB))
    assert told.wanted(plugged(A)).state.ports[A].security_groups == (WEB,)


def test_a_group_whose_rules_did_not_come_yet_is_one_without_rules(told: Told) -> None:
    coming = str(uuid.UUID(int=14))
    told.port(port(A, WEB, coming))
    before = told.versions(A)
    wanted = told.wanted(plugged(A))
    assert wanted.state.ports[A].security_groups == (WEB,)
    assert not wanted.refused
    assert coming not in told.revisions(A), "a report must not claim what did not come"
    assert told.rules(coming, from_group(DB)) == {A}
    assert told.versions(A) > before
    assert told.wanted(plugged(A)).state.ports[A].security_groups == (WEB, coming)


def test_a_remote_group_whose_members_did_not_come_yet_has_none(told: Told) -> None:
    coming, friends = str(uuid.UUID(int=14)), str(uuid.UUID(int=15))
    told.rules(WEB, [*from_group(coming), {"direction": "ingress", "ethertype": "IPv4",
                                           "remote_address_group_id": friends}])  # fmt: skip
    state = told.wanted(plugged(A)).state
    assert state.security_groups[coming].members == ()
    assert state.address_groups[friends].addresses == ()


def test_rules_that_disagree_on_whether_they_are_stateful_refuse_the_ports_that_have_them(
    told: Told,
) -> None:
    told.rules(WEB, [{**from_group(DB)[0], "stateful": each} for each in (True, False)])
    wanted = told.wanted(plugged(A, B))
    assert set(wanted.refused) == {A}
    assert set(wanted.state.ports) == {B}
    told.rules(WEB, [])
    assert not told.wanted(plugged(A, B)).refused


def test_each_item_that_is_left_out_is_named_once_in_the_log(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    pair = {"ip_address": "192.0.2.100", "mac_address": "03:bf:c0:00:02:64"}
    unknown = {**from_group(DB)[0], "only_on_sundays": True}
    for _ in range(3):
        told.port(port(A, WEB, allowed_address_pairs=[pair]))
        told.rules(WEB, [*from_group(DB), unknown])
        told.members(DB, {"IPv4": [("10.0.0.2", None), ("10.0.0.3", "there")]})
    assert [each.levelname for each in caplog.records] == ["WARNING"] * 3
    for record, words in zip(
        caplog.records,
        ([A, "192.0.2.100"], [WEB, "only_on_sundays"], [DB, "10.0.0.3"]),
        strict=True,
    ):
        assert all(word in record.message for word in words)
    assert not told.wanted(plugged(A, B)).refused
    told.gone(A)
    told.port(port(A, WEB, allowed_address_pairs=[pair]))
    assert len(caplog.records) == 4, "a port that came again"


def test_a_trusted_port_is_one_without_port_security(told: Told) -> None:
    told.trusted(B)
    spec = told.wanted(plugged(A, B)).state.ports[B]
    assert (spec.port_security_enabled, spec.security_groups) == (False, ())
    assert spec.mac_address == "fa:16:3e:00:00:99"
    assert set(told.filtered()) == {A}


def test_ports_without_port_security_are_not_among_the_filtered(told: Told) -> None:
    told.port(port(B, port_security_enabled=False))
    assert set(told.filtered()) == {A}
    assert told.known() == {A, B}


def test_what_no_port_needs_is_forgotten(told: Told) -> None:
    told.gone(A)
    told.forget_unused()
    told.port(port(A, WEB))
    assert WEB not in told.wanted(plugged(A)).state.security_groups
