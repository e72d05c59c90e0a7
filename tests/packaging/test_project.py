"""What the forge, Zuul and a container builder read names what exists."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def suites() -> set[str]:
    """Those that tools/test runs."""
    ran = subprocess.run(
        [ROOT / "tools/test", "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    found = re.search(r"tools/test \[([a-z0-9|]+)\]", ran.stdout)
    assert found
    return set(found[1].split("|"))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_zuul_runs_suites_that_exist_and_all_of_them() -> None:
    jobs = {each["job"]["name"]: each["job"] for each in read(".zuul.yaml") if "job" in each}
    ran = {job["vars"]["suite"] for job in jobs.values() if "vars" in job}
    assert "all" in ran
    assert ran <= suites()
    (project,) = (each["project"] for each in read(".zuul.yaml") if "project" in each)
    assert {*project["check"]["jobs"], *project["gate"]["jobs"]} <= set(jobs)
    (play,) = read(jobs["agent-flows-base"]["run"])
    assert play["tasks"][0]["ansible.builtin.command"]["cmd"] == "tools/test {{ suite }}"


def test_the_workflow_runs_suites_that_exist_and_all_of_them() -> None:
    job = read(".github/workflows/test.yaml")["jobs"]["test"]
    ran = set(job["strategy"]["matrix"]["suite"])
    assert "all" in ran
    assert ran <= suites()
    assert job["steps"][-1]["run"] == "tools/test ${{ matrix.suite }}"


def test_the_container_has_the_programs_and_extras_that_there_are() -> None:
    text = (ROOT / "Containerfile").read_text()
    setup = (ROOT / "setup.cfg").read_text()
    extras = re.search(r"'/src\[([a-z,]+)\]'", text)
    program = re.search(r'^CMD \["([a-z-]+)"\]$', text, re.MULTILINE)
    assert extras
    assert program
    assert all(f"\n{extra} =\n" in setup for extra in extras[1].split(","))
    assert f"    {program[1]} = " in setup


def test_the_agent_in_a_container_has_the_rights_of_its_unit() -> None:
    """What these suffice for: tests/functional/agent/test_other_user.py."""
    command = (
        (ROOT / "Containerfile").read_text().partition("\nFROM ")[0].rpartition("podman run")[2]
    )
    unit = (ROOT / "etc/systemd/agent-flows-agent.service").read_text()
    [given] = re.findall(r"^AmbientCapabilities=(.*)$", unit, re.MULTILINE)
    assert "--cap-drop all" in command
    assert [f"CAP_{each}" for each in re.findall(r"--cap-add (\S+)", command)] == given.split()
    assert '--user "$(id -u agent-flows):$(id -g agent-flows)"' in command


def requirements(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.mark.parametrize(
    "name", ["requirements.txt", "test-requirements.txt", "doc-requirements.txt"]
)
def test_every_requirement_has_an_upper_constraint_that_it_allows(name: str) -> None:
    newest = {canonicalize_name(each.name): each for each in requirements("constraints.txt")}
    for required in requirements(name):
        (bound,) = newest[canonicalize_name(required.name)].specifier
        assert bound.operator == "<="
        assert required.specifier.contains(bound.version)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_the_page_links_to_what_exists(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
