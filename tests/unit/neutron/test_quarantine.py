"""Who is closed, and who is let go: on tables without packets."""

import pytest

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.agent.quarantine import Closed, Quarantine
from agent_flows.openflow import cookie, flow
from tests.unit.secgroups.tables import Tables

MAC, SHARED = "fa:16:3e:00:00:01", "fa:16:3e:00:00:aa"
NEW = Closed("new", 5, 1, frozenset({MAC, SHARED}), 1001)
OTHER = Closed("other", 6, 1, frozenset({SHARED}))


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def quarantine(tables: Tables) -> Quarantine:
    quarantine = Quarantine(tables)  # type: ignore[arg-type]
    quarantine.start()
    return quarantine


def program(tables: Tables, ofport: int) -> None:
    """As the firewall does: a way in for what the port sends."""
    door = f"table=60,priority=100,in_port={ofport},vlan_tci=0x0000/0x1000 actions=resubmit(,71)"
    tables.bundle([flow.add(door, cookie.port(ofport, 1))])


def matches(tables: Tables) -> set[str]:
    return {key.split(",", 2)[2] for key in tables.flows}


def test_a_port_is_closed_by_where_it_is_and_by_its_macs(
    tables: Tables, quarantine: Quarantine
) -> None:
    quarantine.close([NEW])
    assert quarantine.holds(5)
    assert {"in_port=5", f"dl_vlan=1,dl_dst={MAC}", f"reg6=1,dl_dst={MAC}"} <= matches(tables)
    quarantine.open([5])
    assert tables.flows == {}
    assert not quarantine.holds(5)


def test_the_same_port_closed_again_costs_nothing(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW])
    quarantine.close([NEW])
    assert len(tables.bundles) == 1


def test_a_programmed_port_is_not_closed(tables: Tables, quarantine: Quarantine) -> None:
    program(tables, 5)
    quarantine.look()
    quarantine.close([NEW])
    assert not quarantine.holds(5)


def test_who_was_let_go_is_not_closed_by_somebody_who_comes_late(
    quarantine: Quarantine,
) -> None:
    quarantine.open([5])
    quarantine.close([NEW])
    assert not quarantine.holds(5)


def test_a_mac_that_an_opened_port_holds_is_closed_for_nobody(
    tables: Tables, quarantine: Quarantine
) -> None:
    quarantine.close([NEW])
    quarantine.open([6], {(1, SHARED)})
    assert f"dl_vlan=1,dl_dst={MAC}" in matches(tables)
    assert f"dl_vlan=1,dl_dst={SHARED}" not in matches(tables)
    assert quarantine.holds(5)


def test_what_was_let_go_can_be_closed_again(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW])
    before = dict(tables.flows)
    quarantine.close_again(quarantine.open([5]))
    assert tables.flows == before
    quarantine.close([NEW])
    assert quarantine.holds(5)


def test_a_gone_port_is_forgotten_by_its_id_or_its_ofport(
    tables: Tables, quarantine: Quarantine
) -> None:
    quarantine.close([NEW, OTHER])
    quarantine.forget(["new"], [])
    assert not quarantine.holds(5)
    quarantine.forget([], [6])
    assert tables.flows == {}


def test_interfaces_that_are_gone_are_swept(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW, OTHER])
    quarantine.sweep({6})
    assert quarantine.holds(6)
    assert not quarantine.holds(5)


def test_a_new_process_finds_the_closed_as_they_are(tables: Tables, quarantine: Quarantine) -> None:
    quarantine.close([NEW])
    later = Quarantine(tables)  # type: ignore[arg-type]
    later.start()
    assert later.holds(5)
    (lifted,) = later.open([5])
    assert (lifted.vlan, lifted.macs, lifted.segment) == (NEW.vlan, NEW.macs, NEW.segment)
    assert tables.flows == {}


def test_what_the_switch_refuses_changes_nothing(tables: Tables, quarantine: Quarantine) -> None:
    tables.refuse = "in_port=5"
    with pytest.raises(TaskFailed) as failed:
        quarantine.close([NEW])
    assert failed.value.error.type == "QuarantineFailed"
    assert not quarantine.holds(5)
    assert tables.flows == {}


def test_a_sealed_port_is_unsealed_when_it_is_let_go_by_a_later_process_too(
    tables: Tables, quarantine: Quarantine
) -> None:
    quarantine.close([NEW, OTHER])
    quarantine.seal([5, 99])
    assert tables.no_forward == {5}
    successor = Quarantine(tables)  # type: ignore[arg-type]
    successor.start()
    successor.open([5, 6])
    assert tables.no_forward == set()
