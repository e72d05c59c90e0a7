"""``agent-flows-status upgrade check`` on a host with a real switch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_upgradecheck.upgradecheck import Code

from lab.product import as_text
from lab.switch import Switch

MAIN = "import sys; from agent_flows.status import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    with Switch("status") as made:
        yield made


def checked(switch: Switch, place: Path) -> tuple[Code, str]:
    file = place / "agent.conf"
    ours = {
        "ovsdb_connection": switch.database,
        "ovs_run_dir": switch.run_dir,
        "state_dir": place,
    }
    file.write_text(as_text({"agent_flows": ours}))
    argv = [sys.executable, "-W", "ignore", "-c", MAIN, "--config-file", str(file)]
    ran = subprocess.run(
        [*argv, "upgrade", "check", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(ran.stdout)["checks"]
    (ours_,) = (each for each in found if each["check"] == "Open vSwitch")
    return Code(ours_["result"]), ours_["details"]


def test_a_host_whose_agent_has_not_started_yet(switch: Switch, tmp_path: Path) -> None:
    code, details = checked(switch, tmp_path)
    assert code is Code.SUCCESS
    assert "no bridge br-int yet" in details


def test_the_bridge_takes_a_bundle_and_keeps_its_flows(switch: Switch, tmp_path: Path) -> None:
    switch.add_bridge("br-int")
    switch.ofctl("add-flow", switch.management("br-int"), "table=7,actions=drop")
    code, details = checked(switch, tmp_path)
    assert (code, details.split()[:2]) == (Code.SUCCESS, ["Open", "vSwitch"])
    assert "table=7" in switch.ofctl("dump-flows", switch.management("br-int"))


def test_a_bridge_without_openflow_14(switch: Switch, tmp_path: Path) -> None:
    switch.vsctl("set", "Bridge", "br-int", "protocols=OpenFlow10")
    try:
        code, details = checked(switch, tmp_path)
    finally:
        switch.vsctl("clear", "Bridge", "br-int", "protocols")
    assert code is Code.WARNING
    assert "OpenFlow14" in details


def test_a_switch_that_is_too_old(switch: Switch, tmp_path: Path) -> None:
    switch.vsctl("--no-wait", "set", "Open_vSwitch", ".", "ovs_version=2.17.9")
    code, details = checked(switch, tmp_path)
    assert code is Code.FAILURE
    assert "2.17.9" in details
