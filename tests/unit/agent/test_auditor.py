"""When the flows of a standalone host are compared, and what becomes of the result."""

import types
import uuid
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from agent_flows.agent.auditor import AgentAuditor, suspicion_of, suspicion_outside
from agent_flows.engine.drift import EVERYTHING, NONE, Drift, Suspicion
from agent_flows.engine.port_life import Applied, Life, Phase, Request
from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.openflow.monitor import Changes
from agent_flows.report import Step, TaskError

ONE = str(uuid.UUID(int=1))
ERROR = TaskError(ErrorType.DRIFT, "1 missing")
OUTSIDE = Drift(Step.L2, TaskError(ErrorType.DRIFT, "1 missing on bridge br-ex"))
UNREADABLE = TaskFailed(TaskError(ErrorType.TIMEOUT, "br-ex does not answer"))


class Host:
    """A host with one port; what its parts find is set by the test."""

    def __init__(self) -> None:
        self.proven, self.intact = True, True
        self.differs: Mapping[str, TaskError] | None = {ONE: ERROR}
        self.explained = False
        self.outside: Mapping[str, Drift] | TaskFailed = {}
        self.repairs = 0
        firewall = types.SimpleNamespace(
            audit=lambda: self.differs,
            explains=lambda deleted, added: self.explained or not (deleted or added),
            counts=lambda: self.explained,
            repair=self._repair,
        )
        switch: Any = types.SimpleNamespace(bridge="br-int", firewall=firewall, networks=None)
        table: Any = types.SimpleNamespace(lives=self._lives)
        ofctl: Any = None
        self.auditor = AgentAuditor(switch, table, ofctl, lambda: self.intact)
        wiring: Any = types.SimpleNamespace(compare=lambda *_, **__: {})
        networks: Any = types.SimpleNamespace(compare=self._outside)
        self.auditor._wiring, self.auditor._networks = wiring, networks

    def _repair(self) -> None:
        self.repairs += 1

    def _lives(self) -> dict[str, Life]:
        applied = Applied(None, None, None, proven=self.proven)
        return {ONE: Life(Request(ONE), Phase.PROVEN, applied=applied)}

    def _outside(self, _: Collection[str] | None) -> Mapping[str, Drift]:
        if isinstance(self.outside, TaskFailed):
            raise self.outside
        return self.outside


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.mark.parametrize(
    ("suspicion", "compared"),
    [
        (EVERYTHING, True),
        (Suspicion(bridges=frozenset({"br-int"})), True),
        (Suspicion(bridges=frozenset({"br-ex"})), False),
        (Suspicion(counted=True), True),
        (Suspicion(deleted=frozenset({1})), True),
        (Suspicion(added=frozenset({1})), True),
        (Suspicion(port_ids=frozenset({ONE})), False),
    ],
    ids=str,
)
def test_flows_are_compared_only_if_they_are_suspected(
    host: Host, suspicion: Suspicion, compared: bool
) -> None:
    found = host.auditor.compare(suspicion)
    assert found == ({ONE: Drift(Step.SECURITY_GROUPS, ERROR)} if compared else {})
    host.intact = False
    assert not host.auditor.compare(suspicion)


@pytest.mark.parametrize(
    "suspicion",
    [Suspicion(deleted=frozenset({1})), Suspicion(added=frozenset({1})), Suspicion(counted=True)],
    ids=str,
)
def test_changes_that_bundles_of_ours_explain_are_not_compared(
    host: Host, suspicion: Suspicion
) -> None:
    host.explained = True
    assert not host.auditor.compare(suspicion)


def test_what_concerns_no_proven_port_is_repaired_at_once(host: Host) -> None:
    host.auditor.compare(EVERYTHING)
    assert not host.repairs
    host.proven = False
    assert not host.auditor.compare(EVERYTHING)
    assert host.repairs == 1


def test_a_physical_bridge_that_cannot_be_read_hides_nothing(host: Host) -> None:
    host.outside = UNREADABLE
    assert host.auditor.compare(EVERYTHING) == {ONE: Drift(Step.SECURITY_GROUPS, ERROR)}
    host.differs = None
    with pytest.raises(TaskFailed):
        host.auditor.compare(EVERYTHING)


def test_flows_of_the_integration_bridge_explain_more_than_those_outside(host: Host) -> None:
    host.outside = {ONE: OUTSIDE}
    assert host.auditor.compare(EVERYTHING) == {ONE: Drift(Step.SECURITY_GROUPS, ERROR)}
    host.differs = None
    assert host.auditor.compare(EVERYTHING) == {ONE: OUTSIDE}


@pytest.mark.parametrize(
    ("changes", "inside", "outside"),
    [
        (Changes(missed=True), ["br-int"], ["br-ex"]),
        (Changes(modified=True), ["br-int"], ["br-ex"]),
        (Changes(foreign=frozenset({7})), ["br-int"], []),
        (Changes(deleted=frozenset({1})), [], ["br-ex"]),
        (Changes(added=frozenset({1})), [], []),
    ],
    ids=str,
)
def test_what_changes_give_reason_to_compare(
    changes: Changes, inside: list[str], outside: list[str]
) -> None:
    suspicion = suspicion_of("br-int", changes)
    assert list(suspicion.bridges) == inside
    assert suspicion != NONE
    assert list(suspicion_outside("br-ex", changes).bridges) == outside
