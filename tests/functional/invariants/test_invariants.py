"""Each test tries to break one of the design's invariants, on a real switch, with packets.

Where an invariant lives in one place that needs no switch it is attacked there
too: 2, 4 and 10 in the server's tests, 3, 4, 5, 6 and 9 in those of the flows.
"""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from lab.attack import Attack
from lab.model import Rule, ingress
from lab.probe import passes_anything
from lab.process import wait_until
from lab.switch import RULES_INGRESS, Switch
from lab.tenant import Tenant
from lab.traffic import Connection

BRIDGE = "br-int"


def udp(first: int) -> Rule:
    """Lets in the ports from ``first`` to 2000."""
    return ingress(protocol="udp", port_range_min=first, port_range_max=2000)


@contextlib.contextmanager
def answered_all_the_time(connection: Connection) -> Iterator[None]:
    """An allowed connection on which every question is answered."""
    enough = threading.Event()
    missed: list[int] = []
    asked = [0]

    def talk() -> None:
        while not enough.is_set():
            asked[0] += 1
            if connection.ask(timeout=1.0) is None:
                missed.append(asked[0])

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
    assert asked[0] > 10
    assert missed == []


def test_invariant_1_fail_closed_an_unknown_port_passes_nothing(tenant: Tenant) -> None:
    friend, stranger = tenant.boot("friend"), tenant.boot("stranger", declared=False)
    tenant.plug(friend, stranger)
    tenant.active(friend)
    stranger.raise_link()
    assert passes_anything(stranger, [friend], service=80) == []


def test_invariant_1_fail_closed_at_no_instant_of_a_ports_life(tenant: Tenant) -> None:
    attacker = tenant.boot("attacker")
    victims = [tenant.boot(f"victim{n}") for n in range(3)]
    tenant.plug(attacker)
    tenant.active(attacker)
    with Attack(attacker, victims) as attack:
        with tenant.site.switch.full_table():
            tenant.plug(*victims)
            for vm in victims:
                tenant.site.api.wait_port(vm.port_id, 20, sync_state="OUT_OF_SYNC", status="DOWN")
        tenant.active(*victims)
        for opened in range(6):
            tenant.cloud.group("web", tenant.web_rules(udp(1000 + opened)), tenant.web)
            tenant.active(*victims)
        tenant.site.all_in_one.kill()
        victims[0].unplug()
        victims[0].plug()
        tenant.site.start_all_in_one()
        tenant.active(*victims)
        for vm in victims:
            vm.unplug()
        for vm in victims:
            tenant.site.api.wait_port(vm.port_id, 20, sync_state="ABSENT")
    assert attack.rounds > 100
    assert attack.passed() == {}


def test_invariant_1_verified_traffic_survives_refreshes_and_a_restart_of_the_agent(
    tenant: Tenant,
) -> None:
    one, two = tenant.boot("one"), tenant.boot("two")
    tenant.plug(one, two)
    tenant.active(one, two)
    with one.open(two.ip, 80) as connection:
        assert connection.ask() == "two"
        with answered_all_the_time(connection):
            for number in range(5):
                tenant.cloud.group("web", tenant.web_rules(udp(1000 + number)), tenant.web)
                tenant.active(one, two)
            tenant.site.all_in_one.kill()
            tenant.site.start_all_in_one()
            tenant.site.api.request("POST", f"/ports/{one.port_id}/resync")
            wait_until(
                lambda: any(t["flow"] == "resync" for t in tenant.site.api.tasks(one.port_id)),
                20,
                "the resync was reported",
            )


def test_invariant_1_a_refresh_the_switch_refuses_leaves_the_old_rules_in_force(
    tenant: Tenant,
) -> None:
    one, two = tenant.boot("one"), tenant.boot("two")
    tenant.plug(one, two)
    tenant.active(one, two)
    before = tenant.site.switch.flows(BRIDGE, f"table={RULES_INGRESS}")
    more = ingress(protocol="tcp", port_range_min=8000, port_range_max=8100)
    with tenant.site.switch.full_table():
        tenant.cloud.group("web", tenant.web_rules(more), tenant.web)
        tenant.site.api.wait_port(one.port_id, 20, sync_state="OUT_OF_SYNC")
        assert len(tenant.site.switch.flows(BRIDGE, f"table={RULES_INGRESS}")) == len(before)
        assert one.connect(two.ip, 80)
        assert not one.connect(two.ip, 8050, timeout=0.3)
    tenant.active(one, two)


