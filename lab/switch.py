"""An Open vSwitch of our own: database, daemon and namespace, all private."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lab import json_rpc
from lab.certificates import Authority
from lab.lifetime import Lifetime
from lab.namespace import Namespace
from lab.process import CommandFailed, Daemon, free_port, held, run

RULES_INGRESS = 82
"""The table of the rules for what reaches a port."""

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_READY_SECONDS = 20


class Switch(Lifetime):
    """ovsdb-server and ovs-vswitchd in a namespace, with their own run directory.

    Bridges use the userspace datapath, so no kernel module is needed. With
    ``dummy`` every bridge and port is OVS's dummy kind: no packets but those
    injected, and ``ofproto/trace`` works for everything. With an ``authority``
    the database listens by TLS too (``tls_database``), to clients with a
    certificate. With a ``group`` the sockets are for that group, too, as with the drop-ins in
    etc/systemd; without one they are root's.
    """

    def __init__(
        self,
        label: str = "switch",
        *,
        dummy: bool = False,
        authority: Authority | None = None,
        group: int | None = None,
    ) -> None:
        super().__init__()
        self._authority = authority
        self._group = group
        self.tls_database = ""
        self.namespace = Namespace(label)
        self.dummy = dummy
        self.run_dir = Path()

    @property
    def database(self) -> str:
        """The OVSDB connection, as ``unix:<path>``."""
        return f"unix:{self.run_dir}/db.sock"

    @property
    def _env(self) -> Mapping[str, str]:
        directory = str(self.run_dir)
        return {"OVS_RUNDIR": directory, "OVS_LOGDIR": directory, "OVS_DBDIR": directory}

    def _start(self) -> None:
        self.run_dir = Path(tempfile.mkdtemp(prefix=f"{self.namespace.name}-"))
        self._stack.callback(shutil.rmtree, self.run_dir, ignore_errors=True)
        if self._group is not None:
            self.run_dir.chmod(0o755)
        self._stack.enter_context(self.namespace)
        with self.namespace.entered():
            # The host itself has nothing to send on a VM's cable (os-vif turns this off too).
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        run(["ovsdb-tool", "create", str(self.run_dir / "conf.db"), _SCHEMA])
        database = str(self.run_dir / "conf.db")
        remote = f"--remote=punix:{self.run_dir}/db.sock"
        self._ovsdb = self._daemon("ovsdb-server", database, remote, *self._by_tls())
        extra = ["--enable-dummy=override"] if self.dummy else []
        self._vswitchd = self._daemon("ovs-vswitchd", self.database, *extra)
        self.start_ovsdb()
        self.vsctl("--no-wait", "init")
        self.start_vswitchd()

    def _by_tls(self) -> list[str]:
        if self._authority is None:
            return []
        with self.namespace.entered():
            port = free_port()
        self.tls_database = f"ssl:127.0.0.1:{port}"
        key, certificate = self._authority.issue("ovsdb-server")
        return [
            f"--remote=pssl:{port}:127.0.0.1",
            *(f"--private-key={key}", f"--certificate={certificate}"),
            f"--ca-cert={self._authority.ca}",
        ]

    def _daemon(self, program: str, *args: str) -> Daemon:
        argv = [
            program,
            *args,
            f"--unixctl={self.run_dir}/{program}.ctl",
            f"--log-file={self.run_dir}/{program}.log",
            "-vconsole:off",
        ]
        if self._group is not None:
            in_group = ("setpriv", f"--regid={self._group}", "--keep-groups")
            argv = ["sh", "-c", 'umask 0007; exec "$@"', "sh", *in_group, *argv]
        log = self.run_dir / f"{program}.out"
        daemon = Daemon(program, self.namespace.argv(argv), log, self._env)
        self._stack.callback(daemon.stop)
        return daemon

    # The two daemons, one by one: tests restart and kill them.

    def start_ovsdb(self) -> None:
        self._ovsdb.start()
        self._ovsdb.ready(
            self._answers(lambda: self.appctl("version", daemon="ovsdb-server")), _READY_SECONDS
        )

    def stop_ovsdb(self) -> None:
        self._ovsdb.stop()

    def kill_ovsdb(self) -> None:
        """``kill -9``."""
        self._ovsdb.kill()

    def restart_ovsdb(self) -> None:
        """A new ovsdb-server on the same database."""
        self.stop_ovsdb()
        self.start_ovsdb()

    def start_vswitchd(self) -> None:
        self._vswitchd.start()
        self._vswitchd.ready(self._answers(lambda: self.appctl("version")), _READY_SECONDS)
        # A change is waited for: ovs-vsctl returns once the daemon has taken over the database.
        self.vsctl("--timeout=20", "set", "Open_vSwitch", ".", f"external_ids:lab={time.time_ns()}")

    def stop_vswitchd(self) -> None:
        """SIGTERM: it ends in order; its flows are gone with it."""
        self._vswitchd.stop()

    def kill_vswitchd(self) -> None:
        """``kill -9``."""
        self._vswitchd.kill()

    def stop(self) -> None:
        """Both daemons, in order."""
        self.stop_vswitchd()
        self.stop_ovsdb()

    def start(self) -> None:
        """Both daemons, on the database they had."""
        self.start_ovsdb()
        self.start_vswitchd()

    def held_vswitchd(self) -> contextlib.AbstractContextManager[None]:
        """It answers nothing (SIGSTOP), and goes on when the block is left."""
        return held(self._vswitchd.pid)

    def held_ovsdb(self) -> contextlib.AbstractContextManager[None]:
        """The same for ovsdb-server."""
        return held(self._ovsdb.pid)

    def restart_vswitchd(self) -> None:
        self.stop_vswitchd()
        self.start_vswitchd()

    @staticmethod
    def _answers(call: Callable[[], str]) -> Callable[[], bool]:
        def answers() -> bool:
            try:
                call()
            except CommandFailed:
                return False
            return True

        return answers

    # The switch's own tools.

    def vsctl(self, *args: str) -> str:
        return run(["ovs-vsctl", f"--db={self.database}", *args]).rstrip("\n")

    def ofctl(self, *args: str, stdin: str | None = None) -> str:
        """``ovs-ofctl -O OpenFlow14``; name bridges by :meth:`management`."""
        return run(["ovs-ofctl", "-O", "OpenFlow14", *args], stdin=stdin, env=self._env)

    def bundle(self, bridge: str, *changes: str) -> None:
        """Add flows, or make changes with a verb ("delete_strict ..."), all at once: no reader
        sees some of them without the others."""
        where = self.management(bridge)
        self.ofctl("--bundle", "add-flows", where, "-", stdin="\n".join(changes) + "\n")

    def appctl(self, *args: str, daemon: str = "ovs-vswitchd") -> str:
        """What ``ovs-appctl`` does, without a process of its own: a request takes well under a
        millisecond. Raises :class:`CommandFailed`."""
        path = self.run_dir / f"{daemon}.ctl"
        command, *words = args
        try:
            return str(json_rpc.call(path, command, words)).rstrip("\n")
        except (OSError, ValueError) as exc:
            raise CommandFailed(["ovs-appctl", *args], 1, f"{path}: {exc}") from exc
        except json_rpc.Failed as exc:
            raise CommandFailed(["ovs-appctl", *args], 2, str(exc)) from exc

    def management(self, bridge: str) -> str:
        """The bridge's OpenFlow socket as ovs-ofctl wants it."""
        return f"unix:{self.run_dir}/{bridge}.mgmt"

    def add_bridge(self, name: str, *, fail_mode: str = "secure") -> None:
        datapath = "dummy" if self.dummy else "netdev"
        self.vsctl(
            "add-br", name, "--", "set", "Bridge", name,
            f"datapath_type={datapath}", f"fail_mode={fail_mode}",
        )  # fmt: skip

    def flows(self, bridge: str, match: str = "") -> list[str]:
        """The bridge's flows without counters, as ovs-ofctl takes them again."""
        where = [self.management(bridge), match] if match else [self.management(bridge)]
        text = self.ofctl("--no-stats", "--no-names", "dump-flows", *where)
        return [line.strip() for line in text.splitlines() if "actions=" in line]

    def ofport(self, interface: str) -> int:
        return int(self.vsctl("get", "Interface", interface, "ofport"))

    def set_flow_limit(self, bridge: str, table: int, limit: int) -> None:
        """From now on the switch refuses a flow beyond ``limit`` in ``table``."""
        self.vsctl(
            "--", "--id=@ft", "create", "Flow_Table", f"flow_limit={limit}",
            "overflow_policy=refuse", "--", "set", "Bridge", bridge, f"flow_tables:{table}=@ft",
        )  # fmt: skip

    @contextlib.contextmanager
    def full_table(
        self, table: int = RULES_INGRESS, bridge: str = "br-int", *, spare: int = 0
    ) -> Iterator[None]:
        """While the block lasts the switch refuses all but ``spare`` more flows in ``table``."""
        present = len(self.flows(bridge, f"table={table}"))
        self.set_flow_limit(bridge, table, present + spare)
        try:
            yield
        finally:
            self.lift_flow_limit(bridge, table)

    def lift_flow_limit(self, bridge: str, table: int) -> None:
        self.vsctl("remove", "Bridge", bridge, "flow_tables", str(table))


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB, from /proc/<pid>/statm."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
