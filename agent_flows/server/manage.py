"""agent-flows-manage: what an administrator does to the database."""

import argparse
import datetime
import getpass
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from agent_flows import process
from agent_flows.neutron.server import cleanup
from agent_flows.printable import printable
from agent_flows.server.core import agents, clock, database, gating
from agent_flows.server.core.errors import NotFound
from agent_flows.server.standalone import schema

PROG = "agent-flows-manage"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MOST_SHOWN = 100


class NoTables(Exception):
    """The database has no tables of this release."""


def _upgrade(held: database.Database, _: Any) -> None:
    schema.upgrade(held)
    print(schema.current(held))


def _current(held: database.Database, _: Any) -> None:
    found = schema.current(held)
    behind = "" if found == schema.head() else f" (newest: {schema.head()})"
    print(f"{found or 'none'}{behind}")


def _clean_neutron(held: database.Database, _: Any) -> None:
    print(f"{cleanup.clean(held)} blocks lifted")


def _gating_off(held: database.Database, given: Any) -> None:
    _check_tables(held)
    with held.writer() as session:
        made = gating.turn_off(
            session, given.host, reason=given.reason, by=_who(), now=clock.now(), time=given.time
        )
    print(_line(made, made.since))


def _gating_on(held: database.Database, given: Any) -> None:
    _check_tables(held)
    with held.writer() as session:
        ended = gating.turn_on(session, given.host, _who(), clock.now())
    for each in ended:
        print(f"gating is on again for {_hosts(each)}")


def _gating_status(held: database.Database, given: Any) -> None:
    _check_tables(held)
    now = clock.now()
    with held.reader() as session:
        if given.all:
            found = gating.past(session, _MOST_SHOWN)
        else:
            found = gating.read(session, now).suspensions
    if not any(each.in_force(now) for each in found):
        print("gating is on for all hosts")
    for each in found:
        print(_line(each, now))


def _list_keys(held: database.Database, _: Any) -> None:
    _check_tables(held)
    with held.reader() as session:
        found = agents.keys(session)
    if not found:
        print("no host has a key: no agent that signs its calls was seen")
    for host, key, stranger in found:
        print(printable(f"{host} {key}" + (f", but {stranger} reports for it" if stranger else "")))


def _forget_key(held: database.Database, given: Any) -> None:
    _check_tables(held)
    with held.writer() as session:
        key = agents.forget_key(session, given.host)
    print(printable(f"forgot {key}: the next key that signs a call for {given.host} is the host's"))


def _line(suspension: gating.Suspension, now: datetime.datetime) -> str:
    """One line for a person, and for a script that greps it."""
    off = "is" if suspension.in_force(now) else "was"
    until = min(suspension.ended_at or suspension.until, suspension.until)
    by = f"by {suspension.by}"
    if suspension.ended_by:
        by += f", turned on by {suspension.ended_by}"
    times = f"from {_shown(suspension.since)} until {_shown(until)}"
    return printable(
        f"gating {off} off for {_hosts(suspension)} {times}, {by}: {suspension.reason}"
    )


def _hosts(suspension: gating.Suspension) -> str:
    return f"host {suspension.host}" if suspension.host else "all hosts"


def _shown(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _who() -> str:
    """The person at this machine, as far as it is known."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"[:255]


def _check_tables(held: database.Database) -> None:
    if not (gating.has_table(held.engine) and agents.has_keys(held.engine)):
        raise NoTables(
            f"the schema of {held.engine.url.database} is older than this program: run "
            "agent-flows-manage db upgrade, or in Neutron neutron-db-manage upgrade heads"
        )


def _duration(text: str) -> datetime.timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 2h or 1d")
    return datetime.timedelta(**{_UNITS[found[2]]: int(found[1])})


_ACTIONS = {
    "upgrade": _upgrade,
    "current": _current,
    "neutron-cleanup": _clean_neutron,
    "off": _gating_off,
    "on": _gating_on,
    "status": _gating_status,
    "list": _list_keys,
    "forget": _forget_key,
}


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
    _add_gating(commands)
    _add_keys(commands)


def _add_keys(commands: Any) -> None:
    actions = commands.add_parser(
        "host-key",
        help="the keys by which agents sign what they report "
        "(in Neutron with --config-file /etc/neutron/neutron.conf)",
    ).add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="every host's key, and where an agent without it reports")
    forget = actions.add_parser("forget", help="after a host was installed again")
    forget.add_argument("host", help="the next key that signs a call for it is the host's")


def _add_gating(commands: Any) -> None:
    actions = commands.add_parser(
        "gating",
        help="let ports become ACTIVE without a proof for a time "
        "(in Neutron with --config-file /etc/neutron/neutron.conf)",
    ).add_subparsers(dest="action", required=True)
    off = actions.add_parser("off", help="ports become ACTIVE without a proof, for a time")
    off.add_argument("--reason", required=True, help="why; the status shows it")
    off.add_argument(
        "--for",
        dest="time",
        type=_duration,
        default=gating.DEFAULT_TIME,
        metavar="TIME",
        help="until gating is on again by itself: 90s, 30m, 2h (the default), 1d; at most 7d",
    )
    on = actions.add_parser("on", help="ports become ACTIVE only when proven, from now on")
    for action in (off, on):
        action.add_argument("--host", help="for this host only; the default is all hosts")
    status = actions.add_parser("status", help="where gating is off")
    status.add_argument(
        "--all", action="store_true", help=f"and the last {_MOST_SHOWN} times it was"
    )


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
            _ACTIONS[conf.command.action](held, conf.command)
        finally:
            held.close()
    except (
        *database.ERRORS,
        cleanup.NotNeutrons,
        gating.AlreadyOn,
        NoTables,
        NotFound,
        ValueError,
        OSError,
    ) as exc:
        print(f"{PROG}: {' '.join(str(exc).split())}", file=sys.stderr)
        return 1
    return 0
