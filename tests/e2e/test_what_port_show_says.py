"""The operator's night: one command says what is wrong with a port, and what to do."""

import contextlib
import itertools
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab.cloud import Cloud
from lab.model import egress_to_anywhere, ingress, random_mac
from lab.process import wait_until
from lab.product import PROGRAM, Site
from lab.switch import Switch
from lab.vm import Vm

SECONDS = 20
HOST = "compute-1"
_NUMBERS = itertools.count(10)


@dataclass
class House:
    """One host with everything in one process, and commands run on it."""

    switch: Switch
    cloud: Cloud

    def run(self, *words: str) -> tuple[int, str, str]:
        argv = self.switch.namespace.argv([str(PROGRAM), *words])
        ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        return ran.returncode, ran.stdout, ran.stderr

    def show(self, port_id: str) -> Any:
        code, out, err = self.run("port", "show", port_id, "-f", "json")
        assert code == 0, err
        return json.loads(out)

    def says(self, port_id: str, words: str) -> Any:
        """What ``port show`` shows once its reason has these words."""

        def shown() -> Any:
            found = self.show(port_id)
            return found if words in (found["reason"] or "") else None

        return wait_until(shown, SECONDS, f"port show says {words!r}")


@dataclass(frozen=True)
class Named:
    """A port that is not plugged, or not by a VM."""

    port_id: str
    mac: str
    tap: str = ""
    addresses: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with (
        Switch("night") as switch,
        Site(switch, HOST, options={"agent_flows": {"retry_initial": 0.2, "retry_max": 1}}) as site,
    ):
        site.start_all_in_one()
        yield House(switch, Cloud(site.api, HOST))


@pytest.fixture(scope="module")
def network(house: House) -> str:
    return house.cloud.network()


@pytest.fixture(scope="module")
def group(house: House) -> str:
    return house.cloud.group("web", [ingress(protocol="tcp"), *egress_to_anywhere()])


@pytest.fixture
def make_vm(house: House) -> Iterator[Callable[..., Vm]]:
    with contextlib.ExitStack() as made:

        def make() -> Vm:
            address = f"10.0.0.{next(_NUMBERS)}/24"
            return made.enter_context(Vm(house.switch, "vm", random_mac(), [address]))

        yield make


def unplugged() -> Named:
    return Named(str(uuid.uuid4()), random_mac())


def test_a_switch_that_refuses_the_ports_flows(
    house: House, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm, other = make_vm(), make_vm()
    house.cloud.port(other, network, [group])
    other.plug()
    house.cloud.api.wait_port(other.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    with house.switch.full_table():
        house.cloud.port(vm, network, [group])
        vm.plug()
        shown = house.says(vm.port_id, "apply-security-groups failed: FlowRefused")
        assert "flow_limit" in shown["reason"]  # what helps
        assert any("OFPFMFC_TABLE_FULL" in json.dumps(task) for task in shown["tasks"])
    wait_until(lambda: house.show(vm.port_id)["reason"] is None, SECONDS, "it works again")


def test_a_physical_network_that_the_host_does_not_know(
    house: House, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    network = house.cloud.network("flat", physical_network="dc1/leaf3")
    house.cloud.port(vm, network, [group])
    vm.plug()
    shown = house.says(vm.port_id, "UnknownPhysicalNetwork")
    assert "dc1/leaf3" in shown["reason"]
    assert "add the physical network to bridge_mappings" in shown["reason"]


def test_an_interface_without_a_device(house: House, network: str, group: str) -> None:
    port = unplugged()
    house.cloud.port(port, network, [group])
    identity = f"external_ids:iface-id={port.port_id}"
    house.switch.vsctl(
        "--no-wait", "add-port", "br-int", "gone0", "--", "set", "Interface", "gone0", identity
    )
    try:
        shown = house.says(port.port_id, "InterfaceError")
        assert "gone0" in shown["reason"]
    finally:
        house.switch.vsctl("--no-wait", "del-port", "br-int", "gone0")


def test_a_port_that_is_not_plugged(house: House, network: str, group: str) -> None:
    port = unplugged()
    house.cloud.port(port, network, [group])
    shown = house.says(port.port_id, "Not plugged")
    assert shown["sync_state"] == "ABSENT"
    assert f"external_ids:iface-id={port.port_id}" in shown["reason"]


def test_a_port_that_is_bound_to_a_host_without_an_agent(
    house: House, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    house.cloud.port(vm, network, [group], **{"binding:host_id": "compute-2"})
    vm.plug()
    house.says(vm.port_id, "No agent was ever seen on host compute-2")
    code, _, said = house.run("port", "resync", vm.port_id)
    assert code == 1
    assert "no agent was ever seen on host compute-2; nothing was asked" in said


def test_a_port_that_is_administratively_down(
    house: House, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    house.cloud.port(vm, network, [group], admin_state_up=False)
    vm.plug()
    house.says(vm.port_id, "Administratively down: it passes nothing")


def test_a_port_without_a_security_group(
    house: House, network: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    house.cloud.port(vm, network)
    vm.plug()
    house.cloud.api.wait_port(vm.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    house.says(vm.port_id, "No security group: lets nothing in")


def test_a_resync_of_a_host_reaches_every_port(
    house: House, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    house.cloud.port(vm, network, [group])
    vm.plug()
    house.cloud.api.wait_port(vm.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    assert house.run("agent", "resync", HOST)[0] == 0
    wait_until(
        lambda: any(task["flow"] == "resync" for task in house.cloud.api.tasks(vm.port_id)),
        SECONDS,
        "the port is wired by a resync",
    )
