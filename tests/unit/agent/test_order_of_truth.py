"""Nothing is taken for true of a port before its report is kept."""

import contextlib
import dataclasses
import pathlib
import sqlite3
import types
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from taskflow.patterns import linear_flow

from agent_flows.agent import reconcile
from agent_flows.agent.reconcile import Reconciler
from agent_flows.engine.port_queue import Request, Verdict
from agent_flows.engine.runner import Runner
from agent_flows.engine.task import FlowTask
from agent_flows.l2.interfaces import Interface
from agent_flows.report import FlowName, Step, Trouble
from agent_flows.reporting.outbox import Outbox
from agent_flows.spec import DesiredState, NetworkSpec, NetworkType, PortSpec, Refused
from agent_flows.supervision import Troubles

PORTS = [str(uuid.UUID(int=n)) for n in range(1, 6)]


def spec(port_id: str) -> PortSpec:
    network = NetworkSpec(str(uuid.UUID(int=99)), NetworkType.LOCAL)
    return PortSpec(port_id, 1, "host-1", network, "fa:16:3e:00:00:01")


class Work(FlowTask):
    name_ = "bind-vlan"
    step = Step.L2

    def execute(self, port_ids: Sequence[str]) -> None:
        return None


class Stage:
    """A reconciler whose outbox fails as the test says, and what it did to the switch."""

    def __init__(self, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.troubles = Troubles()
        self.outbox = Outbox(path, 100, self.troubles)
        self.full = False
        self.desired = {port_id: spec(port_id) for port_id in PORTS}
        self.refused: dict[str, Refused] = {}
        self.plugged = {
            port_id: Interface(port_id, f"tap{port_id[-1]}", "", 1) for port_id in PORTS
        }
        self.committed: list[str] = []
        self.runs: list[FlowName] = []
        for flow in FlowName:
            monkeypatch.setitem(reconcile._COMPOSE, flow, self._composer(flow))
        monkeypatch.setattr(
            reconcile.interfaces,
            "find",
            lambda _ovsdb, _bridge, ids: {p: i for p, i in self.plugged.items() if p in ids},
        )
        firewall = types.SimpleNamespace(commit=self.committed.extend)
        switch: Any = types.SimpleNamespace(ovsdb=None, bridge="br-int", firewall=firewall)
        self.reconciler = Reconciler(switch, self, Runner("host-1"), self.outbox)
        self._put = self.outbox._db
        monkeypatch.setattr(self.outbox, "_db", _Disk(self))

    def _composer(self, flow: FlowName) -> Any:
        def compose(_switch: object) -> Any:
            self.runs.append(flow)
            return linear_flow.Flow(str(flow)).add(Work())

        return compose

    def get_ports(self, port_ids: Any = None) -> DesiredState:
        ports = {p: s for p, s in self.desired.items() if p in port_ids and p not in self.refused}
        return DesiredState(ports, {}, {}, dict(self.refused))

    def process(self, attempt: int = 1, **more: Any) -> dict[str, Verdict]:
        return self.reconciler.process([Request(p, attempt, **more) for p in PORTS])

    def reports(self) -> list[tuple[str, FlowName]]:
        return [(r.resource_id, r.flow) for r in self.outbox.oldest(500, 10**7)]


class _Disk(contextlib.AbstractContextManager[Any]):
    """The outbox' connection, on a disk that may be full."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._real = stage, stage._put

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __enter__(self) -> Any:
        return self._real.__enter__()

    def __exit__(self, *exc: Any) -> Any:
        return self._real.__exit__(*exc)

    def execute(self, statement: str, *values: Any) -> Any:
        self._fail_if_full(statement)
        return self._real.execute(statement, *values)

    def executemany(self, statement: str, rows: Any) -> Any:
        self._fail_if_full(statement)
        return self._real.executemany(statement, rows)

    def _fail_if_full(self, statement: str) -> None:
        if self._stage.full and statement.startswith("INSERT"):
            exc = sqlite3.OperationalError("database or disk is full")
            exc.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise exc


@pytest.fixture
def stage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path / "outbox.sqlite", monkeypatch)


def test_ports_whose_reports_cannot_be_kept_are_tried_again_and_count_for_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.full = True
    assert set(stage.process().values()) == {Verdict.RETRY}
    assert (stage.committed, stage.reconciler.proven()) == ([], 0)
    assert stage.reconciler.known() == set(PORTS)
    assert stage.troubles.current()[Trouble.OUTBOX].startswith("disk full")
    assert not [each for each in caplog.records if each.exc_info]
    # In vain is nothing done again ...
    runs = len(stage.runs)
    assert set(stage.process(2).values()) == {Verdict.RETRY}
    assert len(stage.runs) == runs
    # ... and with room again, nothing is lost.
    stage.full = False
    assert set(stage.process(3).values()) == {Verdict.DONE}
    assert sorted(stage.reports()) == sorted((p, FlowName.WIRE) for p in PORTS)
    assert sorted(stage.committed) == PORTS
    assert stage.reconciler.proven() == len(PORTS)
    assert stage.troubles.current() == {}


def test_a_change_is_applied_although_no_report_can_be_kept(stage: Stage) -> None:
    stage.full = True
    stage.process()
    changed = PORTS[0]
    stage.desired[changed] = dataclasses.replace(spec(changed), revision=2, admin_state_up=False)
    runs = len(stage.runs)
    stage.process(2)
    assert len(stage.runs) == runs + 1
    stage.process(3)
    assert len(stage.runs) == runs + 1


def test_the_absence_of_a_port_is_not_forgotten_when_its_report_cannot_be_kept(
    stage: Stage,
) -> None:
    stage.process()
    stage.outbox.forget([r.id for r in stage.outbox.oldest(500, 10**7)])
    stage.full = True
    stage.plugged.clear()
    assert set(stage.process().values()) == {Verdict.RETRY}
    assert stage.reconciler.known() == set(PORTS)
    assert stage.reconciler.proven() == 0
    stage.full = False
    assert set(stage.process(2).values()) == {Verdict.DONE}
    assert sorted(stage.reports()) == sorted((p, FlowName.UNWIRE) for p in PORTS)
    assert stage.reconciler.known() == frozenset()


def test_a_port_plugged_again_before_its_absence_could_be_reported_is_wired(stage: Stage) -> None:
    stage.process()
    stage.full = True
    plugged = dict(stage.plugged)
    stage.plugged.clear()
    stage.process()
    stage.full = False
    stage.plugged.update(plugged)
    stage.runs.clear()
    assert set(stage.process(2).values()) == {Verdict.DONE}
    assert stage.runs == [FlowName.WIRE]


def test_an_invalid_spec_is_reported_when_there_is_room(stage: Stage) -> None:
    stage.refused = {p: Refused("mac_address: must be a MAC address", 2, "") for p in PORTS}
    stage.full = True
    assert set(stage.process().values()) == {Verdict.RETRY}
    stage.full = False
    assert set(stage.process(2).values()) == {Verdict.RETRY}
    [first, *_] = stage.outbox.oldest(500, 10**7)
    assert first.failed is not None
    assert first.failed.error is not None
    assert first.failed.error.message == "invalid port spec: mac_address: must be a MAC address"


def test_a_batch_is_one_transaction_of_the_outbox(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts: list[int] = []
    put = stage.outbox.put
    monkeypatch.setattr(stage.outbox, "put", lambda items: (puts.append(len(items)), put(items)))
    stage.process()
    assert [each for each in puts if each] == [len(PORTS)]


def test_a_port_that_is_no_longer_bound_is_unwired_without_a_report(stage: Stage) -> None:
    stage.process()
    before = len(stage.reports())
    stage.desired.clear()
    assert set(stage.process().values()) == {Verdict.DONE}
    assert len(stage.reports()) == before
    assert stage.reconciler.known() == frozenset()
