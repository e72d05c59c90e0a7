"""What differs from what was compiled, and which strangers decide about a port's packets."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

import pytest

from agent_flows.engine.task import PortErrors
from agent_flows.openflow import cookie, dump
from agent_flows.openflow.flow import Action, Flow, Term, add
from agent_flows.openflow.pipeline import Home, Pipeline, Table
from agent_flows.secgroups import difference
from agent_flows.secgroups.firewall import Firewall
from agent_flows.secgroups.strangers import overruled
from agent_flows.spec import DesiredState
from tests.unit.secgroups.specs import attached, group, port
from tests.unit.secgroups.tables import Tables

NEUTRONS_COOKIE = 0x1234
SSH = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}


class OneNetwork:
    """One flow of a network."""

    flow = Flow(Table.UPLINK, 100, (Term("reg6=1"),), (Action("output:7"),))

    def flow_count(self) -> int:
        return 1

    @contextlib.contextmanager
    def held_flows(self) -> Iterator[Mapping[int, Sequence[Flow]]]:
        yield {cookie.network(1): [self.flow]}

    def uplinks(self) -> frozenset[int]:
        return frozenset({7})


class House:
    """Six wired ports, more than are compared in full each time."""

    def __init__(self, firewall: Firewall, tables: Tables) -> None:
        self.firewall, self.tables = firewall, tables
        ports = [port(n, group(1)) for n in range(1, 7)]
        self.ids = [wired.id for wired in ports]
        firewall.start()
        desired = DesiredState.of([*ports, group(1, SSH)])
        firewall.apply(desired, {wired.id: attached(wired, n) for n, wired in enumerate(ports, 1)})
        firewall.prove(self.ids)
        firewall.commit(self.ids)
        self.right = dict(tables.flows)

    def add(self, key: str, actions: str, value: int = 0) -> None:
        self.tables.flows[key] = (value, actions)

    def failures(self) -> dict[str, str]:
        try:
            self.firewall.prove(self.ids)
        except PortErrors as exc:
            return {port_id: error.type for port_id, error in exc.errors.items()}
        return {}


@pytest.fixture
def own() -> House:
    tables = Tables()
    tables.bundle([add(str(OneNetwork.flow), cookie.network(1))])
    firewall = Firewall(tables, networks=OneNetwork())  # type: ignore[arg-type]
    return House(firewall, tables)


@pytest.fixture
def neutrons() -> House:
    tables = Tables()
    tables.flows["table=60,priority=3"] = (NEUTRONS_COOKIE, "NORMAL")
    firewall = Firewall(
        tables,  # type: ignore[arg-type]
        Pipeline(Home.NEUTRON),
        reserved=lambda value: value == NEUTRONS_COOKIE,
    )
    return House(firewall, tables)


@pytest.mark.parametrize("place", ["own", "neutrons"])
def test_changed_actions_of_any_flow_are_written_again_when_distrusted(
    place: str, request: pytest.FixtureRequest
) -> None:
    house = request.getfixturevalue(place)
    for key, (value, _) in house.right.items():
        if cookie.is_ours(value):
            house.add(key, "resubmit(,254)", value)
    house.firewall.distrust()
    assert house.failures() == {}
    assert house.tables.flows == house.right


@pytest.mark.parametrize("value", [0, cookie.port(3, 1), cookie.network(1), cookie.OWNER << 48])
def test_flow_that_was_not_compiled_is_removed_and_named_on_our_bridge(
    own: House, value: int, caplog: pytest.LogCaptureFixture
) -> None:
    own.add("table=82,priority=65000,reg5=2", "output:2", value)
    with caplog.at_level(logging.WARNING):
        assert own.failures() == {}
    assert own.tables.flows == own.right
    assert f"cookie={value:#x},table=82,priority=65000,reg5=2 actions=output:2" in caplog.text


def test_many_unchanged_ports_cost_one_count(own: House) -> None:
    asked: list[str] = []
    own.tables.differences = lambda _: asked.append("all")  # type: ignore[method-assign,assignment,func-returns-value,return-value]
    own.firewall.prove(own.ids)
    assert asked == []


def test_few_ports_are_compared_flow_by_flow(own: House) -> None:
    key = next(key for key in own.right if "tp_dst=22" in key and "reg5=2" in key)
    own.add(key, "drop", own.right[key][0])
    own.firewall.prove(own.ids[:2])
    assert own.tables.flows == own.right


def test_unowned_flow_on_neutrons_bridge_fails_its_port_until_it_is_removed(
    neutrons: House,
) -> None:
    neutrons.add("table=82,priority=65000,reg5=2", "output:2", 0x99)
    neutrons.firewall.distrust()
    for _ in range(2):
        assert neutrons.failures() == {neutrons.ids[1]: "StrangersFlow"}
    del neutrons.tables.flows["table=82,priority=65000,reg5=2"]
    assert neutrons.failures() == {}
    assert neutrons.tables.flows == neutrons.right


def test_flow_of_a_known_owner_on_neutrons_bridge_is_left_alone(neutrons: House) -> None:
    neutrons.add("table=60,priority=200,in_port=2", "NORMAL", NEUTRONS_COOKIE)
    neutrons.firewall.distrust()
    assert neutrons.failures() == {}
    assert "table=60,priority=200,in_port=2" in neutrons.tables.flows


OURS = frozenset({5, 6})


def concerned(text: str) -> set[int]:
    table, _, rest = text.partition(" ")
    line = f"-{rest}" if table == "table=0" else f"-{text}"
    (found,) = difference.of(dump.read_differences([line])).strange
    return set(overruled(found, OURS))


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("table=82 priority=65000,reg5=0x5 actions=output:5", {5}),
        ("table=82 priority=1,ip actions=resubmit(,83)", {5, 6}),
        ("table=93 priority=1,tcp,reg5=0x6 actions=output:6", {6}),
        ("table=73 priority=1,reg5=0x5 actions=output:6", {5, 6}),
        ("table=84 reg5=0x7 actions=output:7", set()),
        ("table=60 priority=100,in_port=5,tcp actions=NORMAL", {5}),
        ("table=60 priority=94,in_port=5 actions=NORMAL", set()),
        ("table=60 priority=90,dl_vlan=1 actions=NORMAL", {5, 6}),
        ("table=60 priority=89,dl_vlan=1 actions=NORMAL", set()),
        ("table=60 priority=7,in_port=99 actions=drop", set()),
        ("table=60 priority=7,in_port=99 actions=output:5", {5}),
        ("table=60 priority=91,in_port=99 actions=NORMAL", {5, 6}),
        ("table=0 priority=1,in_port=6 actions=NORMAL", {6}),
        ("table=0 priority=0 actions=resubmit(,60)", set()),
        ("table=0 priority=3,in_port=99,dl_vlan=1001 actions=mod_vlan_vid:1,resubmit(,58)", set()),
        ("table=0 priority=65535,dl_vlan=4095 actions=drop", set()),
        ("table=0 priority=11,ip actions=NORMAL", {5, 6}),
        ("table=0 priority=50,in_port=99 actions=load:0x5->NXM_NX_REG5[],resubmit(,84)", {5}),
        ("table=31 priority=1,in_port=6 actions=resubmit(,94)", {6}),
        ("table=25 priority=2,in_port=9 actions=resubmit(,60)", set()),
    ],
)
def test_ports_concerned_by_an_unowned_flow_on_neutrons_bridge(text: str, ports: set[int]) -> None:
    assert concerned(text) == ports


def test_flow_with_the_same_key_is_one_change() -> None:
    lines = [
        "-table=82 priority=7,reg5=0x1 cookie=0x1 idle_timeout=5 actions=drop",
        "+table=82 priority=7,reg5=0x1 cookie=0xaf10010000010001 actions=output:1",
    ]
    found = difference.of(dump.read_differences(lines))
    assert [str(flow) for flow in found.missing] == [
        "cookie=0xaf10010000010001,table=82,priority=7,reg5=0x1 actions=output:1"
    ]
    assert (found.surplus, found.strange) == ((), ())


@pytest.mark.parametrize("last", ["the delivery", "the copy"])
def test_copied_cookie_makes_no_port_a_receiver_after_a_restart(own: House, last: str) -> None:
    key = next(key for key in own.right if key.startswith("table=73,priority=100,"))
    value, actions = own.right[key]
    copy = (value, "load:77->NXM_NX_REG5[],resubmit(,81)")
    own.add(key.replace("priority=100", "priority=400"), copy[1], value)
    if last == "the delivery":
        del own.tables.flows[key]
        own.add(key, actions, value)
    restarted = Firewall(own.tables, networks=OneNetwork())  # type: ignore[arg-type]
    House(restarted, own.tables)
    restarted.sweep(set(own.ids))
    assert own.tables.flows.keys() == own.right.keys()
    assert own.tables.flows[key] == own.right[key]
