"""Another program changes what was proven on Neutron's bridge: found, reported, repaired."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from oslo_config import cfg

from agent_flows.engine.drift import COMPARE_SWITCH
from agent_flows.neutron.agent import auditor
from agent_flows.neutron.agent.quarantine import Endpoint
from agent_flows.report import FlowName, FlowReport, Step, TaskError
from lab.process import wait_until
from tests.functional.neutron.cloud import SECONDS, WEB, Cloud
from tests.functional.secgroups.host import BRIDGE, Vm, outsider

STRANGER = "cookie=0x99"


@pytest.fixture
def vms(cloud: Cloud) -> list[Vm]:
    """Two proven ports that let the web in; the server has them up."""
    group = cloud.open_group(WEB)
    made = [cloud.boot_port(1, group), cloud.boot_port(2, group)]
    cloud.wire_ports(*made)
    for vm in made:
        details = {"port_id": vm.id, "status": "ACTIVE", "admin_state_up": True}
        cloud.driver.handle(details)
    assert right(cloud, made)
    return made


def right(cloud: Cloud, vms: list[Vm]) -> bool:
    """What may pass does, and nothing else."""
    one, two = vms
    return (
        all(cloud.tcp(outsider(), vm, 80) for vm in vms)
        and cloud.tcp(one, two, 80)
        and not cloud.tcp(outsider(), one, 81)
        and not cloud.tcp(one, two, 81)
    )


def ofctl(cloud: Cloud, *args: str) -> None:
    options = [each for each in args if each.startswith("--")]
    command, *rest = [each for each in args if not each.startswith("--")]
    cloud.switch.ofctl(*options, command, cloud.switch.management(BRIDGE), *rest)


def drift(cloud: Cloud, vm: Vm, after: int) -> TaskError:
    """Wait until drift of the port is reported; what was."""
    report = cloud.reported(vm, lambda each: each.flow is FlowName.AUDIT, after)
    (task,) = report.tasks
    assert task.name == COMPARE_SWITCH
    assert task.error is not None
    assert task.error.type == "Drift"
    return task.error


def flow_after_drift(cloud: Cloud, vm: Vm, after: int) -> FlowReport:
    """The first attempt at the repair."""

    def found() -> FlowReport | None:
        reports = cloud.reports_of(vm)[after:]
        flows = [each.flow for each in reports]
        number = flows.index(FlowName.AUDIT) + 1 if FlowName.AUDIT in flows else len(flows)
        return next(iter(reports[number:]), None)

    return wait_until(found, SECONDS, "the repair's report")


CHANGES = {
    "rule flows of a port deleted": (["del-flows", "table=82,reg5={ofport}"], "missing"),
    "a table deleted": (["del-flows", "table=82"], "missing"),
    "the transient table deleted": (["del-flows", "table=60"], "missing"),
    "everything on the bridge deleted": (["del-flows"], "missing"),
    "all flows of a port deleted": (
        ["del-flows", "cookie={port_cookie:#x}/0xffffffffffff0000"],
        "missing",
    ),
    "a port's delivery deleted": (["del-flows", "dl_dst={mac}"], "missing"),
    "actions of a rule modified": (
        ["mod-flows", "table=82,reg5={ofport},actions=drop"],
        "changed",
    ),
    "default of a table modified": (
        ["--strict", "mod-flows", "table=82,priority=0,actions=resubmit(,83)"],
        "changed",
    ),
    "a flow of ours overwritten": (["add-flow", "table=82,priority=0,actions=NORMAL"], "changed"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=list(CHANGES))
def test_changed_flows_are_reported_and_repaired(
    cloud: Cloud, vms: list[Vm], change: list[str], message: str
) -> None:
    one = vms[0]
    ofport, seen = cloud.switch.ofport(one.name), len(cloud.reports_of(one))
    port_cookie = 0xAF1001 << 40 | ofport << 16
    before = sorted(cloud.ofctl.dump())
    names = {"ofport": ofport, "mac": one.mac, "port_cookie": port_cookie}
    ofctl(cloud, *(word.format(**names) for word in change))
    error = drift(cloud, one, seen)
    assert message in error.message
    assert error.detail
    assert flow_after_drift(cloud, one, seen).failed is None
    wait_until(lambda: sorted(cloud.ofctl.dump()) == before, SECONDS, "the flows as before")
    if change != ["del-flows"]:
        # Neutron's own flows are not ours to write.
        assert right(cloud, vms)


STRANGERS = {
    "over a port in a table that decides": (
        "table=82,priority=65000,reg5={ofport},actions=output:{ofport}"
    ),
    "past a port's rules": "table=81,priority=1000,tcp,reg5={ofport},actions=resubmit(,84)",
    "delivery to a port": (
        "table=60,priority=500,dl_vlan=1,dl_dst={mac},actions=strip_vlan,output:{ofport}"
    ),
    "delivery in front of everything": "table=0,priority=500,dl_dst={mac},actions=output:{ofport}",
    "NORMAL in front of everything": "table=0,priority=65000,actions=NORMAL",
}


@pytest.mark.parametrize("text", STRANGERS.values(), ids=list(STRANGERS))
@pytest.mark.parametrize("cookie", ["", f"{STRANGER},"], ids=["without cookie", "with a cookie"])
def test_a_strangers_flow_takes_the_port_down_until_it_is_gone(
    cloud: Cloud, vms: list[Vm], text: str, cookie: str
) -> None:
    one = vms[0]
    seen = len(cloud.reports_of(one))
    added = text.format(ofport=cloud.switch.ofport(one.name), mac=one.mac)
    ofctl(cloud, "add-flow", f"{cookie}{added}")
    error = drift(cloud, one, seen)
    assert "1 of another program" in error.message
    failed = flow_after_drift(cloud, one, seen).failed
    assert failed is not None
    assert failed.error is not None
    assert failed.error.type == "StrangersFlow"
    # On Neutron's bridge it is not ours to remove.
    value = int(STRANGER.partition("=")[2], 0) if cookie else 0
    assert value in {entry.cookie for entry in cloud.ofctl.dump(0, 0)}
    ofctl(cloud, "--strict", "del-flows", added.partition(",actions")[0])
    cloud.heals(one)
    assert right(cloud, vms)


def test_a_strangers_flow_over_one_port_concerns_no_other(cloud: Cloud, vms: list[Vm]) -> None:
    one, two = vms
    seen = {vm: len(cloud.reports_of(vm)) for vm in vms}
    ofport = cloud.switch.ofport(one.name)
    ofctl(cloud, "add-flow", f"table=82,priority=65000,reg5={ofport},actions=drop")
    drift(cloud, one, seen[one])
    assert len(cloud.reports_of(two)) == seen[two]


def test_a_flow_with_a_copied_cookie_is_removed(cloud: Cloud, vms: list[Vm]) -> None:
    one = vms[0]
    before = sorted(cloud.ofctl.dump())
    copied = next(entry.cookie for entry in before if "reg5" in entry.fields)
    seen, ofport = len(cloud.reports_of(one)), cloud.switch.ofport(one.name)
    flow = f"table=82,priority=65000,reg5={ofport},actions=output:{ofport}"
    ofctl(cloud, "add-flow", f"cookie={copied:#x},{flow}")
    # As if it had been written before the monitor was there: it has a cookie of ours.
    cloud.driver.resync([one.id])
    assert cloud.succeeded(one)
    assert sorted(cloud.ofctl.dump()) == before
    assert len(cloud.reports_of(one)) > seen


def test_flows_of_the_agent_and_its_extensions_are_no_drift(cloud: Cloud, vms: list[Vm]) -> None:
    one = vms[0]
    ofport = cloud.switch.ofport(one.name)
    ours = f"cookie={cloud.bridge.default_cookie:#x}"
    ofctl(cloud, "add-flow", f"{ours},table=60,priority=101,udp,in_port={ofport},actions=drop")
    nothing_is_found(cloud, vms)


def test_neutrons_agent_wiring_further_ports_is_no_drift(cloud: Cloud, vms: list[Vm]) -> None:
    group = cloud.open_group(WEB)
    for number in range(3, 9):
        further = cloud.boot_port(number, group)
        cloud.wire_ports(further)
        cloud.rule(group, protocol="udp", port_range_min=number, port_range_max=number)
        cloud.loop()
        if number % 2:
            cloud.remove(further)
    nothing_is_found(cloud, vms)


def nothing_is_found(cloud: Cloud, vms: list[Vm]) -> None:
    """Whatever was suspected before is compared before the drift of this change."""
    one = vms[0]
    seen = len(cloud.reports_of(one))
    ofctl(cloud, "del-flows", f"table=84,reg5={cloud.switch.ofport(one.name)}")
    error = drift(cloud, one, seen)
    assert error.message == "flows that the port depends on: 1 missing"
    audits = [each for each in cloud.reports if each.flow is FlowName.AUDIT]
    assert [each.resource_id for each in audits] == [one.id]


def test_flows_of_an_earlier_agent_are_no_drift_until_it_has_cleaned_up(
    cloud: Cloud, vms: list[Vm]
) -> None:
    """They have a cookie that is not reserved any more."""
    one = vms[0]
    ofport = cloud.switch.ofport(one.name)
    earlier = f"cookie={cloud.bridge.default_cookie:#x}"
    cloud.stop_agent()
    ofctl(cloud, "add-flow", f"{earlier},table=60,priority=101,udp,in_port={ofport},actions=drop")
    cloud.start_agent()
    cloud.reports.clear()
    cloud.sg_agent.setup_port_filters({vm.id for vm in vms}, set())
    cloud.driver.resync()
    assert all(map(cloud.succeeded, vms))
    nothing_is_found(cloud, vms)


class Change(NamedTuple):
    """How a port's wiring is changed and put right, and what is reported then."""

    change: Callable[[Cloud, Vm], object]
    undo: Callable[[Cloud, Vm], object]
    message: str
    type: str