def test_invariant_2_active_means_proven_a_port_the_switch_refuses_stays_down(
    tenant: Tenant,
) -> None:
    first, refused = tenant.boot("first"), tenant.boot("refused")
    tenant.plug(first)
    tenant.active(first)
    with tenant.site.switch.full_table():
        tenant.plug(refused)
        port = tenant.site.api.wait_port(refused.port_id, 20, sync_state="OUT_OF_SYNC")
        assert port["status"] == "DOWN"
        (failed, *_) = tenant.site.api.tasks(refused.port_id, "FAILED")
        assert failed["name"] == "apply-security-groups"
        assert "OFPFMFC_TABLE_FULL" in failed["error"]["detail"]
        assert passes_anything(refused, [first], service=80) == []
        tenant.active(first)
    tenant.active(refused)
    first.forget_neighbours()
    assert first.connect(refused.ip, 80)


def test_invariant_2_flows_deleted_by_another_tool_are_back_after_a_resync(
    tenant: Tenant, switch: Switch
) -> None:
    vm = tenant.boot("vm")
    tenant.plug(vm)
    tenant.active(vm)
    ofport = switch.ofport(vm.tap)
    switch.ofctl("del-flows", switch.management(BRIDGE), f"table=82,reg5={ofport}")
    tenant.site.api.request("POST", f"/ports/{vm.port_id}/resync")
    wait_until(lambda: switch.flows(BRIDGE, f"table=82,reg5={ofport}"), 20, "the flows are back")
    tenant.active(vm)


def test_invariant_6_a_failing_port_delays_no_other(
    tenant: Tenant,
) -> None:
    good = [tenant.boot(f"good{n}") for n in range(5)]
    bad = tenant.boot("bad")
    # Its cable is gone before it is plugged: the switch cannot open the device.
    tenant.site.switch.namespace.ip("link", "delete", bad.tap)
    tenant.plug(*good, bad)
    tenant.active(*good)
    port = tenant.site.api.wait_port(bad.port_id, 20, sync_state="OUT_OF_SYNC")
    assert port["status"] == "DOWN"
    (failed, *_) = tenant.site.api.tasks(bad.port_id, "FAILED")
    assert failed["name"] == "locate-interface"
    for vm in good:
        # Before it was plugged its absence was reported, too.
        wired = [each for each in tenant.site.api.tasks(vm.port_id) if each["flow"] == "wire"]
        assert {task["attempt"] for task in wired} == {1}


def test_invariant_7_atomic_a_batch_is_one_bundle_and_one_transaction(
    tenant: Tenant, ofctl_calls: Path, switch: Switch
) -> None:
    first = tenant.boot("first")
    tenant.plug(first)
    tenant.active(first)
    vms = [tenant.boot(f"vm{n}") for n in range(12)]
    before = len(ofctl_calls.read_text().splitlines())
    watch = subprocess.Popen(
        switch.namespace.argv(
            ["ovsdb-client", "--format=json", "monitor", switch.database, "Port", "tag"]
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    watch.stdout.readline()
    try:
        tenant.plug(*vms)
        tenant.active(*vms)
    finally:
        watch.terminate()
        updates = watch.stdout.read().splitlines()
        watch.stdout.close()
        watch.wait()
    # The plugging itself, and then the batches: the first may start with the
    # ports whose ofport came first, the rest are one.
    tagged = [line for line in updates if '"new"' in line]
    assert len(tagged) <= 5, "ports are tagged one by one"
    lines = ofctl_calls.read_text().splitlines()
    assert sum("--bundle" in line for line in lines[before:]) <= 4, "flows port by port"
    changing = ("add-flow", "mod-flow", "del-flow", "replace-flow", "mod-port")
    writing = [line for line in lines if any(word in line for word in changing)]
    assert all("--bundle" in line for line in writing), "something is written outside a bundle"


def test_invariant_7_atomic_a_batch_the_switch_refuses_leaves_none_of_its_flows(
    tenant: Tenant,
) -> None:
    vms = [tenant.boot(f"vm{n}") for n in range(4)]
    with tenant.site.switch.full_table():
        tenant.plug(*vms)
        for vm in vms:
            tenant.site.api.wait_port(vm.port_id, 20, sync_state="OUT_OF_SYNC")
        for vm in vms:
            ofport = tenant.site.switch.ofport(vm.tap)
            assert tenant.site.switch.flows(BRIDGE, f"in_port={ofport}") == []
            assert tenant.site.switch.flows(BRIDGE, f"reg5={ofport}") == []
    tenant.active(*vms)
