"""Wheel and sdist are complete and clean, and the wheel works in an empty environment."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.built import ROOT, VERSION, Built
from tests.packaging.command import run

NEUTRONS = "agent-flows-leave-host"


def test_an_index_would_take_both(tools: Path, built: Built) -> None:
    run(tools / "twine", "check", "--strict", built.sdist, built.wheel, cwd=built.sdist.parent)


def test_the_sdist_has_every_file_of_the_repository(built: Built) -> None:
    expected = {name for name in built.source if not name.startswith(".ci/")}
    # pbr leaves out what tells git and Zuul what to do.
    assert expected - built.in_sdist() <= {".gitignore", ".gitreview"}
    assert {name for name in built.in_sdist() if name.startswith(".ci/")} == set()


def test_the_wheel_has_every_file_of_the_package_and_no_other(built: Built) -> None:
    info, data = (f"agent_flows-{VERSION}.{kind}/" for kind in ("dist-info", "data"))
    ours = {name for name in built.in_wheel() if not name.startswith((info, data))}
    assert ours == {name for name in built.source if name.startswith("agent_flows/")}
    assert any("/standalone/migrations/versions/" in name for name in ours)
    assert any("/alembic_migrations/versions/" in name for name in ours)
    assert {"LICENSE", "AUTHORS"} <= {
        name.rpartition("/")[2] for name in built.in_wheel() if name.startswith(f"{info}licenses/")
    }


def test_the_wheel_installs_every_file_that_an_administrator_copies(built: Built) -> None:
    data = f"agent_flows-{VERSION}.data/data/"
    installed = {name for name in built.in_wheel() if name.startswith(data)}
    copied = {name for name in built.source if name.startswith("etc/")}
    copied -= {"etc/config-generator.conf", "etc/policy-generator.conf"}
    assert {name.rpartition("/")[2] for name in installed} == {
        name.rpartition("/")[2] for name in copied
    }
    # Where bash-completion looks below each of its data directories.
    assert f"{data}share/bash-completion/completions/agent-flows" in installed


def test_the_wheel_names_the_project_its_licence_and_what_it_needs(built: Built) -> None:
    metadata = built.read(f"agent_flows-{VERSION}.dist-info/METADATA")
    assert "\nLicense: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    needed = re.findall(r"^Requires-Dist: ([\w.-]+)[^;\n]*$", metadata, re.MULTILINE)
    wanted = [re.split(r"[<>=\[]", line)[0] for line in requirements()]
    assert sorted(needed, key=str.lower) == sorted(wanted, key=str.lower)


def requirements() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def scripts() -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["entry_points"]["console_scripts"].strip().splitlines()
    return [line.partition("=")[0].strip() for line in lines]


@pytest.mark.parametrize("program", sorted(set(scripts()) - {NEUTRONS}))
def test_every_program_explains_itself_in_an_empty_environment(
    program: str, programs: Path, place: Path
) -> None:
    assert f"usage: {program}" in run(programs / program, "--help", cwd=place)


def test_the_program_for_neutrons_hosts_names_what_it_lacks(programs: Path, place: Path) -> None:
    ran = subprocess.run(
        [programs / NEUTRONS, "--help"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == (
        "agent-flows-leave-host: No module named 'neutron'; "
        "install it in the Python environment of Neutron's agent\n"
    )


def test_the_installed_program_makes_its_schema(programs: Path, place: Path) -> None:
    own = place / "own.conf"
    own.write_text(f"[database]\nconnection = sqlite:///{place}/own.sqlite\n")
    manage = (programs / "agent-flows-manage", "--config-file", own, "db")
    head = run(*manage, "upgrade", cwd=place)
    assert re.fullmatch(r"\d{4}\n", head)
    assert run(*manage, "current", cwd=place) == head
