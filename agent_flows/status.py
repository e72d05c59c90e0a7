"""agent-flows-status: whether a machine is ready to run this release; see oslo.upgradecheck."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from oslo_config import cfg, iniparser
from oslo_log import log
from oslo_upgradecheck import upgradecheck
from oslo_upgradecheck.upgradecheck import Code, Result
from sqlalchemy.engine import make_url

from agent_flows import conf as options
from agent_flows import process
from agent_flows.openflow import cookie
from agent_flows.openflow.ofctl import Ofctl, SwitchError, Timeout
from agent_flows.printable import printable
from agent_flows.reporting.outbox import reasons_unreadable
from agent_flows.server.core import database
from agent_flows.server.standalone import schema

PROG = "agent-flows-status"
OLDEST_SWITCH = (3, 1)
"""The oldest Open vSwitch, for ``ovs-ofctl ct-flush`` with a zone (Open vSwitch NEWS, 3.1)."""

_CANNOT_CHECK = 255
# No flow has it: OpenFlow 1.4, 7.3.4.2, reserves the cookie -1.
_NO_FLOW = f"delete {cookie.selector(2**64 - 1)}"


def failed(details: str) -> Result:
    return Result(Code.FAILURE, printable(details))


def warned(details: str) -> Result:
    return Result(Code.WARNING, printable(details))


def passed(details: str | None = None) -> Result:
    return Result(Code.SUCCESS, details and printable(details))


def is_neutrons(sections: options.Sections) -> bool:
    """Whether the files are those of Neutron's server or agent."""
    defaults = sections.get("DEFAULT", {})
    return "core_plugin" in defaults or any(name in sections for name in ("ml2", "ovs", "agent"))


def check_options(conf: cfg.ConfigOpts, sections: options.Sections) -> Result:
    """No option that this release does not have, and no invalid value."""
    try:
        options.read_every(conf)
    except (cfg.Error, ValueError) as exc:
        return failed(str(exc))
    if gone := options.unknown(sections):
        return warned(f"This release does not have {', '.join(gone)}: remove them.")
    return passed()


def check_schema(conf: cfg.ConfigOpts, sections: options.Sections) -> Result:
    """The server's tables are those of this release."""
    if is_neutrons(sections):
        return passed("The tables in Neutron's database: neutron-status upgrade check")
    url = make_url(conf.database.connection)
    in_file = url.get_backend_name() == "sqlite"
    if in_file and not Path(str(url.database)).exists():
        return passed("No database here: no server has run on this machine.")
    conf.set_override("max_retries", 0, "database")
    try:
        held = database.Database(conf, conf[options.SERVER].database_timeout)
        try:
            found = schema.current(held)
        finally:
            held.close()
    except (*database.ERRORS, OSError) as exc:
        return failed(f"The database cannot be read: {exc}")
    if found == schema.head():
        return passed()
    return failed(
        f"The schema is at version {found or 'none'}, this release has {schema.head()}: "
        "run agent-flows-manage db upgrade."
    )


def check_outbox(path: Path) -> Result:
    """Every report that the agent of this host stored can be sent."""
    if not path.exists():
        return passed(f"No outbox {path}: no agent has run on this host.")
    try:
        reasons = reasons_unreadable(path)
    except sqlite3.Error as exc:
        return failed(f"The outbox {path} cannot be read: {exc}")
    if reasons:
        return warned(
            f"{path} has {len(reasons)} reports that the server could not read, the last because: "
            f"{reasons[-1]}"
        )
    return passed()


def check_switch(conf: cfg.ConfigOpts, bridge: str) -> Result:
    """Open vSwitch is new enough, and takes bundles of OpenFlow 1.4 on ``bridge``."""
    if shutil.which("ovs-vsctl") is None:
        return passed("No Open vSwitch: no ports are wired on this machine.")
    try:
        return _check_switch(conf, bridge)
    except (OSError, subprocess.SubprocessError) as exc:
        address = conf[options.AGENT].ovsdb_connection
        return warned(f"Open vSwitch does not answer at {address}: {exc}")


