"""Imports between the parts point one way, and a process loads only what it runs.

The page of the architecture takes its tables from here.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_flows

PACKAGE = Path(agent_flows.__file__).parent
ROOT = PACKAGE.parent

# What a part may import of the others; a part is a package, or a module at the top. The agent's
# side stacks: each part may use everything below it.
WORDS = {"errors", "validation", "spec", "report", "supervision", "watchdog", "fairness"}
COUNTING = {"metrics", "instruments"}
SETUP = {"conf", "process", "process_report"}
ON_A_HOST = WORDS | {"tracing", "rpc", "reporting", "engine", "openflow", "secgroups"}
ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "validation": set(),
    "spec": {"validation"},
    "report": {"validation", "errors"},
    "conf": set(),
    "process_report": set(),
    "process": {"conf", "printable", "process_report"},
    "threads": set(),
    "supervision": set(),
    "fairness": set(),
    "printable": set(),
    "metrics": set(),
    "instruments": {"metrics"},
    "exporter": {"supervision"},
    "watchdog": {"report", "supervision"},
    "tracing": {"conf", "report", "spans"},
    "spans": {"report", "validation"},
    "rpc": WORDS | {"tracing"},
    "reporting": WORDS | COUNTING | {"rpc"},
    "engine": WORDS,
    "openflow": WORDS | {"engine"},
    "secgroups": WORDS | {"engine", "openflow"},
    "privileged": set(),
    "l2": WORDS | {"engine", "openflow", "privileged"},
    "agent": ON_A_HOST | SETUP | {"threads", "exporter", "l2", "privileged"},
    "server.policies": set(),
    # The modules that the installed commands name.
    "server": WORDS
    | SETUP
    | {"tracing"}
    | {"printable", "threads", "rpc", "server.core", "server.standalone", "neutron.server"},
    # What the standalone server and Neutron's server share.
    "server.core": WORDS | COUNTING | {"conf", "tracing", "rpc"},
    "server.standalone": WORDS
    | {"conf", "printable", "rpc", "server.core", "server.policies", "page"},
    # It looks at whatever is on the machine.
    "status": SETUP | {"printable", "openflow", "reporting", "server.core", "server.standalone"},
    # What both kinds of hosts inside Neutron share.
    "neutron": WORDS | {"engine", "openflow"},
    "neutron.verify": WORDS | {"engine", "openflow", "secgroups", "conf", "neutron"},
    "neutron.agent": ON_A_HOST | SETUP | {"exporter", "neutron", "neutron.verify"},
    "neutron.server": WORDS
    | {"conf", "process_report", "tracing", "exporter", "rpc", "server.core", "neutron"},
    # It shows what a REST API answers, and knows neither the API nor a database.
    "page": {"errors", "report", "validation"},
    # Commands talk REST; only the words of the API are shared, and how the page draws attempts.
    "cli": {"errors", "report", "printable", "page"},
    # A command for a host: what the agent compiles, beside what the switch holds.
    "verification": WORDS
    | {"conf", "process", "rpc", "engine", "openflow", "secgroups", "l2", "cli"},
    # It talks to Neutron as the commands do.
    "dashboard": {"cli", "page", "report", "validation"},
    "allinone": SETUP
    | {
        "threads",
        "rpc",
        "privileged",
        "agent",
        "server",
        "server.core",
        "server.standalone",
        "cli",
    },
}

NEUTRON = {"neutron", "neutron_lib", "agent_flows.neutron"}

# What oslo.service takes if it is asked for a backend before anybody chose one.
EVENTLET_BACKEND = "oslo_service.backend._eventlet"

# By process: the modules it starts with, and what must not be loaded after that.
PROCESSES: dict[str, tuple[str, set[str]]] = {
    "agent-flows-server": (
        "agent_flows.server.service",
        {
            "taskflow",
            "ovsdbapp",
            "pyroute2",
            "keystonemiddleware",
            "agent_flows.engine",
            "agent_flows.reporting",
            "agent_flows.openflow",
            "agent_flows.secgroups",
            "agent_flows.l2",
            "agent_flows.agent",
            EVENTLET_BACKEND,
            *NEUTRON,
        },
    ),
    "agent-flows-agent": (
        "agent_flows.agent.service",
        {"sqlalchemy", "falcon", "agent_flows.server", "agent_flows.rpc.server"}
        | {EVENTLET_BACKEND, *NEUTRON},
    ),
    "agent-flows, openstack": (
        "agent_flows.cli.app, agent_flows.allinone.command, agent_flows.dashboard.command, "
        "agent_flows.verification.command, agent_flows.cli.port",
        {"taskflow", "sqlalchemy", "oslo_messaging", "keystoneauth1", "requests", "yaml"}
        | {"falcon", "openstack"}
        | NEUTRON,
    ),
    "neutron-openvswitch-agent": (
        "agent_flows.neutron.agent.firewall_driver, agent_flows.neutron.agent.extension",
        {"falcon", "agent_flows.server", "agent_flows.neutron.server", "agent_flows.l2"}
        | {"agent_flows.agent", "agent_flows.rpc.server"},
    ),
    "agent-flows-manage": (
        "agent_flows.server.manage",
        {"taskflow", "falcon", "ovsdbapp", "neutron", "neutron_lib", EVENTLET_BACKEND},
    ),
    "agent-flows-status": (
        "agent_flows.status",
        {"taskflow", "falcon", "ovsdbapp", EVENTLET_BACKEND, *NEUTRON},
    ),
    "neutron-server": (
        "agent_flows.neutron.server.plugin, agent_flows.neutron.server.mechanism",
        {"taskflow", "falcon", "waitress", "ovsdbapp", "agent_flows.server.standalone"}
        | {"agent_flows.engine", "agent_flows.openflow"}
        | {"agent_flows.secgroups", "agent_flows.reporting", "agent_flows.neutron.agent"},
    ),
}

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


def part_of(module: str) -> str:
    """The part a module of ours is in: the longest name in ARROWS that it begins with."""
    name = module.removeprefix("agent_flows.")
    while name not in ARROWS:
        name, dot, _ = name.rpartition(".")
        assert dot, f"{module} is in no part"
    return name


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def loaded_by(modules: str) -> set[str]:
    """The names in sys.modules of a fresh process that imported ``modules``."""
    code = f"import {modules}, sys; print('\\n'.join(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(module_of(path))
    used = {part_of(name) for name in imports(path) if name.startswith("agent_flows.")}
    assert used <= ARROWS[part] | {part}, f"{part} may not import {used - ARROWS[part] - {part}}"


def test_no_part_imports_itself_through_others() -> None:
    graphlib.TopologicalSorter(ARROWS).prepare()


def test_only_the_neutron_package_imports_neutron() -> None:
    strangers = [
        str(path)
        for path in MODULES
        if not module_of(path).startswith("neutron")
        and any(name.split(".")[0] in ("neutron", "neutron_lib") for name in imports(path))
    ]
    assert strangers == []


def test_nothing_of_ours_imports_eventlet() -> None:
    strangers = [
        str(path)
        for path in SOURCES
        if any(name.split(".")[0] == "eventlet" for name in imports(path))
    ]
    assert strangers == []


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_loads_only_what_it_runs(process: str) -> None:
    modules, foreign = PROCESSES[process]
    assert loaded_by(modules) & foreign == set()
