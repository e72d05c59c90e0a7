"""``port show`` names what is wrong with a port, and the remedy."""

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
class OneHost:
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

    def reason(self, port_id: str, words: str) -> Any:
        """What ``port show`` prints once its reason has these words."""

        def shown() -> Any:
            found = self.show(port_id)
            return found if words in (found["reason"] or "") else None

        return wait_until(shown, SECONDS, f"port show names {words!r}")


@dataclass(frozen=True)
class Named:
    """A port that is not plugged, or not by a VM."""

    port_id: str
    mac: str
    tap: str = ""
    addresses: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def host() -> Iterator[OneHost]:
    with (
        Switch("show") as switch,
        Site(switch, HOST, options={"agent_flows": {"retry_initial": 0.2, "retry_max": 1}}) as site,
    ):
        site.start_all_in_one()
        yield OneHost(switch, Cloud(site.api, HOST))


@pytest.fixture(scope="module")
def network(host: OneHost) -> str:
    return host.cloud.network()


@pytest.fixture(scope="module")
def group(host: OneHost) -> str:
    return host.cloud.group("web", [ingress(protocol="tcp"), *egress_to_anywhere()])


@pytest.fixture
def make_vm(host: OneHost) -> Iterator[Callable[..., Vm]]:
    with contextlib.ExitStack() as made:

        def make() -> Vm:
            address = f"10.0.0.{next(_NUMBERS)}/24"
            return made.enter_context(Vm(host.switch, "vm", random_mac(), [address]))

        yield make


def unplugged() -> Named:
    return Named(str(uuid.uuid4()), random_mac())


def test_a_switch_that_refuses_the_ports_flows(
    host: OneHost, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm, other = make_vm(), make_vm()
    host.cloud.port(other, network, [group])
    other.plug()
    host.cloud.api.wait_port(other.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    with host.switch.full_table():
        host.cloud.port(vm, network, [group])
        vm.plug()
        shown = host.reason(vm.port_id, "apply-security-groups failed: FlowRefused")
        assert "flow_limit" in shown["reason"]  # what helps
        assert any("OFPFMFC_TABLE_FULL" in json.dumps(task) for task in shown["tasks"])
        page = host.cloud.api.request("GET", f"/page/ports/{vm.port_id}")
        assert "<strong>apply-security-groups</strong> failed: <strong>FlowRefused</strong>" in page
        assert "OFPFMFC_TABLE_FULL" in page
        assert vm.port_id in host.cloud.api.request("GET", "/")
    wait_until(lambda: host.show(vm.port_id)["reason"] is None, SECONDS, "it works again")


def test_a_physical_network_that_the_host_does_not_know(
    host: OneHost, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    network = host.cloud.network("flat", physical_network="dc1/leaf3")
    host.cloud.port(vm, network, [group])
    vm.plug()
    shown = host.reason(vm.port_id, "UnknownPhysicalNetwork")
    assert "dc1/leaf3" in shown["reason"]
    assert "add the physical network to bridge_mappings" in shown["reason"]


def test_an_interface_without_a_device(host: OneHost, network: str, group: str) -> None:
    port = unplugged()
    host.cloud.port(port, network, [group])
    identity = f"external_ids:iface-id={port.port_id}"
    host.switch.vsctl(
        "--no-wait", "add-port", "br-int", "gone0", "--", "set", "Interface", "gone0", identity
    )
    try:
        shown = host.reason(port.port_id, "InterfaceError")
        assert "gone0" in shown["reason"]
    finally:
        host.switch.vsctl("--no-wait", "del-port", "br-int", "gone0")


def test_a_port_that_is_not_plugged(host: OneHost, network: str, group: str) -> None:
    port = unplugged()
    host.cloud.port(port, network, [group])
    shown = host.reason(port.port_id, "Not plugged")
    assert shown["sync_state"] == "ABSENT"
    assert f"external_ids:iface-id={port.port_id}" in shown["reason"]


def test_a_port_that_is_bound_to_a_host_without_an_agent(
    host: OneHost, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    host.cloud.port(vm, network, [group], **{"binding:host_id": "compute-2"})
    vm.plug()
    host.reason(vm.port_id, "No agent was ever seen on host compute-2")
    code, _, said = host.run("port", "resync", vm.port_id)
    assert code == 1
    assert "no agent was ever seen on host compute-2; nothing was sent" in said


def test_a_port_that_is_administratively_down(
    host: OneHost, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    host.cloud.port(vm, network, [group], admin_state_up=False)
    vm.plug()
    host.reason(vm.port_id, "Administratively down: it passes nothing")


def test_a_port_without_a_security_group(
    host: OneHost, network: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    host.cloud.port(vm, network)
    vm.plug()
    host.cloud.api.wait_port(vm.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    host.reason(vm.port_id, "No security group: lets nothing in")


def test_a_resync_of_a_host_reaches_every_port(
    host: OneHost, network: str, group: str, make_vm: Callable[..., Vm]
) -> None:
    vm = make_vm()
    host.cloud.port(vm, network, [group])
    vm.plug()
    host.cloud.api.wait_port(vm.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    assert host.run("agent", "resync", HOST)[0] == 0
    wait_until(
        lambda: any(task["flow"] == "resync" for task in host.cloud.api.tasks(vm.port_id)),
        SECONDS,
        "the port is wired by a resync",
    )
