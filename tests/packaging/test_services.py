"""The files for systemd and logrotate are valid, closed, and leave the programs what they need."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.product import BIN

ROOT = Path(__file__).parents[2]
ETC = ROOT / "etc"
UNITS = sorted((ETC / "systemd").glob("*.service"))
PAGE = ROOT / "doc/operator/services.md"
INSTALLED = "/opt/agent-flows/bin/"


def run(*command: str | Path) -> str:
    ran = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def service(unit: Path) -> configparser.SectionProxy:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(unit)
    return read["Service"]


def test_every_daemon_has_a_unit() -> None:
    started = {service(unit)["ExecStart"].removeprefix(INSTALLED) for unit in UNITS}
    assert started == {"agent-flows-server", "agent-flows-agent", "agent-flows all-in-one"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace(INSTALLED, f"{BIN}/"))
    # What it warns of, as an option it does not know, is on its output too.
    assert run("systemd-analyze", "verify", "--man=no", here) == ""


@pytest.mark.parametrize("name", ["ovsdb-server.service", "ovs-vswitchd.service"])
def test_systemd_accepts_what_is_added_to_open_vswitchs_units(name: str, tmp_path: Path) -> None:
    unit, added = tmp_path / name, tmp_path / f"{name}.d"
    added.mkdir()
    shutil.copy(ETC / "systemd/openvswitch-for-agent-flows.conf", added / "agent-flows.conf")
    shutil.copy(Path("/lib/systemd/system") / name, unit)
    assert run("systemd-analyze", "verify", "--man=no", unit) == ""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_documentation_has_the_unit_s_exposure(unit: Path) -> None:
    report = run("systemd-analyze", "security", "--offline=yes", "--no-pager", unit)
    found = re.search(r"exposure level for \S+: ([\d.]+)", report)
    assert found
    row = re.search(rf"^\| `{re.escape(unit.name)}` \| ([\d.]+) \|$", PAGE.read_text(), re.M)
    assert row
    # Versions of systemd weigh a little differently.
    assert float(found[1]) == pytest.approx(float(row[1]), abs=0.3)


def test_user_and_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", ETC / "sysusers.d/agent-flows.conf")
    run("systemd-tmpfiles", f"--root={tmp_path}", "--create", ETC / "tmpfiles.d/agent-flows.conf")
    entry = re.search(
        r"^agent-flows:[^:]*:(\d+):(\d+):", (tmp_path / "etc/passwd").read_text(), re.MULTILINE
    )
    assert entry
    uid, gid = int(entry[1]), int(entry[2])
    made = {
        name: ((found := (tmp_path / name).stat()).st_uid, found.st_gid, found.st_mode & 0o777)
        for name in ("etc/agent_flows", "var/lib/agent-flows", "var/log/agent-flows")
    }
    assert made == {
        "etc/agent_flows": (0, gid, 0o750),
        "var/lib/agent-flows": (uid, gid, 0o750),
        "var/log/agent-flows": (uid, gid, 0o750),
    }


def test_a_log_is_rotated_while_its_program_writes(tmp_path: Path) -> None:
    log = tmp_path / "agent-flows-server.log"
    rules = tmp_path / "rules"
    rules.write_text(
        (ETC / "logrotate.d/agent-flows")
        .read_text()
        .replace("/var/log/agent-flows", str(tmp_path))
        .replace("su root agent-flows", "su root root")
    )
    rules.chmod(0o644)
    with log.open("a") as writer:
        writer.write("before\n")
        writer.flush()
        run("logrotate", "--force", "--state", tmp_path / "state", rules)
        writer.write("after\n")
    assert log.read_text() == "after\n"
    assert (tmp_path / "agent-flows-server.log.1").read_text() == "before\n"
