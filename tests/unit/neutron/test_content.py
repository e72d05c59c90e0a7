"""Contents that mean the same have one revision, and others have another."""

import dataclasses
from typing import Any

import pytest

from agent_flows.neutron import content
from agent_flows.neutron.content import PortContent

PORT = PortContent(
    mac="fa:16:3e:00:00:01",
    admin_state_up=True,
    filtered=True,
    addresses=["10.0.0.1", "2001:db8::1"],
    pairs=[("192.0.2.0/24", "fa:16:3e:00:00:02")],
    groups=frozenset({"a", "b"}),
)


@pytest.mark.parametrize(
    "same",
    [
        {"mac": "FA-16-3E-00-00-01"},
        {"addresses": ["2001:DB8:0::1", "10.0.0.1"]},
        {"addresses": ["2001:db8::1/128", "10.0.0.1/32", "10.0.0.1"]},
        {"pairs": [("192.0.2.0/24", "FA:16:3E:00:00:02")] * 2},
    ],
    ids=repr,
)
def test_another_form_of_the_same_port_has_the_same_revision(same: dict[str, Any]) -> None:
    assert dataclasses.replace(PORT, **same).revision == PORT.revision


@pytest.mark.parametrize(
    "other",
    [
        {"mac": "fa:16:3e:00:00:03"},
        {"admin_state_up": False},
        {"filtered": False},
        {"addresses": ["10.0.0.1"]},
        {"pairs": []},
        {"pairs": [("192.0.2.0/25", "fa:16:3e:00:00:02")]},
        {"pairs": [("192.0.2.0/24", "fa:16:3e:00:00:01")]},
        {"groups": frozenset({"a"})},
    ],
    ids=repr,
)
def test_another_port_has_another_revision(other: dict[str, Any]) -> None:
    assert dataclasses.replace(PORT, **other).revision != PORT.revision


def test_a_group_of_other_rules_or_without_state_has_another_revision() -> None:
    cases = [(True, 1), (True, 2), (False, 1)]
    found = {content.revision_of_group(stateful=flag, rules=rules) for flag, rules in cases}
    assert len(found) == len(cases)


def test_ids_that_no_message_can_hold_are_not_compared() -> None:
    uuid = "11111111-1111-4111-8111-111111111111"
    assert content.comparable({uuid: 1, "web": 2}) == {uuid: 1}
