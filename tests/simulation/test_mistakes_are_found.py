"""The search finds mistakes that are put into the code of invariants."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest

from agent_flows.engine.port_life import Life, Phase, Verdict
from agent_flows.engine.port_table import PortTable
from agent_flows.engine.reconciler import Reconciler, Sight
from agent_flows.report import FlowReport
from agent_flows.reporting.comparison import Comparison
from agent_flows.reporting.outbox import Outbox
from agent_flows.secgroups.firewall import Firewall
from agent_flows.secgroups.strangers import OwnBridge
from agent_flows.server.core import gate, history, liveness
from agent_flows.server.core.liveness import Liveness
from tests.simulation.machine import Histories
from tests.simulation.search import SEEDS, search


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


_submit = PortTable.submit


def _only_idle(table: PortTable, port_ids: Iterable[str], **how: Any) -> None:
    idle = [id_ for id_ in port_ids if table.life(id_).phase is not Phase.RUNNING]
    _submit(table, idle, **how)


_release = PortTable._release


def _superseded_if_done(table: PortTable, life: Life, verdict: Verdict, due: Any) -> None:
    kept = life.superseding if verdict is Verdict.DONE else None
    _release(table, dataclasses.replace(life, superseding=kept), verdict, due)


def _no_reason(*_: Any) -> str:
    return ""


def _no_strangers(*_: Any) -> tuple[()]:
    return ()


MISTAKES: Mapping[str, tuple[object, str, Callable[..., Any]]] = {
    "2: any report proves a port": (gate, "_proves", _true),
    "2: flows are not installed": (Firewall, "apply", _nothing),
    "3: reports are deleted when they are sent": (Outbox, "oldest", _deleted_when_sent),
    "3: what failed is not kept": (history, "add", _successes_only),
    "4: a report of an older revision proves a port": (gate, "_current", _true),
    "4: a host reports ports of another one": (gate, "_refusal", _no_reason),
    "5: what is asked for while a flow runs is lost": (PortTable, "submit", _only_idle),
    "5: ... if the flow fails": (PortTable, "_release", _superseded_if_done),
    "10: any agent reports for a host": (Liveness, "admits", _true),
    "10: any process speaks for a host": (liveness, "speaks", _true),
    "11: flows of strangers are not found": (OwnBridge, "strange", _no_strangers),
    "12: digests are not compared": (Comparison, "answered", _nothing),
    "14: what could not be stored is believed": (Reconciler, "_deliver", _believed),
}


def _search() -> None:
    # In the end no cast hides a mistake.
    with mock.patch.object(Histories, "_casts", False):
        for seed in SEEDS:
            search(seed, shrink=False)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found(mistake: str) -> None:
    with mock.patch.object(*MISTAKES[mistake]), pytest.raises(AssertionError) as found:
        _search()
    assert "invariant" in str(found.value) or "converged" in str(found.value)
