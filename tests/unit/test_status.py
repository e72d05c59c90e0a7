"""What ``agent-flows-status upgrade check`` finds without a switch, and what Neutron's finds."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oslo_upgradecheck.upgradecheck import Code

from agent_flows import conf as options
from agent_flows.neutron.server import upgrade_checks as neutrons
from agent_flows.reporting.outbox import Outbox, reasons_unreadable
from lab.product import as_text

MAIN = "import sys; from agent_flows.status import main; sys.exit(main(sys.argv[1:]))"
MANAGE = "import sys; from agent_flows.server.manage import main; sys.exit(main(sys.argv[1:]))"

Options = Mapping[str, Mapping[str, object]]


def python(code: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-W", "ignore", "-c", code, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@dataclass
class Machine:
    """A machine with a state directory, and no switch that answers."""

    place: Path

    @property
    def file(self) -> Path:
        return self.place / "some.conf"

    @property
    def outbox(self) -> Path:
        return self.place / "outbox.sqlite"

    def write(self, extra: Options | None = None) -> None:
        sections: dict[str, dict[str, object]] = {
            "database": {"connection": f"sqlite:///{self.place}/server.sqlite"},
            "agent_flows": {
                "state_dir": self.place,
                "ovsdb_connection": f"unix:{self.place}/nothing.sock",
                "ovsdb_timeout": 1,
            },
        }
        for section, values in (extra or {}).items():
            sections.setdefault(section, {}).update(values)
        self.file.write_text(as_text(sections))

    def check(self, extra: Options | None = None) -> dict[str, tuple[Code, str]]:
        self.write(extra)
        ran = python(MAIN, "--config-file", self.file, "upgrade", "check", "--json")
        found: dict[str, Any] = json.loads(ran.stdout)
        results = {
            each["check"]: (Code(each["result"]), each["details"] or "") for each in found["checks"]
        }
        assert ran.returncode == max(code for code, _ in results.values()), ran.stderr
        return results


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_where_nothing_has_run_yet(machine: Machine) -> None:
    found = machine.check()
    assert found.pop("Open vSwitch")[0] in (Code.SUCCESS, Code.WARNING)
    assert {code for code, _ in found.values()} == {Code.SUCCESS}


def test_options_that_this_release_does_not_have(machine: Machine) -> None:
    code, details = machine.check({"agent_flows": {"colour": "red", "max-batch": 5}})["Options"]
    assert code is Code.WARNING
    assert "[agent_flows] colour" in details
    assert "max-batch" not in details


def test_an_invalid_value(machine: Machine) -> None:
    code, details = machine.check({"agent_flows": {"retry_initial": 90}})["Options"]
    assert code is Code.FAILURE
    assert "retry_initial" in details


def test_the_schema(machine: Machine) -> None:
    name = "Schema of the server's database"
    sqlite3.connect(machine.place / "server.sqlite").close()
    code, details = machine.check()[name]
    assert code is Code.FAILURE
    assert "agent-flows-manage db upgrade" in details
    assert python(MANAGE, "--config-file", machine.file, "db", "upgrade").returncode == 0
    assert machine.check()[name] == (Code.SUCCESS, "")


def test_a_database_that_does_not_answer(machine: Machine) -> None:
    away = {"database": {"connection": "postgresql+psycopg2://u:SECRET@127.0.0.1:1/none"}}
    code, details = machine.check(away)["Schema of the server's database"]
    assert code is Code.FAILURE
    assert "SECRET" not in details


def test_reports_that_the_server_could_not_read(machine: Machine) -> None:
    outbox = Outbox(machine.outbox, 100)
    assert reasons_unreadable(machine.outbox) == []
    with sqlite3.connect(machine.outbox) as db:
        db.execute(
            "INSERT INTO unreadable (sequence, id, resource_type, resource_id, body, reason) "
            "VALUES (1, 'a', 'port', 'b', '{}', 'no\x1b[31mtime')"
        )
    code, details = machine.check()["Outbox of the agent"]
    assert code is Code.WARNING
    assert "1 reports" in details
    assert "no\\x1b[31mtime" in details
    outbox.close()


def test_an_outbox_that_is_damaged(machine: Machine) -> None:
    machine.outbox.write_bytes(b"not a database" * 1000)
    code, details = machine.check()["Outbox of the agent"]
    assert code is Code.FAILURE
    assert str(machine.outbox) in details


def test_the_configuration_of_neutrons_agent(machine: Machine) -> None:
    ovs: Options = {"ovs": {"integration_bridge": "br-int"}}
    name = "Extension of Neutron's agent"
    assert machine.check(ovs)[name][0] is Code.WARNING
    driver = {**ovs, "securitygroup": {"firewall_driver": "agent_flows"}}
    assert machine.check(driver)[name][0] is Code.FAILURE
    both = {**driver, "agent": {"extensions": "qos, agent_flows"}}
    assert machine.check(both)[name] == (Code.SUCCESS, "")


def test_a_file_that_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    ran = python(MAIN, "--config-file", tmp_path / "none.conf", "upgrade", "check")
    assert ran.returncode == 255
    assert ran.stdout == ""
    assert ran.stderr.startswith("agent-flows-status: ")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("plugins", "drivers", "code"),
    [
        (["agent_flows"], ["openvswitch", "agent_flows"], Code.SUCCESS),
        (["agent_flows"], ["openvswitch"], Code.FAILURE),
        (["router"], ["agent_flows"], Code.FAILURE),
        (["router"], ["openvswitch"], Code.SUCCESS),
    ],
)
def test_neutrons_server_loads_both_or_neither(
    plugins: list[str], drivers: list[str], code: Code
) -> None:
    assert neutrons.loaded(plugins, drivers).code is code


def test_a_migration_that_was_not_applied_is_named() -> None:
    found = neutrons.migrated(["agent_flows_contract_0001"], ["expand_2", "expand_1"])
    assert found.code is Code.FAILURE
    assert "expand_1, expand_2" in (found.details or "")
    assert neutrons.migrated(["expand_1"], ["expand_1"]).code is Code.SUCCESS


def test_neutrons_status_warns_of_old_options_too() -> None:
    sections = {options.SERVER: {"gone": ["1"], "workers": ["2"]}}
    found = neutrons.known(sections)
    assert (found.code, f"[{options.SERVER}] gone" in (found.details or "")) == (Code.WARNING, True)
    assert neutrons.known({"DEFAULT": {"anything": ["1"]}}).code is Code.SUCCESS
