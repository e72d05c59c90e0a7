"""Which ports are closed and opened: on tables without packets."""

import pytest

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.agent.quarantine import Endpoint, Quarantine
from agent_flows.openflow import cookie, flow
from tests.unit.secgroups.tables import Tables

MAC, SHARED = "fa:16:3e:00:00:01", "fa:16:3e:00:00:aa"
NEW = Endpoint("new", 5, 1, frozenset({MAC, SHARED}), 1001)
FLOOR = "table=60,priority=2"
OTHER = Endpoint("other", 6, 1, frozenset({SHARED}))


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def quarantine(tables: Tables) -> Quarantine:
    quarantine = Quarantine(tables)  # type: ignore[arg-type]
    quarantine.start()
    return quarantine


def program(tables: Tables, ofport: int) -> None:
    """As the firewall does: the entry flow of what the port sends."""
    entry = f"table=60,priority=100,in_port={ofport},vlan_tci=0x0000/0x1000 actions=resubmit(,71)"
    tables.bundle([flow.add(entry, cookie.port(ofport, 1))])


def is_closed(tables: Tables, ofport: int) -> bool:
    return f"in_port={ofport}" in matches(tables)


def matches(tables: Tables) -> set[str]:
    """But for the floor, which matches everything."""
    return {key.split(",", 2)[2] for key in tables.flows if key != FLOOR}


def test_port_is_closed_by_ofport_and_macs(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW])
    assert is_closed(tables, 5)
    assert {"in_port=5", f"dl_vlan=1,dl_dst={MAC}", f"reg6=1,dl_dst={MAC}"} <= matches(tables)
    quarantine.open([NEW])
    assert matches(tables) == set()
    assert not is_closed(tables, 5)


def test_closing_a_closed_port_sends_nothing(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW])
    sent = len(tables.bundles)
    quarantine.close([NEW])
    assert len(tables.bundles) == sent


def test_programmed_port_is_not_closed(tables: Tables, quarantine: Quarantine) -> None:
    program(tables, 5)
    quarantine.close_failed([NEW])
    assert not is_closed(tables, 5)


def test_opened_port_is_not_closed_by_a_late_call(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.open([NEW])
    quarantine.close([NEW])
    assert not is_closed(tables, 5)


def test_mac_of_an_opened_port_is_no_longer_closed_for_another_port(
    tables: Tables, quarantine: Quarantine
) -> None:
    quarantine.close([NEW])
    quarantine.open([OTHER])
    assert f"dl_vlan=1,dl_dst={MAC}" in matches(tables)
    assert f"dl_vlan=1,dl_dst={SHARED}" not in matches(tables)
    assert is_closed(tables, 5)


def test_opened_port_can_be_closed_again(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW])
    before = dict(tables.flows)
    quarantine.close_again(quarantine.open([NEW]))
    assert tables.flows == before
    quarantine.close([NEW])
    assert is_closed(tables, 5)


def test_port_is_forgotten_by_its_id_or_its_ofport(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW, OTHER])
    quarantine.forget(["new"], [])
    assert not is_closed(tables, 5)
    quarantine.forget([], [6])
    assert matches(tables) == set()


def test_ports_without_interface_are_swept(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW, OTHER])
    quarantine.sweep({6})
    assert is_closed(tables, 6)
    assert not is_closed(tables, 5)


def test_new_process_reads_the_closed_ports(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW])
    later = Quarantine(tables)  # type: ignore[arg-type]
    later.start()
    assert is_closed(tables, 5)
    (opened,) = later.open([NEW])
    assert (opened.vlan, opened.macs, opened.segment) == (NEW.vlan, NEW.macs, NEW.segment)
    assert matches(tables) == set()


def test_refused_bundle_changes_nothing(tables: Tables, quarantine: Quarantine) -> None:
    tables.refuse = "in_port=5"
    with pytest.raises(TaskFailed) as failed:
        quarantine.close([NEW])
    assert failed.value.error.type == "QuarantineFailed"
    assert not is_closed(tables, 5)
    assert matches(tables) == set()


def test_later_process_unseals_a_port_that_it_opens(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close_failed([NEW])
    quarantine.close([OTHER])
    assert tables.no_forward == {5}
    successor = Quarantine(tables)  # type: ignore[arg-type]
    successor.start()
    successor.open([NEW, OTHER])
    assert tables.no_forward == set()


def test_mac_of_a_programmed_port_is_not_closed_for_another_port(
    tables: Tables, quarantine: Quarantine
) -> None:
    quarantine.open([OTHER])
    quarantine.close([NEW])
    assert f"dl_vlan=1,dl_dst={MAC}" in matches(tables)
    assert f"dl_vlan=1,dl_dst={SHARED}" not in matches(tables)
    quarantine.forget(["other"], [])
    quarantine.close([NEW])
    assert f"dl_vlan=1,dl_dst={SHARED}" in matches(tables)


def test_floor_is_installed_when_the_pipeline_is(tables: Tables, quarantine: Quarantine) -> None:
    assert FLOOR in tables.flows


@pytest.mark.parametrize("lost", [FLOOR, "table=60,priority=200,in_port=5"])
def test_deleted_flows_are_restored(tables: Tables, quarantine: Quarantine, lost: str) -> None:
    quarantine.close([NEW, OTHER])
    before = dict(tables.flows)
    tables.bundle([flow.delete_key(lost)])
    assert tables.flows != before
    quarantine.restore()
    assert tables.flows == before


def test_nothing_is_sent_while_nothing_is_lost(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW, OTHER])
    sent = len(tables.bundles)
    quarantine.restore()
    assert len(tables.bundles) == sent