def tag(number: int) -> Callable[[Cloud, Vm], object]:
    return lambda cloud, vm: cloud.switch.vsctl("set", "Port", vm.name, f"tag={number}")


def link(state: str) -> Callable[[Cloud, Vm], object]:
    return lambda cloud, vm: cloud.switch.appctl("netdev-dummy/set-admin-state", vm.name, state)


WIRING = {
    "tag": Change(tag(999), tag(1), "999 instead of 1", "WrongTag"),
    "dead VLAN": Change(tag(4095), tag(1), "4095 instead of 1", "WrongTag"),
    "link": Change(link("down"), link("up"), "the link of vm1 is down", "LinkDown"),
}


@pytest.mark.parametrize("change", WIRING.values(), ids=list(WIRING))
def test_changed_wiring_takes_the_port_down_until_it_is_right(
    cloud: Cloud, vms: list[Vm], change: Change
) -> None:
    """Neutron's agent owns the tag, and the hypervisor the link."""
    one, two = vms
    seen, others = len(cloud.reports_of(one)), len(cloud.reports_of(two))
    change.change(cloud, one)
    assert change.message in drift(cloud, one, seen).message
    failed = flow_after_drift(cloud, one, seen).failed
    assert failed is not None
    assert failed.error is not None
    assert (failed.step, failed.error.type) == (Step.L2, change.type)
    change.undo(cloud, one)
    cloud.heals(one)
    assert len(cloud.reports_of(two)) == others
    assert right(cloud, vms)


