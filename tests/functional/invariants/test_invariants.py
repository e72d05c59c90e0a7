"""Each test tries to break one of the design's invariants, on a real switch, with packets.

Where an invariant lives in one place that needs no switch it is attacked there
too: 2, 4 and 10 in the server's tests, 3, 4, 5, 6 and 9 in those of the flows.
"""

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence

from lab import frames
from lab.probe import passes_anything
from lab.process import wait_until
from lab.switch import Switch
from lab.traffic import Connection
from lab.vm import Vm
from tests.functional.invariants.conftest import BRIDGE, Calls, House

RULES_INGRESS = 82
FORBIDDEN_UDP = 9999


class Attack:
    """Sends what must never pass, without a pause, from the first moment to the last.

    ``attacker`` is a port in good standing that knocks where no rule lets it
    in; the ``victims`` send with a forged address.
    """

    def __init__(self, attacker: Vm, victims: Sequence[Vm]) -> None:
        self._knock, self._forged = b"af-knock", b"af-forged"
        self._attacker_wire = attacker.wire()
        self._wires = {vm.name: vm.wire() for vm in victims}
        self._knocks = [
            frames.udp(
                (attacker.mac, vm.mac), (attacker.ip, vm.ip), (4000, FORBIDDEN_UDP), self._knock
            )
            for vm in victims
        ]
        self._forgeries = {
            vm.name: frames.udp(
                (vm.mac, attacker.mac), ("192.0.2.66", attacker.ip), (4000, 80), self._forged
            )
            for vm in victims
        }
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0

    def _run(self) -> None:
        while not self._enough.wait(0.002):
            self.rounds += 1
            # The cables are cut while the attack goes on.
            with contextlib.suppress(OSError):
                for frame in self._knocks:
                    self._attacker_wire.send(frame)
                for name, frame in self._forgeries.items():
                    self._wires[name].send(frame)

    def __enter__(self) -> "Attack":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def passed(self) -> dict[str, int]:
        """What got through, by where it arrived."""
        seen = {name: wire.arrived(self._knock) for name, wire in self._wires.items()}
        seen["attacker"] = self._attacker_wire.arrived(self._forged)
        return {name: count for name, count in seen.items() if count}


@contextlib.contextmanager
def answered_all_the_time(connection: Connection) -> Iterator[None]:
    """An allowed conversation that must never miss an answer."""
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


def test_invariant_1_fail_closed_an_unknown_port_passes_nothing(house: House) -> None:
    friend, stranger = house.vm("friend"), house.vm("stranger", declared=False)
    house.plug(friend, stranger)
    house.active(friend)
    stranger.raise_link()
    assert passes_anything(stranger, [friend], service=80) == []


def test_invariant_1_fail_closed_at_no_instant_of_a_ports_life(house: House) -> None:
    attacker = house.vm("attacker")
    victims = [house.vm(f"victim{n}") for n in range(3)]
    house.plug(attacker)
    house.active(attacker)
    with Attack(attacker, victims) as attack:
        with house.a_full_table(RULES_INGRESS):
            house.plug(*victims)
            for vm in victims:
                house.site.api.wait_port(vm.port_id, 20, sync_state="OUT_OF_SYNC", status="DOWN")
        house.active(*victims)
        for opened in range(6):
            more = [{"direction": "ingress", "ethertype": "IPv4", "protocol": "udp",
                     "port_range_min": 1000 + opened, "port_range_max": 2000}]  # fmt: skip
            house.cloud.group("web", house.web_rules(*more), house.web)
            house.active(*victims)
        house.site.all_in_one.kill()
        victims[0].unplug()
        victims[0].plug()
        house.site.start_all_in_one()
        house.active(*victims)
        for vm in victims:
            vm.unplug()
        for vm in victims:
            house.site.api.wait_port(vm.port_id, 20, sync_state="ABSENT")
    assert attack.rounds > 100
    assert attack.passed() == {}


def test_invariant_1_verified_traffic_survives_refreshes_and_a_restart_of_the_agent(
    house: House,
) -> None:
    one, two = house.vm("one"), house.vm("two")
    house.plug(one, two)
    house.active(one, two)
    with one.open(two.ip, 80) as connection:
        assert connection.ask() == "two"
        with answered_all_the_time(connection):
            for number in range(5):
                more = [{"direction": "ingress", "ethertype": "IPv4", "protocol": "udp",
                         "port_range_min": 1000 + number, "port_range_max": 2000}]  # fmt: skip
                house.cloud.group("web", house.web_rules(*more), house.web)
                house.active(one, two)
            house.site.all_in_one.kill()
            house.site.start_all_in_one()
            house.site.api.request("POST", f"/ports/{one.port_id}/resync")
            wait_until(
                lambda: any(t["flow"] == "resync" for t in house.site.api.tasks(one.port_id)),
                20,
                "the resync was reported",
            )


