"""Which callers may report to Neutron with our plugin, and which may read what."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_flows.report import FlowReport
from agent_flows.rpc import codec
from lab.model import flow_report
from lab.neutron.client import PROJECT, Client
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant
from lab.process import CommandFailed, run
from lab.rest import Body, Refused
from lab.vm import Vm
from tests.e2e.neutron.with_agent_flows.conftest import OURS, WATCHED
from tests.e2e.neutron.with_agent_flows.ports import are, full_table, healthy, tasks

_AGENT = Path(__file__).with_name("agent_of_another_host.py")
_STRANGER = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def refused(neutron: Neutron, tenant: Tenant) -> Iterator[Vm]:
    """A machine whose port's flows the switch refuses."""
    healthy(tenant, 1, OURS)
    with full_table(neutron.hosts[OURS]):
        [vm] = tenant.boot(1, host=OURS)
        are(neutron, [vm], status="DOWN", sync_state="OUT_OF_SYNC")
        yield vm


def as_reader_of(neutron: Neutron, project: str) -> Client:
    headers = {"X-Project-Id": project, "X-User-Id": "somebody", "X-Roles": "member,reader"}
    return Client(neutron.controller.namespace, headers)


def report_as(neutron: Neutron, host: str, *reports: FlowReport) -> Body:
    """What the server answers to an agent that reports."""
    argv = [sys.executable, str(_AGENT), neutron.controller.rabbit.url, host]
    sent = json.dumps([codec.to_wire(each) for each in reports])
    answer: Body = json.loads(run(neutron.controller.namespace.argv(argv), stdin=sent, timeout=60))
    return answer


def test_a_report_on_a_port_bound_elsewhere_is_refused_and_changes_nothing(
    neutron: Neutron, refused: Vm
) -> None:
    revision = neutron.api.show("ports", refused.port_id)["revision_number"]
    lie = flow_report(host="third", resource_id=refused.port_id, revision=revision, sequence=2**61)
    answer = report_as(neutron, "third", lie)
    assert answer["accepted"] == []
    assert f"bound to {OURS}" in answer["rejected"][lie.id]
    are(neutron, [refused], status="DOWN", sync_state="OUT_OF_SYNC")
    assert {task["host"] for task in tasks(neutron, refused)} == {OURS}


def test_a_second_agent_of_a_host_is_refused(neutron: Neutron, refused: Vm) -> None:
    lie = flow_report(host=WATCHED, resource_id=refused.port_id, revision=1)
    with pytest.raises(CommandFailed, match=f"host {WATCHED} is taken"):
        report_as(neutron, WATCHED, lie)
    are(neutron, [refused], status="DOWN", sync_state="OUT_OF_SYNC")


def test_an_unknown_filter_is_neutrons_usual_400(neutron: Neutron) -> None:
    answers = []
    for kind in ("tasks", "networks"):
        with pytest.raises(Refused) as refusal:
            neutron.api.find(kind, colour="red")
        answers.append((refusal.value.status, refusal.value.body))
    ours, neutrons_own = answers
    assert ours == neutrons_own
    assert ours[0] == 400
    assert "colour" in ours[1]["NeutronError"]["message"]


def test_a_project_reads_its_own_ports_and_nothing_of_the_hosts(
    neutron: Neutron, refused: Vm
) -> None:
    owner, stranger = (as_reader_of(neutron, each) for each in (PROJECT, _STRANGER))
    try:
        assert owner.show("ports", refused.port_id)["sync_state"] == "OUT_OF_SYNC"
        failed, *_ = owner.find("tasks", resource_id=refused.port_id, task_state="FAILED")
        assert "OFPFMFC_TABLE_FULL" in failed["error"]["message"]
        assert "detail" not in failed["error"]
        assert "host" not in failed
        assert stranger.find("tasks", resource_id=refused.port_id) == []
        with pytest.raises(Refused) as refusal:
            stranger.show("tasks", failed["id"])
        assert refusal.value.status == 404
    finally:
        owner.close()
        stranger.close()