def _check_switch(conf: cfg.ConfigOpts, bridge: str) -> Result:
    ours = conf[options.AGENT]
    tools = _run(["ovs-ofctl", "--version"], ours.openflow_timeout).split("\n", 1)[0].split()[-1]
    running = _vsctl(conf, "get", "Open_vSwitch", ".", "ovs_version").strip('"')
    # Only Open vSwitch's own start script enters it there.
    version = tools if running == "[]" else running
    for found in (tools, version):
        if not _is_new_enough(found):
            wanted = ".".join(map(str, OLDEST_SWITCH))
            return failed(f"Open vSwitch is {found}; install {wanted} or newer.")
    if bridge not in _vsctl(conf, "list-br").splitlines():
        return passed(f"Open vSwitch {version}; there is no bridge {bridge} yet.")
    protocols = _vsctl(conf, "get", "Bridge", bridge, "protocols")
    if protocols != "[]" and "OpenFlow14" not in protocols:
        return warned(f"Bridge {bridge} has only {protocols}; the agent adds OpenFlow14.")
    try:
        Ofctl(ours.ovs_run_dir, bridge, ours.openflow_timeout).bundle([_NO_FLOW])
    except (SwitchError, Timeout) as exc:
        return failed(f"Bridge {bridge} takes no bundle of OpenFlow 1.4: {exc}")
    return passed(f"Open vSwitch {version}")


def _vsctl(conf: cfg.ConfigOpts, *words: str) -> str:
    ours = conf[options.AGENT]
    limit = ours.ovsdb_timeout
    argv = ["ovs-vsctl", f"--db={ours.ovsdb_connection}", f"--timeout={limit}"]
    if tls := options.ovsdb_tls(ours):
        key, certificate, ca = tls
        argv += [f"--private-key={key}", f"--certificate={certificate}", f"--ca-cert={ca}"]
    return _run([*argv, *words], limit)


def _run(argv: Sequence[str], limit: float) -> str:
    """What the command prints. Raises OSError or :class:`subprocess.SubprocessError`."""
    # If it has a limit of its own, that ends it with an error that names what it waited for.
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=limit + 1)
    if ran.returncode != 0:
        raise OSError(" ".join(ran.stderr.split()) or f"{argv[0]} ended with {ran.returncode}")
    return ran.stdout.strip()


def _is_new_enough(version: str) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return numbers >= OLDEST_SWITCH


def check_extension(sections: options.Sections) -> Result:
    """Neutron's agent on this host loads our extension."""
    if "ovs" not in sections and "agent" not in sections:
        return passed("Not the configuration of Neutron's agent.")
    extensions = _words(sections, "agent", "extensions")
    driver = _words(sections, "securitygroup", "firewall_driver")
    if "agent_flows" in extensions:
        return passed()
    if "agent_flows" in driver:
        return failed(
            "[securitygroup] firewall_driver is agent_flows, [agent] extensions lacks agent_flows: "
            "nothing would be reported."
        )
    return warned("[agent] extensions lacks agent_flows: this host does not report.")


def _words(sections: options.Sections, section: str, name: str) -> list[str]:
    """The words of a list; the last value counts."""
    values = sections.get(section, {}).get(name, [""])
    return [word.strip() for word in values[-1].split(",")]


class Checks(upgradecheck.UpgradeCommands):
    """Reads, and changes nothing."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__()
        self._conf = conf

    def check(self) -> Code:
        sections = options.in_files(self._conf)
        conf, neutrons = self._conf, is_neutrons(sections)
        ours = conf[options.AGENT]
        state_dir, bridge = Path(ours.state_dir), ours.integration_bridge
        if neutrons:
            state = sections.get("DEFAULT", {}).get("state_path", ["/var/lib/neutron"])[-1]
            if "state_dir" not in sections.get(options.AGENT, {}):
                state_dir = Path(state) / "agent-flows"
            bridge = sections.get("ovs", {}).get("integration_bridge", ["br-int"])[-1]
        outbox = (state_dir / "outbox.sqlite").absolute()
        self._upgrade_checks = (
            ("Options", lambda _: check_options(conf, sections)),
            ("Schema of the server's database", lambda _: check_schema(conf, sections)),
            (
                "Outbox of the agent",
                lambda _: check_outbox(outbox),
            ),
            ("Open vSwitch", lambda _: check_switch(conf, bridge)),
            ("Extension of Neutron's agent", lambda _: check_extension(sections)),
        )
        return Code(super().check())


def main(argv: Sequence[str] | None = None) -> int:
    """0 if every check passed, 1 after a warning, 2 after a failure, 255 if nothing was checked."""
    conf = cfg.CONF
    options.register(conf)
    database.register(conf)
    log.register_options(conf)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return int(upgradecheck.main(conf, process.PROJECT, Checks(conf), arguments))
    except (cfg.Error, iniparser.ParseError, OSError, ValueError) as exc:
        print(f"{PROG}: {' '.join(str(exc).split())}", file=sys.stderr)
        return _CANNOT_CHECK
