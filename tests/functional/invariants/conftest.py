"""The whole product on one switch, and a record of its calls of ovs-ofctl."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.product import Site
from lab.switch import Switch
from lab.tenant import Tenant

HOST = "host-1"
_QUICK = {"retry_initial": 0.2, "retry_max": 0.5, "heartbeat_interval": 1}


class Calls:
    """Every call of ``ovs-ofctl`` a process makes."""

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


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls(tmp_path)
    monkeypatch.setenv("PATH", str(calls.directory), prepend=":")
    return calls


@pytest.fixture
def tenant(switch: Switch, calls: Calls) -> Iterator[Tenant]:
    with Site(switch, HOST, options={"agent_flows": _QUICK}) as site:
        site.start_all_in_one()
        tenant = Tenant(site)
        yield tenant
        tenant.leave()
