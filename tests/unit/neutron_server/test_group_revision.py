"""Server and agent compute the same revision from the rules of a security group."""

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
def test_order_and_repetition_of_rules_do_not_change_the_revision(rules: list[Rule]) -> None:
    assert rules_digest.of_rules(rules) == rules_digest.of_rules([*reversed(rules), *rules])


@given(RULES)
def test_added_rule_changes_the_revision(rules: list[Rule]) -> None:
    more = [*rules, {"direction": "ingress", "remote_group_id": str(uuid.uuid4())}]
    assert rules_digest.of_rules(rules) != rules_digest.of_rules(more)


@given(RULES)
def test_revision_is_valid_in_a_report(rules: list[Rule]) -> None:
    group = str(uuid.uuid4())
    report = flow_report(security_group_revisions={group: rules_digest.of_rules(rules)})
    assert isinstance(report, FlowReport)


@pytest.mark.parametrize(
    ("direction", "name"), [("ingress", "source_ip_prefix"), ("egress", "dest_ip_prefix")]
)
def test_server_row_and_agent_rule_have_the_same_revision(direction: str, name: str) -> None:
    """The agent's rule also has the group's id and statefulness, and no host bits in its prefix."""
    columns = dict.fromkeys(rules_digest.NAMES)
    rule = {"direction": direction, "ethertype": "IPv4", "protocol": "icmp", "port_range_min": 0}
    row = SimpleNamespace(**columns | rule | {"remote_ip_prefix": "10.1.2.3/8"})
    sent = {**rule, name: "10.0.0.0/8", "stateful": True, "security_group_id": str(uuid.uuid4())}
    assert rules_digest.of_objects([row]) == rules_digest.of_rules([sent])


def test_different_invalid_rules_have_different_revisions() -> None:
    one, other = ({"remote_ip_prefix": value} for value in ("10.0.0.0/99", "\ud800"))
    assert rules_digest.of_rules([one]) != rules_digest.of_rules([other])
