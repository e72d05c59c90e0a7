"""The house plan: arrows of import point one way, and a process loads only what it runs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_flows

PACKAGE = Path(agent_flows.__file__).parent
ROOT = PACKAGE.parent

# What a part may import of the others. The agent's side stacks: each part may
# use everything below it.
WORDS = {"validation", "spec", "report", "supervision", "watchdog"}
SETUP = {"conf", "process"}
ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "validation": set(),
    "spec": {"validation"},
    "report": {"validation", "spec"},
    "conf": set(),
    "process": {"conf", "printable"},
    "supervision": set(),
    "remedies": set(),
    "printable": set(),
    "watchdog": {"report", "supervision"},
    "rpc": WORDS,
    "flows": WORDS | {"rpc"},
    "secgroups": WORDS | {"rpc", "flows"},
    "l2": WORDS | {"rpc", "flows", "secgroups"},
    "agent": WORDS | SETUP | {"rpc", "flows", "secgroups", "l2"},
    "server": WORDS | SETUP | {"rpc", "remedies"},
    "neutron": WORDS | SETUP | {"rpc", "flows", "secgroups", "l2", "server"},
    # Commands talk REST; only the words of the API are shared.
    "cli": {"report", "printable"},
}
# all-in-one is the one command that is not a client.
EXCEPTIONS = {
    "cli/all_in_one.py": {"process"},
    "cli/embedded.py": SETUP | {"rpc", "agent", "server"},
}

NEUTRON = {"neutron", "neutron_lib", "agent_flows.neutron"}

# What oslo.service takes if it is asked for a backend before anybody chose one.
EVENTLET_BACKEND = "oslo_service.backend._eventlet"

MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [
    path
    for place in ("agent_flows", "lab", "bench", "tests", "doc")
    for path in sorted((ROOT / place).rglob("*.py"))
]


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def loaded_by(modules: str) -> set[str]:
    """The names in sys.modules of a fresh process that imported ``modules``."""
    code = f"import {modules}, sys; print('\\n'.join(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(path)
    allowed = ARROWS[part] | EXCEPTIONS.get(str(path.relative_to(PACKAGE)), set()) | {part}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("agent_flows.")}
    assert used <= allowed, f"{part} may not import {used - allowed}"


def test_only_the_door_to_neutron_imports_neutron() -> None:
    guests = [
        str(path)
        for path in MODULES
        if part_of(path) != "neutron"
        and any(name.split(".")[0] in ("neutron", "neutron_lib") for name in imports(path))
    ]
    assert guests == []


def test_nothing_of_ours_imports_eventlet() -> None:
    guests = [
        str(path)
        for path in SOURCES
        if any(name.split(".")[0] == "eventlet" for name in imports(path))
    ]
    assert guests == []


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        (
            "agent_flows.server.service",
            {
                "taskflow",
                "ovsdbapp",
                "pyroute2",
                "keystonemiddleware",
                "agent_flows.flows",
                "agent_flows.secgroups",
                "agent_flows.l2",
                "agent_flows.agent",
                EVENTLET_BACKEND,
                *NEUTRON,
            },
        ),
        (
            "agent_flows.agent.service",
            {"sqlalchemy", "falcon", "agent_flows.server", EVENTLET_BACKEND, *NEUTRON},
        ),
        (
            "agent_flows.cli.app, agent_flows.cli.all_in_one, agent_flows.cli.port",
            {"taskflow", "sqlalchemy", "oslo_messaging", "keystoneauth1", "requests", "yaml"}
            | NEUTRON,
        ),
    ],
    ids=["server", "agent", "cli"],
)
def test_a_process_loads_only_what_it_runs(module: str, foreign: set[str]) -> None:
    assert loaded_by(module) & foreign == set()
