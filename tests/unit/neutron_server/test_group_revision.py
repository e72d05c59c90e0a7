"""The revision of a security group is what its rules say, as server and agent both see it."""

import uuid
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows.neutron import rules_digest
from agent_flows.report import FlowReport
from lab.model import flow_report

PORTS = st.none() | st.integers(0, 65535)
RULES = st.lists(
    st.fixed_dictionaries(
        {
            "direction": st.sampled_from(["ingress", "egress"]),
            "ethertype": st.sampled_from(["IPv4", "IPv6"]),
            "protocol": st.sampled_from([None, "tcp", "udp", "icmp", "89"]),
            "port_range_min": PORTS,
            "port_range_max": PORTS,
        }
    ),
    max_size=6,
)
Rule = Mapping[str, object]


@given(RULES)
def test_neither_order_nor_repetition_matters(rules: list[Rule]) -> None:
    assert rules_digest.of_rules(rules) == rules_digest.of_rules([*reversed(rules), *rules])


@given(RULES)
def test_a_rule_that_comes_makes_another_one(rules: list[Rule]) -> None:
    more = [*rules, {"direction": "ingress", "remote_group_id": str(uuid.uuid4())}]
    assert rules_digest.of_rules(rules) != rules_digest.of_rules(more)


@given(RULES)
def test_it_fits_on_the_wire(rules: list[Rule]) -> None:
    group = str(uuid.uuid4())
    report = flow_report(security_group_revisions={group: rules_digest.of_rules(rules)})
    assert isinstance(report, FlowReport)


@pytest.mark.parametrize(
    ("direction", "name"), [("ingress", "source_ip_prefix"), ("egress", "dest_ip_prefix")]
)
def test_a_row_and_what_a_driver_is_told_of_it_are_the_same(direction: str, name: str) -> None:
    """The driver is told who it is, whether it is stateful, and the prefix without host bits."""
    columns = dict.fromkeys(rules_digest.NAMES)
    said = {"direction": direction, "ethertype": "IPv4", "protocol": "icmp", "port_range_min": 0}
    row = SimpleNamespace(**columns | said | {"remote_ip_prefix": "10.1.2.3/8"})
    told = {**said, name: "10.0.0.0/8", "stateful": True, "security_group_id": str(uuid.uuid4())}
    assert rules_digest.of_objects([row]) == rules_digest.of_rules([told])


def test_what_makes_no_sense_is_told_apart_too() -> None:
    one, other = ({"remote_ip_prefix": value} for value in ("10.0.0.0/99", "\ud800"))
    assert rules_digest.of_rules([one]) != rules_digest.of_rules([other])
