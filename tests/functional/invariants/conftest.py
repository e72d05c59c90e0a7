"""The whole product on one switch, as an operator runs it, with its tools' calls on record."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.cloud import Cloud
from lab.model import egress_to_anywhere, ingress, random_mac
from lab.product import Site
from lab.switch import Switch
from lab.vm import Vm, plug

BRIDGE = "br-int"
HOST = "host-1"
_QUICK = {"retry_initial": 0.2, "retry_max": 0.5, "heartbeat_interval": 1}


class Calls:
    """Every call of ``ovs-ofctl`` a process makes, written down before it is carried out."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory / "calls"
        self._log.touch()
        real = subprocess.run(
            ["which", "ovs-ofctl"], capture_output=True, text=True, check=True
        ).stdout.strip()
        wrapper = directory / "ovs-ofctl"
        wrapper.write_text(f'#!/bin/sh\necho "$*" >> {self._log}\nexec {real} "$@"\n')
        wrapper.chmod(0o755)

    def bundles(self) -> int:
        return sum("--bundle" in line for line in self._log.read_text().splitlines())

    def written(self) -> list[str]:
        """Calls that could change something without being a bundle."""
        changing = ("add-flow", "mod-flow", "del-flow", "replace-flow", "mod-port")
        return [
            line
            for line in self._log.read_text().splitlines()
            if any(word in line for word in changing) and "--bundle" not in line
        ]


class House:
    """One network, one switch, one product; VMs in a group that lets in tcp 80 and icmp."""

    def __init__(self, site: Site) -> None:
        self.site, self.switch = site, site.switch
        self.cloud = Cloud(site.api, HOST)
        self.network = self.cloud.network()
        self.web = self.cloud.group("web", self.web_rules())
        self._vms: list[Vm] = []

    @staticmethod
    def web_rules(*more: dict[str, object]) -> list[dict[str, object]]:
        return [
            ingress(protocol="tcp", port=80),
            ingress(protocol="icmp"),
            *more,
            *egress_to_anywhere(),
        ]

    def vm(self, name: str, *, declared: bool = True) -> Vm:
        vm = Vm(self.switch, name, random_mac(), [f"10.0.0.{len(self._vms) + 11}/24"])
        self._vms.append(vm)
        vm.create()
        vm.listen(80)
        if declared:
            self.cloud.port(vm, self.network, [self.web])
        return vm

    def plug(self, *vms: Vm) -> None:
        plug(self.switch, vms)

    def active(self, *vms: Vm) -> None:
        for vm in vms:
            self.site.api.wait_port(vm.port_id, 30, status="ACTIVE", sync_state="IN_SYNC")

    @contextmanager
    def a_full_table(self, table: int) -> Iterator[None]:
        """The switch takes no more flows in ``table``."""
        count = len(self.switch.flows(BRIDGE, f"table={table}"))
        self.switch.set_flow_limit(BRIDGE, table, count)
        try:
            yield
        finally:
            self.switch.lift_flow_limit(BRIDGE, table)

    def close(self) -> None:
        for vm in self._vms:
            vm.delete()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls(tmp_path)
    monkeypatch.setenv("PATH", str(calls.directory), prepend=":")
    return calls


@pytest.fixture
def house(switch: Switch, calls: Calls) -> Iterator[House]:
    with Site(switch, HOST, options={"agent_flows": _QUICK}) as site:
        site.start_all_in_one()
        house = House(site)
        try:
            yield house
        finally:
            house.close()
