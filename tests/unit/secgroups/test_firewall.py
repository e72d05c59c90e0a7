"""The firewall on tables in memory: which flows it writes, misses and sweeps."""

import pytest

from agent_flows.engine.task import PortErrors
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import DesiredState
from lab.model import numbered_id
from tests.unit.secgroups.specs import attached, group, port
from tests.unit.secgroups.tables import Tables


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def firewall(tables: Tables) -> Firewall:
    made = Firewall(tables)  # type: ignore[arg-type]
    made.start()
    return made


def test_refused_member_blames_the_ports_that_admit_it(firewall: Firewall, tables: Tables) -> None:
    rules = group(1, {"direction": "ingress", "remote_group_id": numbered_id(2, 2)})
    subject, other = port(1, rules), port(2)
    attachments = {subject.id: attached(subject, 1), other.id: attached(other, 2)}
    firewall.apply(DesiredState.of([subject, other, rules, group(2)]), attachments)
    tables.refuse = "nw_src=10.7.0.1"
    members = group(2, members=[{"address": "10.7.0.1/32"}])
    with pytest.raises(PortErrors) as raised:
        firewall.apply(DesiredState.of([subject, other, rules, members]), attachments)
    assert set(raised.value.errors) == {subject.id}


def test_revert_writes_a_missing_flow_again(firewall: Firewall, tables: Tables) -> None:
    subject = port(1)
    firewall.apply(DesiredState.of([subject]), {subject.id: attached(subject, 1)})
    firewall.commit([subject.id])
    before = {key: actions for key, (_, actions) in tables.flows.items()}
    del tables.flows[next(key for key in tables.flows if key.startswith("table=84,priority=100"))]
    with pytest.raises(PortErrors):
        firewall.verify([subject.id])
    firewall.revert([subject.id])
    firewall.verify([subject.id])
    assert {key: actions for key, (_, actions) in tables.flows.items()} == before


def test_sweep_keeps_the_flows_of_present_interfaces(firewall: Firewall, tables: Tables) -> None:
    subject = port(1)
    firewall.apply(DesiredState.of([subject]), {subject.id: attached(subject, 7)})
    before = dict(tables.flows)
    restarted = Firewall(tables)  # type: ignore[arg-type]
    restarted.start()
    assert restarted.sweep(set(), [7]) == 0
    assert tables.flows == before
    assert restarted.sweep(set()) > 0
    assert tables.flows.keys() < before.keys()


SSH = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
WEB = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}


def test_added_or_removed_rule_costs_one_flow_per_port(firewall: Firewall, tables: Tables) -> None:
    ports = [port(n, group(1)) for n in range(1, 4)]
    attachments = {subject.id: attached(subject, n) for n, subject in enumerate(ports, 1)}

    def apply(*rules: dict[str, object]) -> list[str]:
        firewall.apply(DesiredState.of([*ports, group(1, *rules)]), attachments)
        firewall.verify(attachments.keys())
        return tables.bundles[-1]

    apply(SSH, WEB)
    before = dict(tables.flows)
    assert [line.split()[0] for line in apply(WEB)] == ["delete_strict"] * 3
    assert [line.split()[0] for line in apply(WEB, SSH)] == ["add"] * 3
    assert tables.flows.keys() == before.keys()


def test_missing_flow_of_a_later_update_is_found(firewall: Firewall, tables: Tables) -> None:
    subject = port(1, group(1))
    attachments = {subject.id: attached(subject, 1)}
    firewall.apply(DesiredState.of([subject, group(1, WEB)]), attachments)
    firewall.apply(DesiredState.of([subject, group(1, WEB, SSH)]), attachments)
    firewall.verify([subject.id])
    del tables.flows[next(key for key in tables.flows if key.endswith("tp_dst=22"))]
    with pytest.raises(PortErrors):
        firewall.verify([subject.id])


def test_unchanged_port_costs_no_bundle(firewall: Firewall, tables: Tables) -> None:
    subject = port(1, group(1, WEB))
    desired = DesiredState.of([subject, group(1, WEB)])
    firewall.apply(desired, {subject.id: attached(subject, 1)})
    sent = len(tables.bundles)
    firewall.apply(desired, {subject.id: attached(subject, 1)})
    assert len(tables.bundles) == sent


def test_affected_ports_are_in_the_group_or_refer_to_it(firewall: Firewall) -> None:
    webs, other = group(1), group(2, WEB)
    referring = group(3, {"direction": "ingress", "remote_group_id": webs.id})
    ports = [port(1, webs), port(2, referring), port(3, other)]
    one, two, three = (subject.id for subject in ports)
    attachments = {subject.id: attached(subject, n) for n, subject in enumerate(ports, 1)}
    firewall.apply(DesiredState.of([*ports, webs, other, referring]), attachments)
    assert firewall.affected_by([webs.id]) == {one, two}
    assert firewall.affected_by([referring.id, other.id]) == {two, three}
    assert firewall.affected_by([]) == set()
