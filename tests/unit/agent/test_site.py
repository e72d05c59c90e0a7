"""The standalone host: no port is proven before its report is stored."""

import contextlib
import dataclasses
import pathlib
import sqlite3
import types
import uuid
from collections.abc import Sequence
from typing import Any

import oslo_messaging
import pytest
from taskflow.patterns import linear_flow

from agent_flows.agent import flows
from agent_flows.agent.site import AgentSite, is_early, revisions
from agent_flows.engine.port_life import Life, Phase, Request
from agent_flows.engine.reconciler import Reconciler
from agent_flows.engine.runner import Runner
from agent_flows.engine.task import FlowTask
from agent_flows.l2 import interfaces
from agent_flows.l2.interfaces import Interface
from agent_flows.report import FlowName, Step, Trouble
from agent_flows.reporting.outbox import Outbox
from agent_flows.rpc.desired import Known, Update, whole
from agent_flows.spec import DesiredState, NetworkSpec, NetworkType, PortSpec, Refused
from agent_flows.supervision import Backoff, Troubles

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
    """A reconciler whose disk the test can fill; records the flows that ran."""

    def __init__(self, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.troubles = Troubles()
        self.outbox = Outbox(path, 100, self.troubles)
        self.full = False
        self.unreachable = False
        self.desired = {port_id: spec(port_id) for port_id in PORTS}
        self.refused: dict[str, Refused] = {}
        self.plugged = {
            port_id: Interface(port_id, f"tap{port_id[-1]}", "", 1) for port_id in PORTS
        }
        self.runs: list[FlowName] = []
        for flow in FlowName:
            if flow is FlowName.AUDIT:  # It is no flow that runs.
                continue
            monkeypatch.setattr(flows, flow.value, self._composer(flow))
        monkeypatch.setattr(
            interfaces,
            "find",
            lambda _ovsdb, _bridge, ids: {p: i for p, i in self.plugged.items() if p in ids},
        )
        switch: Any = types.SimpleNamespace(ovsdb=None, bridge="br-int")
        self.reconciler = Reconciler(
            AgentSite(switch, self, self.outbox),
            Runner("host-1"),
            backoff=Backoff(1.0, 60.0),
            max_batch=100,
            troubles=self.troubles,
        )
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

    def get_desired(self, port_ids: Any, known: Known) -> Update:
        if self.unreachable:
            raise oslo_messaging.MessagingTimeout
        return whole(self.get_ports(port_ids))

    def process(self, **more: Any) -> set[Phase]:
        """The phases the ports are in afterwards."""
        self.reconciler.submit(PORTS, **more)
        self.reconciler.finish(PORTS)
        return {self.reconciler.table.life(port_id).phase for port_id in PORTS}

    @property
    def known(self) -> set[str]:
        return set(self.reconciler.table.known())

    @property
    def proven(self) -> set[str]:
        return {p for p, life in self.reconciler.table.lives().items() if life.proven}

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


def test_ports_whose_reports_cannot_be_stored_are_tried_again_and_are_not_proven(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.full = True
    assert stage.process() == {Phase.DELAYED}
    assert stage.proven == set()
    assert stage.known == set(PORTS)
    assert stage.troubles.current()[Trouble.OUTBOX].startswith("disk full")
    assert not [record for record in caplog.records if record.exc_info]
    # While the disk is full, no flow runs again.
    runs = len(stage.runs)
    assert stage.process() == {Phase.DELAYED}
    assert len(stage.runs) == runs
    # When there is room, each report is stored.
    stage.full = False
    assert stage.process() == {Phase.PROVEN}
    assert sorted(stage.reports()) == sorted((p, FlowName.WIRE) for p in PORTS)
    assert stage.proven == set(PORTS)
    assert stage.troubles.current() == {}


def test_a_change_is_applied_when_no_report_can_be_stored(stage: Stage) -> None:
    stage.full = True
    stage.process()
    changed = PORTS[0]
    stage.desired[changed] = dataclasses.replace(spec(changed), revision=2, admin_state_up=False)
    runs = len(stage.runs)
    # As the server's cast about it does.
    stage.process(asked=True)
    assert len(stage.runs) == runs + 1
    stage.process()
    assert len(stage.runs) == runs + 1


def test_a_port_known_before_it_is_plugged_is_wired_without_asking(stage: Stage) -> None:
    plugged = dict(stage.plugged)
    stage.plugged.clear()
    stage.process(forced=True)
    stage.plugged.update(plugged)
    stage.unreachable = True
    assert stage.process() == {Phase.PROVEN}
    assert stage.runs[-1] is FlowName.WIRE


def test_a_port_that_the_server_has_a_message_about_is_asked_for(stage: Stage) -> None:
    stage.process()
    stage.unreachable = True
    assert stage.process(asked=True) == {Phase.DELAYED}


def test_the_absence_of_a_port_is_reported_when_there_is_room(
    stage: Stage,
) -> None:
    stage.process()
    stage.outbox.forget([r.id for r in stage.outbox.oldest(500, 10**7)])
    stage.full = True
    stage.plugged.clear()
    assert stage.process() == {Phase.DELAYED}
    assert stage.known == set(PORTS)
    assert stage.proven == set()
    stage.full = False
    assert stage.process() == {Phase.ABSENT}
    assert sorted(stage.reports()) == sorted((p, FlowName.UNWIRE) for p in PORTS)
    assert stage.known == set()


def test_a_port_plugged_again_before_its_absence_is_reported_is_wired(stage: Stage) -> None:
    stage.process()
    stage.full = True
    plugged = dict(stage.plugged)
    stage.plugged.clear()
    stage.process()
    stage.full = False
    stage.plugged.update(plugged)
    stage.runs.clear()
    assert stage.process() == {Phase.PROVEN}
    assert stage.runs == [FlowName.WIRE]


def test_an_invalid_spec_is_reported_when_there_is_room(stage: Stage) -> None:
    stage.refused = {p: Refused("mac_address: must be a MAC address", 2, "") for p in PORTS}
    stage.full = True
    assert stage.process() == {Phase.DELAYED}
    stage.full = False
    assert stage.process() == {Phase.DELAYED}
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
    assert [count for count in puts if count] == [len(PORTS)]


def test_a_port_that_is_no_longer_bound_is_unwired_without_a_report(stage: Stage) -> None:
    stage.process()
    before = len(stage.reports())
    stage.desired.clear()
    assert stage.process(asked=True) == {Phase.NEW}
    assert len(stage.reports()) == before
    assert stage.known == set()


def test_an_interface_that_the_switch_has_not_opened_is_waited_for_once() -> None:
    port = PORTS[0]
    unsettled = {port: Interface(port, "tap1", "", None)}
    assert is_early(Life(Request(port)), unsettled)
    assert not is_early(Life(Request(port, looked=True)), unsettled)
    assert not is_early(Life(Request(port, attempt=2)), unsettled)
    broken = {port: Interface(port, "tap1", "", None, error="No such device")}
    assert not is_early(Life(Request(port)), broken)


def test_a_port_the_server_names_is_waited_for_once_if_it_has_no_interface() -> None:
    port = PORTS[0]
    assert is_early(Life(Request(port, asked=True)), {})
    assert not is_early(Life(Request(port, asked=True, looked=True)), {})
    assert not is_early(Life(Request(port, asked=True, forced=True)), {})
    assert not is_early(Life(Request(port)), {})


def test_a_missing_group_is_left_out_so_that_its_port_fails_alone() -> None:
    missing = dataclasses.replace(spec(PORTS[0]), security_groups=(str(uuid.UUID(int=50)),))
    assert revisions(missing, DesiredState({PORTS[0]: missing})) == {}


def test_a_report_that_cannot_even_be_written_is_the_trouble_of_its_ports(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_reports: Any) -> None:
        raise TypeError("no report")

    with monkeypatch.context() as broken:
        broken.setattr(stage.outbox, "put", fails)
        assert stage.process() == {Phase.DELAYED}
    assert "TypeError: no report" in stage.troubles.current()[Trouble.PORTS]
    assert stage.process() == {Phase.PROVEN}
    assert stage.troubles.current() == {}
