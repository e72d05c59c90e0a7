"""The DevStack plugin, run with stubs of DevStack's functions that record what they are to do."""

import subprocess
from pathlib import Path

import pytest

from tests.packaging.command import run

ROOT = Path(__file__).parents[2]

# As functions-common and inc/ini-config have them, but for what they act on.
STUBS = r"""
set -o errexit
declare -A VALUES=()
[ -z "$PRESENT" ] || VALUES["$PRESENT"]=$PRESENT_VALUE
DEST=/opt/stack
NEUTRON_CONF=/etc/neutron/neutron.conf
NEUTRON_CORE_PLUGIN_CONF=etc/neutron/plugins/ml2/ml2_conf.ini
NEUTRON_BIN_DIR=$STUB_BIN
define_plugin() { echo "define_plugin $*"; }
setup_develop() { echo "setup_develop $*"; }
pip_uninstall() { echo "pip_uninstall $*"; }
die() { echo "die ${*:2}"; exit 1; }
is_service_enabled() {
    local each
    for each; do [[ ,$SERVICES, != *,$each,* ]] || return 0; done
    return 1
}
iniget() { echo "${VALUES[$1 $2 $3]:-}"; }
iniset() { VALUES[$1 $2 $3]=$4; echo "iniset $*"; }
"""
ML2 = "/etc/neutron/plugins/ml2/ml2_conf.ini"
NEUTRON = "/etc/neutron/neutron.conf"


@pytest.fixture
def stub_bin(tmp_path: Path) -> Path:
    program = tmp_path / "neutron-db-manage"
    program.write_text('#!/bin/sh\necho "neutron-db-manage $*"\n')
    program.chmod(0o755)
    return tmp_path


def plugin(
    stub_bin: Path,
    *phases: str,
    services: str = "q-svc,q-agt",
    agent: str = "openvswitch",
    present: tuple[str, str] = ("", ""),
) -> tuple[int, list[str]]:
    """Exit code and what was done. Every phase sources the plugin again, as stack.sh does."""
    sourced = [f"source {ROOT}/devstack/plugin.sh {phase}" for phase in phases]
    script = "\n".join([STUBS, f"source {ROOT}/devstack/settings", *sourced])
    ran = subprocess.run(
        ["bash", "-c", script],
        env={
            "PATH": "/usr/bin:/bin",
            "SERVICES": services,
            "Q_AGENT": agent,
            "STUB_BIN": str(stub_bin),
            "PRESENT": present[0],
            "PRESENT_VALUE": present[1],
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout.splitlines()


SERVER = [
    f"iniset {NEUTRON} DEFAULT service_plugins agent_flows",
    f"iniset {ML2} ml2 mechanism_drivers agent_flows",
    f"iniset {NEUTRON} agent_flows_server on_refresh_failure down",
    f"neutron-db-manage --config-file {NEUTRON} --config-file {ML2} "
    "--subproject agent_flows upgrade heads",
]
AGENT = [
    f"iniset {ML2} agent extensions agent_flows",
    f"iniset {ML2} securitygroup firewall_driver agent_flows",
]


def test_a_node_with_everything(stub_bin: Path) -> None:
    phases = ("stack pre-install", "stack install", "stack post-config", "stack extra", "unstack")
    assert plugin(stub_bin, *phases) == (
        0,
        [
            "define_plugin agent_flows",
            "setup_develop /opt/stack/agent_flows",
            *SERVER,
            *AGENT,
        ],
    )


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ("q-svc", SERVER),
        ("neutron-api", SERVER),
        ("q-agt", AGENT),
        ("neutron-agent", AGENT),
        ("n-cpu", []),
    ],
)
def test_a_node_configures_what_it_runs(stub_bin: Path, services: str, expected: list[str]) -> None:
    code, done = plugin(stub_bin, "stack post-config", services=services)
    assert (code, done[1:]) == (0, expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("openvswitch", "openvswitch,agent_flows"),
        ("openvswitch, l2population", "openvswitch, l2population,agent_flows"),
        ("openvswitch,agent_flows", None),
    ],
)
def test_the_driver_is_appended_once(stub_bin: Path, before: str, after: str | None) -> None:
    present = (f"{ML2} ml2 mechanism_drivers", before)
    _, done = plugin(stub_bin, "stack post-config", services="q-svc", present=present)
    written = [line for line in done if "mechanism_drivers" in line]
    assert written == ([f"iniset {ML2} ml2 mechanism_drivers {after}"] if after else [])


def test_another_agent_than_open_vswitchs_is_refused(stub_bin: Path) -> None:
    code, done = plugin(stub_bin, "stack pre-install", agent="ovn")
    assert code == 1
    assert done[-1].startswith("die agent_flows needs Open vSwitch's agent")


def test_cleaning_removes_the_package(stub_bin: Path) -> None:
    assert plugin(stub_bin, "clean")[1][1:] == ["pip_uninstall agent_flows"]


def test_shellcheck_finds_nothing(tools: Path) -> None:
    scripts = [ROOT / "devstack/plugin.sh", ROOT / "devstack/settings"]
    scripts += [
        path for path in (ROOT / "tools").iterdir() if path.read_bytes().startswith(b"#!/bin/bash")
    ]
    run(tools / "shellcheck", "--shell=bash", "--severity=warning", *scripts, cwd=ROOT)
