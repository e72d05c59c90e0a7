"""The units run under a live systemd, installed as the documentation says."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.machine import Machine
from lab.process import CommandFailed, wait_until
from tests.packaging.built import Built
from tests.packaging.command import run

PAGE = Path(__file__).parents[2] / "doc/operator/services.md"
HOST = "compute-1"
PREFIX = Path("/opt/agent-flows")
NETWORK, GROUP, PORT = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in "123")
DOCUMENT = {
    "networks": [{"id": NETWORK, "network_type": "local"}],
    "security_groups": [
        {"id": GROUP, "security_group_rules": [{"direction": "egress", "ethertype": "IPv4"}]}
    ],
    "ports": [
        {
            "id": PORT,
            "network_id": NETWORK,
            "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"ip_address": "10.0.0.11"}],
            "security_groups": [GROUP],
            "binding:host_id": HOST,
        }
    ],
}
_SECONDS = 60


def commands(unit: str) -> str:
    """Of the page, for the unit in place of the server's; the editor sets one option."""
    *prepare, start = _lines("On a controller:")
    if unit != "agent-flows-server":
        prepare += _lines("On a compute host the same with `agent-flows-agent.service`, .*:")
    said = "".join([*prepare, start]).replace("agent-flows-server", unit)
    # The lab's switch has no kernel datapath.
    option = r"[agent_flows]\ndatapath_type = netdev\n"
    edited, count = re.subn(r"\beditor (\S+)", rf"printf '{option}' >> \1", said)
    assert count == 1
    return edited


def _lines(introduction: str) -> list[str]:
    block = re.search(rf"^{introduction}\n\n((?: {{4}}.*\n)+)", PAGE.read_text(), re.MULTILINE)
    assert block
    return block[1].splitlines(keepends=True)


class Host:
    """Where Open vSwitch and RabbitMQ run as their packages start them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, script: str) -> str:
        """Its output; what our services have logged is in the failure."""
        try:
            return self.machine.run(script)
        except (CommandFailed, subprocess.TimeoutExpired) as failed:
            read = "journalctl --no-pager --output=cat --lines=60 --unit='agent-flows*'"
            logs = self.machine.run(read)
            raise AssertionError(f"{failed}\n{logs}") from None

    def ask(self, words: str) -> Any:
        return json.loads(self.run(f"{PREFIX}/bin/agent-flows {words} -f json"))

    def starts(self, unit: str) -> None:
        self.run(commands(unit))

    def wires_a_port(self) -> None:
        document = json.dumps(DOCUMENT)
        self.run(f"echo '{document}' > cloud.json")
        answers = "curl --silent --fail --retry 60 --retry-delay 1 --retry-connrefused"
        self.run(f"{answers} http://127.0.0.1:9797/healthz")
        self.ask("apply cloud.json")
        # The agent's process has started before it has made its bridge.
        self.run(f"ovs-vsctl --timeout={_SECONDS} wait-until Bridge br-int")
        self.run(
            f"ovs-vsctl --retry add-port br-int tap1 -- set Interface tap1 type=internal "
            f"external_ids:iface-id={PORT}"
        )
        self.waits_for_active()

    def waits_for_active(self) -> None:
        self.run(f"{PREFIX}/bin/agent-flows port wait {PORT} --status ACTIVE --timeout 100")

    def is_without_trouble(self) -> None:
        # A loop that fails is tried again within this time.
        wait_until(lambda: self._troubles() == {HOST: None}, _SECONDS, "no host is in trouble", 0.5)

    def _troubles(self) -> dict[str, str | None]:
        return {each["host"]: each["trouble"] for each in self.ask("agent list")}

    def repairs_what_another_program_deletes(self) -> None:
        self.run("ovs-ofctl -O OpenFlow14 del-flows br-int table=82")
        query = "task list --flow audit"
        wait_until(lambda: self.ask(query), _SECONDS, "the drift is reported", 0.5)
        self.waits_for_active()

    def has_only_started(self, *units: str) -> None:
        """No unit was started a second time, and none fails when it is stopped."""
        for unit in units:
            show = f"systemctl show {unit} --property"
            assert self.run(f"{show}=NRestarts") == "NRestarts=0\n"
            self.run(f"systemctl stop {unit}")
            assert self.run(f"{show}=Result") == "Result=success\n"


@pytest.fixture(scope="module")
def installed(place: Path, tools: Path, built: Built) -> Path:
    """The wheel as an administrator installs it, for the Python that every user may read."""
    python = ("--python", "/usr/bin/python3")
    run(tools / "uv", "venv", "--quiet", "--relocatable", *python, "opt", cwd=place)
    install = (tools / "uv", "pip", "install", "--quiet", "--python", "opt/bin/python")
    run(*install, f"{built.wheel}[standalone]", cwd=place)
    return place / "opt"


@pytest.fixture
def host(installed: Path) -> Iterator[Host]:
    with Machine(HOST, installed, PREFIX) as machine:
        # What may have run on this machine.
        machine.run("rm -rf /etc/agent_flows /var/lib/agent-flows /etc/openvswitch/conf.db")
        machine.run("systemctl start openvswitch-switch")
        yield Host(machine)


def test_the_server_and_the_agent(host: Host) -> None:
    host.machine.run("systemctl start rabbitmq-server")
    host.starts("agent-flows-server")
    host.starts("agent-flows-agent")
    host.wires_a_port()
    host.repairs_what_another_program_deletes()
    host.is_without_trouble()
    host.has_only_started("agent-flows-agent", "agent-flows-server")


def test_both_in_one_process(host: Host) -> None:
    host.starts("agent-flows-all-in-one")
    host.wires_a_port()
    host.repairs_what_another_program_deletes()
    host.is_without_trouble()
    host.has_only_started("agent-flows-all-in-one")
