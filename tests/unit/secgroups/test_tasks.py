import pytest
from taskflow import engines
from taskflow.patterns import linear_flow

from agent_flows.engine.task import FlowTask
from agent_flows.report import Step
from agent_flows.secgroups.firewall import Firewall
from agent_flows.secgroups.tasks import (
    ApplySecurityGroups,
    RemoveSecurityGroups,
    VerifySecurityGroups,
)
from agent_flows.spec import DesiredState
from tests.unit.secgroups.specs import attached, port
from tests.unit.secgroups.tables import Tables

FIREWALL = Firewall(Tables())  # type: ignore[arg-type]
TASKS = [
    ApplySecurityGroups(FIREWALL),
    VerifySecurityGroups(FIREWALL),
    RemoveSecurityGroups(FIREWALL),
]


def test_names_of_the_tasks() -> None:
    assert [task.name for task in TASKS] == [
        "apply-security-groups",
        "verify-security-groups",
        "remove-security-groups",
    ]
    assert {task.step for task in TASKS} == {Step.SECURITY_GROUPS}


def test_failed_flow_restores_the_previous_flows() -> None:
    tables = Tables()
    firewall = Firewall(tables)  # type: ignore[arg-type]
    firewall.start()
    before = dict(tables.flows)
    subject = port(1)
    flow = linear_flow.Flow("wire").add(ApplySecurityGroups(firewall), Failing())
    store = {
        "port_ids": (subject.id,),
        "desired": DesiredState.of([subject]),
        "attachments": {subject.id: attached(subject, 5)},
    }
    with pytest.raises(RuntimeError, match="later"):
        engines.run(flow, store=store)
    assert len(tables.bundles) > 1
    assert tables.flows == before


class Failing(FlowTask):
    name_ = "failing"
    step = Step.L2

    def execute(self) -> None:
        raise RuntimeError("later")


def test_tasks_require_what_the_wiring_provides() -> None:
    apply, verify, remove = TASKS
    assert apply.requires == {"port_ids", "desired", "attachments"}
    assert verify.requires == remove.requires == {"port_ids"}
