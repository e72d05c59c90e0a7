"""Neutron's database: our tables, many workers at one time, and what is left after removal."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from agent_flows.report import FlowName
from lab.databases import MariaDB
from tests.functional.neutron_server.stage import Body, Host, Neutron, configuration

MakePort = Callable[..., Body]
BIN = Path(sys.executable).parent

# Run by itself: Neutron's models and options stay out of this process.
_COMPARE = """
import sys
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from agent_flows.neutron.server.migration import tables
engine = sa.create_engine(sys.argv[1])
with engine.connect() as connection:
    options = {"compare_type": True, "include_object": tables.is_ours}
    context = MigrationContext.configure(connection, opts=options)
    differences = compare_metadata(context, tables.METADATA)
print(differences)
"""


def database_url(config_file: Path) -> str:
    (url,) = re.findall("^connection = (.*)$", config_file.read_text(), re.MULTILINE)
    return str(url)


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def test_neutrons_own_tool_makes_the_tables_of_the_models(migrated: Path) -> None:
    ran = run(sys.executable, "-W", "ignore", "-c", _COMPARE, database_url(migrated))
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


def test_both_branches_have_a_head_of_their_own(migrated: Path) -> None:
    argv = [BIN / "neutron-db-manage", "--config-file", migrated, "--subproject", "agent_flows"]
    current = run(*argv, "current")
    assert "agent_flows_expand_0006" in current.stdout
    assert "agent_flows_contract_0001" in current.stdout
    for phase in ("--expand", "--contract"):
        assert run(*argv, "upgrade", phase).returncode == 0


def test_an_upgrade_keeps_what_the_first_release_stored(mariadb: MariaDB, tmp_path: Path) -> None:
    url = f"{mariadb.new_url()}&charset=utf8"
    made = configuration(tmp_path, url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        # All that ours refer to of Neutron's tables.
        connection.execute(sa.text("CREATE TABLE ports (id VARCHAR(36) PRIMARY KEY)"))
    argv = [BIN / "neutron-db-manage", "--config-file", made, "--subproject", "agent_flows"]
    ran = run(*argv, "upgrade", "agent_flows_expand_0001")
    assert ran.returncode == 0, ran.stderr
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO agent_flows_agents "
                "(host, sequence, heartbeat_at, declared_dead, state) "
                "VALUES ('h1', 7, '2026-01-01', 0, '{}')"
            )
        )
    ran = run(*argv, "upgrade", "heads")
    assert ran.returncode == 0, ran.stderr
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT * FROM agent_flows_agents")).mappings().one()
    assert (found["host"], found["sequence"], found["boot_id"]) == ("h1", 7, None)
    engine.dispose()


def test_many_workers_take_reports_while_users_change_the_ports(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    group = neutron.create("security-groups", name="busy")["id"]
    ports = [make_port(ours, security_groups=[group])["id"] for _ in range(8)]
    for port in ports:
        ours.plug(port)
    works: list[dict[str, Any]] = []
    for fails in (None, "bind-vlan", None):
        reports = [ours.wire_form(ours.report(port, fails=fails)) for port in ports]
        works += [
            {"do": "report", "host": ours.name, "reports": reports},
            {"do": "report", "host": ours.name, "reports": reports[::-1]},
        ]
    for number, port in enumerate(ports[:3]):
        rule = {"security_group_id": group, "direction": "ingress", "protocol": f"{100 + number}"}
        change = {"fixed_ips": [{"ip_address": f"10.0.201.{number + 1}"}]}
        works += [
            post("/security-group-rules", {"security_group_rule": {**rule, "project_id": "p"}}),
            {**post(f"/ports/{port}", {"port": change}), "method": "PUT"},
        ]
    answers = neutron.do("together", works=works)
    assert [answer["rejected"] for answer in answers[:6]] == [{}] * 6
    assert all(status < 300 for status, _ in answers[6:])
    for port in ports:
        ours.reports(port)
    assert [neutron.state(port) for port in ports] == [("ACTIVE", "IN_SYNC")] * 8
    ours.reports(ports[0], flow=FlowName.REFRESH)


def post(path: str, body: Any) -> dict[str, Any]:
    return {
        "do": "rest",
        "method": "POST",
        "path": path,
        "body": body,
        "project": None,
        "roles": [],
    }


def test_cleanup_lifts_the_blocks_that_are_left(
    neutron: Neutron, ours: Host, make_port: MakePort, migrated: Path
) -> None:
    port = make_port(ours)["id"]
    ours.plug(port)
    assert neutron.state(port)[0] == "DOWN"
    argv = [BIN / "agent-flows-manage", "--config-file", migrated, "neutron-cleanup"]
    ran = run(*argv)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[0]) >= 1
    ours.plug(port)
    assert neutron.state(port) == ("ACTIVE", None)
    assert run(*argv).stdout == "0 blocks lifted\n"


def test_a_database_that_is_not_neutrons_is_left_alone(tmp_path: Path) -> None:
    made = tmp_path / "other.conf"
    made.write_text(f"[database]\nconnection = sqlite:///{tmp_path}/other.sqlite\n")
    ran = run(BIN / "agent-flows-manage", "--config-file", made, "neutron-cleanup")
    assert ran.returncode == 1
    assert "there is no table provisioningblocks" in ran.stderr


# Run by itself: neutron-status, with our checks as its entry point would give them.
_NEUTRONS_STATUS = """
import sys
from neutron.cmd import status
from agent_flows.neutron.server.upgrade_checks import AgentFlowsChecks
status.Checker._upgrade_checks = tuple(AgentFlowsChecks().get_checks())
sys.exit(status.main())
"""


def test_neutrons_own_check_finds_what_is_not_applied(migrated: Path) -> None:
    argv = [sys.executable, "-W", "ignore", "-c", _NEUTRONS_STATUS, "--config-file", migrated]
    checked = run(*argv, "upgrade", "check", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    versions = sa.table("alembic_version_agent_flows", sa.column("version_num"))
    expand = versions.c.version_num.like("%expand%")
    engine = sa.create_engine(database_url(migrated))
    with engine.begin() as connection:
        applied = connection.scalars(sa.select(versions.c.version_num).where(expand)).one()
        connection.execute(sa.delete(versions).where(expand))
    try:
        behind = run(*argv, "upgrade", "check", "--json")
    finally:
        with engine.begin() as connection:
            connection.execute(sa.insert(versions).values(version_num=applied))
        engine.dispose()
    assert behind.returncode == 2, behind.stdout + behind.stderr
    assert applied in behind.stdout
