"""The revision of a security group is what is in it, as server and agent both see it."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from agent_flows.neutron import revision
from agent_flows.report import FlowReport
from lab.server_parts import flow_report

IDS = st.sets(st.uuids().map(str), max_size=8)


@given(IDS)
def test_the_order_of_rules_does_not_matter(ids: set[str]) -> None:
    assert revision.of_rules(sorted(ids)) == revision.of_rules(sorted(ids, reverse=True))


@given(IDS)
def test_a_rule_that_comes_or_goes_makes_another_one(ids: set[str]) -> None:
    assert revision.of_rules(ids) != revision.of_rules({*ids, str(uuid.uuid4())})


@given(IDS)
def test_it_fits_on_the_wire(ids: set[str]) -> None:
    group = str(uuid.uuid4())
    report = flow_report(security_group_revisions={group: revision.of_rules(ids)})
    assert isinstance(report, FlowReport)
