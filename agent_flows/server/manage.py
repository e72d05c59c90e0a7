"""agent-flows-manage: what an administrator does to the database."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from agent_flows import process
from agent_flows.neutron.server import cleanup
from agent_flows.server.core import database
from agent_flows.server.standalone import schema

PROG = "agent-flows-manage"


def _upgrade(held: database.Database) -> None:
    schema.upgrade(held)
    print(schema.current(held))


def _current(held: database.Database) -> None:
    found = schema.current(held)
    behind = "" if found == schema.head() else f" (newest: {schema.head()})"
    print(f"{found or 'none'}{behind}")


def _clean_neutron(held: database.Database) -> None:
    print(f"{cleanup.clean(held)} blocks lifted")


_ACTIONS = {"upgrade": _upgrade, "current": _current, "neutron-cleanup": _clean_neutron}


def _add_commands(commands: Any) -> None:
    actions = commands.add_parser("db", help="the database's schema").add_subparsers(
        dest="action", required=True
    )
    actions.add_parser("upgrade", help="bring the schema to the newest version")
    actions.add_parser("current", help="print the version the schema has")
    cleanup = commands.add_parser(
        "neutron-cleanup",
        help="once agent_flows is out of Neutron's configuration: lift the blocks it left there "
        "(with --config-file /etc/neutron/neutron.conf)",
    )
    cleanup.set_defaults(action="neutron-cleanup")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 if it was done, 1 with one line on standard error if not."""
    conf = cfg.CONF
    conf.register_cli_opt(cfg.SubCommandOpt("command", title="commands", handler=_add_commands))
    database.register(conf)
    process.prepare(sys.argv[1:] if argv is None else argv, PROG, conf)
    # Standard output is for the version, which scripts read.
    logging.getLogger("alembic").setLevel(logging.DEBUG if conf.debug else logging.WARNING)
    try:
        held = database.Database(conf)
        try:
            _ACTIONS[conf.command.action](held)
        finally:
            held.close()
    except (*database.ERRORS, cleanup.NotNeutrons, OSError) as exc:
        print(f"{PROG}: {' '.join(str(exc).split())}", file=sys.stderr)
        return 1
    return 0
