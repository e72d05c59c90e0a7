"""A machine with Neutron as a distribution's packages leave it: controller and compute host in one.

Its files are below ``/etc/neutron``, its programs run as the user ``neutron``, and sudo makes that
user root for privsep's helper alone. The machine that runs the tests stays as it is: the packaged
one has ``/etc``, ``/run`` and ``/var/lib`` of its own, in a mount namespace.
"""

import configparser
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.databases import MariaDB
from lab.lifetime import Lifetime
from lab.namespace import mark
from lab.neutron.client import Client
from lab.neutron.configuration import API_PORT
from lab.neutron.controller import PROGRAMS
from lab.process import Daemon, run
from lab.rabbit import Rabbit
from lab.rest import Body
from lab.switch import Switch
from lab.unprivileged import reachable
from lab.vm import Vm, plug

USER = "neutron"
STATE = Path("/var/lib/neutron")
CONFIGURATION = Path("/etc/neutron")
SERVER = ("neutron.conf", "plugins/ml2/ml2_conf.ini")
AGENT = ("neutron.conf", "plugins/ml2/openvswitch_agent.ini")
AGENT_PROGRAM = "neutron-openvswitch-agent"
_ID = 64061  # free on Debian: of its own packages' range
_CHECKOUT = Path(__file__).parents[2]
_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READY_SECONDS = 90
_PROGRAM_SECONDS = 120
_STARTED = "Agent initialized successfully"
_QUIT = "Agent caught SIGTERM, quitting daemon loop"

Sections = Mapping[str, Mapping[str, object]]


