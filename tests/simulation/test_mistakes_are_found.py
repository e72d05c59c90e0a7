"""The search finds mistakes that are put into the code of invariants."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest

from agent_flows.agent.auditor import AgentAuditor
from agent_flows.engine.reconciler import Reconciler, Sight
from agent_flows.report import FlowReport
from agent_flows.reporting.comparison import Comparison
from agent_flows.reporting.outbox import Outbox
from agent_flows.secgroups.firewall import Firewall
from agent_flows.server.core import gate, history
from agent_flows.server.core.liveness import Liveness
from tests.simulation.search import HISTORIES, SEEDS, search


def _true(*_: Any, **__: Any) -> bool:
    return True


def _nothing(*_: Any, **__: Any) -> None:
    return None


_oldest = Outbox.oldest


def _deleted_when_sent(outbox: Outbox, limit: int, max_bytes: int) -> list[FlowReport]:
    reports = _oldest(outbox, limit, max_bytes)
    Outbox.forget(outbox, [report.id for report in reports])
    return reports


_add = history.add


def _successes_only(session: Any, reports: Sequence[FlowReport], now: Any) -> None:
    _add(session, [report for report in reports if report.failed is None], now)


def _believed(reconciler: Reconciler, reports: Sequence[FlowReport], sight: Sight) -> bool:
    with contextlib.suppress(Exception):
        reconciler._site.deliver(reports, sight)
    return True


def _no_drift(*_: Any) -> Mapping[str, Any]:
    return {}


MISTAKES: Mapping[str, tuple[object, str, Callable[..., Any]]] = {
    "2: any report proves a port": (gate, "_proves", _true),
    "2: flows are not installed": (Firewall, "apply", _nothing),
    "3: reports are deleted when they are sent": (Outbox, "oldest", _deleted_when_sent),
    "3: what failed is not kept": (history, "add", _successes_only),
    "10: any agent reports for a host": (Liveness, "admits", _true),
    "11: a drift is not found": (AgentAuditor, "compare", _no_drift),
    "12: digests are not compared": (Comparison, "answered", _nothing),
    "14: what could not be stored is believed": (Reconciler, "_deliver", _believed),
}


def _search() -> None:
    for seed in SEEDS:
        search(HISTORIES, seed, shrink=False)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found(mistake: str) -> None:
    with mock.patch.object(*MISTAKES[mistake]), pytest.raises(AssertionError) as found:
        _search()
    assert "invariant" in str(found.value) or "converged" in str(found.value)
