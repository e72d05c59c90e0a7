"""The search finds mistakes that are put into the code of invariants."""

from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import pytest
from hypothesis.stateful import run_state_machine_as_test

from agent_flows.report import FlowReport
from agent_flows.reporting.comparison import Comparison
from agent_flows.reporting.outbox import Outbox
from agent_flows.secgroups.firewall import Firewall
from agent_flows.server.core import gate
from agent_flows.server.core.gate import PortState
from tests.simulation.machine import Histories
from tests.simulation.search import settings

HISTORIES = 1000
"""At most; measured, each is found within the first hundred or so."""


def _any_report_proves(port: PortState, report: FlowReport, step: object) -> bool:
    return True


_oldest = Outbox.oldest


def _deleted_when_sent(outbox: Outbox, limit: int, max_bytes: int) -> list[FlowReport]:
    reports = _oldest(outbox, limit, max_bytes)
    Outbox.forget(outbox, [report.id for report in reports])
    return reports


def _nothing(*_: Any, **__: Any) -> None:
    return None


MISTAKES: Mapping[str, tuple[object, str, Callable[..., Any]]] = {
    "2: any report proves a port": (gate, "_proves", _any_report_proves),
    "2: flows are not verified": (Firewall, "apply", _nothing),
    "3: reports are deleted when they are sent": (Outbox, "oldest", _deleted_when_sent),
    "12: digests are not compared": (Comparison, "answered", _nothing),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found(mistake: str) -> None:
    where, name, instead = MISTAKES[mistake]
    with mock.patch.object(where, name, instead), pytest.raises(AssertionError) as found:
        run_state_machine_as_test(Histories, settings=settings(HISTORIES, shrink=False))
    assert "invariant" in str(found.value) or "converged" in str(found.value)