def test_an_unplugged_port_and_one_that_is_plugged_in_again_have_no_drift(
    cloud: Cloud, vms: list[Vm]
) -> None:
    one, two = vms
    cloud.unplug(one.name)
    cloud.plug(one.name)
    cloud.attach(one)
    cloud.bind(one)
    cloud.update_ports(one)
    assert cloud.succeeded(one)
    cloud.remove(two)
    assert not [each for each in cloud.reports if each.flow is FlowName.AUDIT]


@pytest.fixture
def frequent_audits() -> Iterator[None]:
    cfg.CONF.set_override("audit_interval", 0.5, "agent_flows")
    yield
    cfg.CONF.clear_override("audit_interval", "agent_flows")


@pytest.mark.usefixtures("frequent_audits")
def test_a_port_that_neutrons_agent_does_not_wire_again_is_drift(
    cloud: Cloud, vms: list[Vm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loop may hang for minutes, or for hours after the clock was set back."""
    monkeypatch.setattr(auditor, "_FOR_THE_AGENT", 1.0)
    one, two = vms
    before, others = len(cloud.reports_of(one)), len(cloud.reports_of(two))
    cloud.unplug(one.name)
    cloud.plug(one.name)
    cloud.attach(one)
    assert "Neutron's agent has done nothing" in drift(cloud, one, before).message
    assert cloud.report(one).failed is not None
    cloud.bind(one)
    cloud.update_ports(one)
    cloud.heals(one)
    assert len(cloud.reports_of(two)) == others
    assert right(cloud, vms)


@pytest.mark.usefixtures("frequent_audits")
def test_the_quarantines_flows_are_written_again(cloud: Cloud) -> None:
    closed = cloud.boot(1)
    cloud.driver.quarantine([Endpoint(closed.id, cloud.switch.ofport(closed.name))])
    quarantine = "cookie=0xaf11000000000000/0xffff000000000000"
    before = sorted(cloud.switch.flows(BRIDGE, quarantine))
    assert before
    ofctl(cloud, "del-flows", quarantine)
    wait_until(
        lambda: sorted(cloud.switch.flows(BRIDGE, quarantine)) == before, SECONDS, "them again"
    )


@pytest.mark.parametrize(
    "deleted",
    [
        "table=60,dl_dst={mac}",
        "table=73,dl_dst={mac}",
        "table=60,dl_vlan=1",
        "table=60,in_port={ofport}",
        "table=60,cookie=0xaf10000000000000/0xffff000000000000",
        "cookie=0xaf10000000000000/0xffff000000000000",
        *(f"table={table}" for table in (60, 71, 72, 73, 81, 82, 83, 84, 91, 94, 96)),
    ],
)
def test_invariant_1_nothing_more_passes_while_flows_are_missing(
    cloud: Cloud, vms: list[Vm], deleted: str
) -> None:
    one, two = vms
    # From here on nothing repairs them.
    cloud.driver.stop(10)
    ofctl(cloud, "del-flows", deleted.format(mac=two.mac, ofport=cloud.switch.ofport(one.name)))
    assert not cloud.tcp(outsider(), two, 81)
    assert not cloud.tcp(one, two, 81)
    spoofed = one.but(ip="10.0.0.77")
    assert not cloud.tcp(spoofed, two, 80)
    assert not cloud.tcp(spoofed, outsider(), 80)