def test_invariant_1_a_refresh_the_switch_refuses_leaves_the_old_rules_in_force(
    house: House,
) -> None:
    one, two = house.vm("one"), house.vm("two")
    house.plug(one, two)
    house.active(one, two)
    before = house.switch.flows(BRIDGE, f"table={RULES_INGRESS}")
    more = [{"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
             "port_range_min": 8000, "port_range_max": 8100}]  # fmt: skip
    with house.a_full_table(RULES_INGRESS):
        house.cloud.group("web", house.web_rules(*more), house.web)
        house.site.api.wait_port(one.port_id, 20, sync_state="OUT_OF_SYNC")
        assert len(house.switch.flows(BRIDGE, f"table={RULES_INGRESS}")) == len(before)
        assert one.connect(two.ip, 80)
        assert not one.connect(two.ip, 8050, timeout=0.3)
    house.active(one, two)


def test_invariant_2_active_means_proven_a_port_the_switch_refuses_stays_down(
    house: House,
) -> None:
    first, refused = house.vm("first"), house.vm("refused")
    house.plug(first)
    house.active(first)
    with house.a_full_table(RULES_INGRESS):
        house.plug(refused)
        port = house.site.api.wait_port(refused.port_id, 20, sync_state="OUT_OF_SYNC")
        assert port["status"] == "DOWN"
        (failed, *_) = house.site.api.tasks(refused.port_id, "FAILED")
        assert failed["name"] == "apply-security-groups"
        assert "OFPFMFC_TABLE_FULL" in failed["error"]["detail"]
        assert passes_anything(refused, [first], service=80) == []
    house.active(refused)
    first.forget_neighbours()
    assert first.connect(refused.ip, 80)


def test_invariant_2_flows_that_vanish_behind_our_back_are_found_by_verification(
    house: House, switch: Switch
) -> None:
    vm = house.vm("vm")
    house.plug(vm)
    house.active(vm)
    ofport = switch.ofport(vm.tap)
    switch.ofctl("del-flows", switch.management(BRIDGE), f"table=82,reg5={ofport}")
    house.site.api.request("POST", f"/ports/{vm.port_id}/resync")
    wait_until(lambda: switch.flows(BRIDGE, f"table=82,reg5={ofport}"), 20, "the flows are back")
    house.active(vm)


def test_invariant_6_one_ports_trouble_is_its_own_and_the_others_do_not_wait(
    house: House,
) -> None:
    good = [house.vm(f"good{n}") for n in range(5)]
    bad = house.vm("bad")
    # Its cable is gone before it is plugged: the switch cannot open the device.
    house.switch.namespace.ip("link", "delete", bad.tap)
    house.plug(*good, bad)
    house.active(*good)
    port = house.site.api.wait_port(bad.port_id, 20, sync_state="OUT_OF_SYNC")
    assert port["status"] == "DOWN"
    (failed, *_) = house.site.api.tasks(bad.port_id, "FAILED")
    assert failed["name"] == "locate-interface"
    for vm in good:
        # Before it was plugged its absence was reported, too.
        wired = [each for each in house.site.api.tasks(vm.port_id) if each["flow"] == "wire"]
        assert {task["attempt"] for task in wired} == {1}


def test_invariant_7_atomic_a_batch_is_one_bundle_and_one_transaction(
    house: House, calls: Calls, switch: Switch
) -> None:
    first = house.vm("first")
    house.plug(first)
    house.active(first)
    vms = [house.vm(f"vm{n}") for n in range(12)]
    before = calls.bundles()
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
        house.plug(*vms)
        house.active(*vms)
    finally:
        watch.terminate()
        updates = watch.stdout.read().splitlines()
        watch.stdout.close()
        watch.wait()
    # The plugging itself, and then the batches: the first may start with the
    # ports whose ofport came first, the rest are one.
    tagged = [line for line in updates if '"new"' in line]
    assert len(tagged) <= 5, "ports are tagged one by one"
    assert calls.bundles() - before <= 4, "ports get their flows one by one"
    assert calls.written() == [], "something is written outside a bundle"


def test_invariant_7_atomic_a_batch_the_switch_refuses_leaves_none_of_its_flows(
    house: House,
) -> None:
    vms = [house.vm(f"vm{n}") for n in range(4)]
    with house.a_full_table(RULES_INGRESS):
        house.plug(*vms)
        for vm in vms:
            house.site.api.wait_port(vm.port_id, 20, sync_state="OUT_OF_SYNC")
        for vm in vms:
            ofport = house.switch.ofport(vm.tap)
            assert house.switch.flows(BRIDGE, f"in_port={ofport}") == []
            assert house.switch.flows(BRIDGE, f"reg5={ofport}") == []
    house.active(*vms)