class Machine(Lifetime):
    """Neutron is installed and configured on it, with Open vSwitch's agent; nothing runs yet."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = Switch("packaged")
        self.client = Client(self.switch.namespace)

    def _start(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix=f"{mark()}packaged-"))
        self._stack.callback(shutil.rmtree, self.place, ignore_errors=True)
        self.place.chmod(0o711)
        self._stack.enter_context(self.switch)
        # Both as Debian's scripts start Open vSwitch.
        self.switch.run_dir.chmod(0o755)
        self.switch.appctl(
            "ovsdb-server/add-remote",
            "db:Open_vSwitch,Open_vSwitch,manager_options",
            daemon="ovsdb-server",
        )
        database = self._stack.enter_context(MariaDB())
        for directory in (database.directory, database.directory / "run"):
            directory.chmod(0o711)
        bus = self._stack.enter_context(Rabbit(self.switch.namespace))
        self._mount()
        self._install(f"{database.new_url()}&charset=utf8", bus.url)
        self._daemons()

    def _mount(self) -> None:
        """Make the machine's own directories; they last as long as one process in them."""
        run(["cp", "-a", "/etc", str(self.place / "etc")])
        (self.place / "tmp").mkdir(mode=0o777)
        (self.place / "tmp").chmod(0o1777)
        accounts = {
            "passwd": f"{USER}:*:{_ID}:{_ID}::{STATE}:/bin/false",
            "group": f"{USER}:*:{_ID}:",
        }
        for name, line in accounts.items():
            file = self.place / "etc" / name
            file.write_text(f"{file.read_text()}{line}\n")
        sudoers = self.place / "etc/sudoers.d/neutron"
        sudoers.write_text(
            f'Defaults:{USER} secure_path="{PROGRAMS}:{_SYSTEM}"\n'
            f"{USER} ALL=(root) NOPASSWD: {PROGRAMS}/privsep-helper\n"
        )
        sudoers.chmod(0o440)
        mounts = [
            f"mount --bind {self.place}/etc /etc",
            *reachable(self.place / "kept"),
            "mount -t tmpfs -o mode=755 tmpfs /var/lib",
            f"install -d -o {USER} -g {USER} -m 750 {STATE}",
            "mount -t tmpfs -o mode=755 tmpfs /run",
            f"mkdir /run/openvswitch && mount --bind {self.switch.run_dir} /run/openvswitch",
            f"touch {self.place}/mounted",
            "exec sleep infinity",
        ]
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(mounts)]
        holder = Daemon("mounts", self.switch.namespace.argv(argv), self.place / "mounts.log")
        self._stack.callback(holder.kill)
        holder.start()
        holder.ready((self.place / "mounted").exists, _READY_SECONDS)
        self._holder = holder

    def _install(self, database: str, bus: str) -> None:
        """What packages and Neutron's installation guide put below /etc/neutron."""
        there = self.place / "etc/neutron"
        shutil.copytree(PROGRAMS.parent / "etc/neutron", there, dirs_exist_ok=True)
        (there / "plugins/ml2").mkdir(parents=True)
        self.configure(
            "neutron.conf",
            {
                "DEFAULT": {
                    "core_plugin": "ml2",
                    "service_plugins": "router",
                    "auth_strategy": "noauth",
                    "transport_url": bus,
                    "state_path": STATE,
                    "notify_nova_on_port_status_changes": False,
                    "notify_nova_on_port_data_changes": False,
                    "dhcp_agent_notification": False,
                    "rpc_workers": 1,
                    "rpc_state_report_workers": 1,
                },
                "database": {"connection": database},
                "oslo_concurrency": {"lock_path": "$state_path/lock"},
            },
        )
        self.configure(
            "plugins/ml2/ml2_conf.ini",
            {
                "ml2": {
                    "mechanism_drivers": "openvswitch",
                    "type_drivers": "vxlan",
                    "tenant_network_types": "vxlan",
                    "extension_drivers": "port_security",
                },
                "ml2_type_vxlan": {"vni_ranges": "1000:9999"},
            },
        )
        self.configure(
            "plugins/ml2/openvswitch_agent.ini",
            {
                "ovs": {"datapath_type": "netdev", "local_ip": "127.0.0.1"},
                "agent": {"tunnel_types": "vxlan"},
                "securitygroup": {"firewall_driver": "openvswitch"},
            },
        )

    def configure(self, file: str, sections: Sections | str) -> None:
        """Set these options in a file of /etc/neutron; as text, they are in the file's own form."""
        parser = configparser.ConfigParser(interpolation=None)
        path = self.place / "etc/neutron" / file
        parser.read(path)
        if isinstance(sections, str):
            parser.read_string(sections)
        else:
            parser.read_dict(sections)
        with path.open("w") as out:
            parser.write(out)

    def _daemons(self) -> None:
        files = {
            "OS_NEUTRON_CONFIG_DIR": str(CONFIGURATION),
            "OS_NEUTRON_CONFIG_FILES": ";".join(SERVER),
            "PYTHONPATH": str(_CHECKOUT),
        }
        wsgi = [sys.executable, "-m", "lab.neutron.wsgi", str(API_PORT)]
        self.api = self._daemon("neutron-api", wsgi, files)
        self.rpc_server = self._daemon(
            "neutron-rpc-server", ["neutron-rpc-server", *_files(SERVER)]
        )
        program = "neutron-openvswitch-agent"
        self.agent = self._daemon(program, [program, *_files(AGENT)])

    def _daemon(
        self, name: str, argv: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> Daemon:
        daemon = Daemon(name, self.argv(argv, USER, variables), self.place / f"{name}.log")
        self._stack.callback(daemon.kill)
        return daemon

    def argv(
        self,
        argv: Sequence[str],
        user: str = "root",
        variables: Mapping[str, str] | None = None,
    ) -> list[str]:
        """``argv`` such that it runs on the machine, with a new environment."""
        there = f"/proc/{self._holder.pid}/ns"
        inherited = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        environment = {
            "PATH": f"{PROGRAMS}:{_SYSTEM}",
            "TMPDIR": str(self.place / "tmp"),
            **inherited,
            **(variables or {}),
        }
        return [
            *("nsenter", f"--mount={there}/mnt", f"--net={there}/net"),
            # Changing the user clears the wish to end with one's parent.
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"),
            *("--pdeathsig", "TERM", "env", "-i"),
            *(f"{name}={value}" for name, value in environment.items()),
            *argv,
        ]

    def run(
        self, command: str, user: str = "root", variables: Mapping[str, str] | None = None
    ) -> str:
        """What a command of the shell prints; raises :class:`lab.process.CommandFailed`."""
        argv = self.argv(["sh", "-ec", command], user, variables)
        return run(argv, timeout=_PROGRAM_SECONDS)

    def start_server(self) -> None:
        """API and RPC server, until the API answers."""
        self.rpc_server.start()
        self.api.start()
        self.api.ready(self.client.answers, _READY_SECONDS)

    def restart_server(self) -> None:
        self.client.close()
        for daemon in (self.api, self.rpc_server):
            daemon.kill()
        self.start_server()

    def start_agent(self) -> None:
        """Until it watches the switch."""
        begin = len(self._agent_log())
        self.agent.start()
        self.agent.ready(lambda: _STARTED in self._agent_log()[begin:], _READY_SECONDS)

    def restart_agent(self) -> None:
        begin = len(self._agent_log())
        os.kill(self.agent.pid, signal.SIGTERM)
        self.agent.ready(lambda: _QUIT in self._agent_log()[begin:], _READY_SECONDS)
        self.agent.kill()
        self.start_agent()

    def _agent_log(self) -> str:
        log = self.agent.log
        return log.read_text(errors="replace") if log.exists() else ""

    def boot(self, port: Body, prefix: int, mtu: int) -> Vm:
        """A machine in the port, plugged in as Nova does it."""
        addresses = [f"{fixed['ip_address']}/{prefix}" for fixed in port["fixed_ips"]]
        label = f"vm{port['id'][:4]}"
        vm = Vm(self.switch, label, port["mac_address"], addresses, port_id=port["id"], mtu=mtu)
        self._stack.callback(vm.delete)
        vm.create()
        vm.raise_link()
        plug(self.switch, [vm])
        return vm


def _files(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("--config-file", str(CONFIGURATION / name))]
