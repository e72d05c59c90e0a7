"""A compute host of Neutron: its switch, the Open vSwitch agent, and the machines plugged in."""

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lab.lifetime import Lifetime
from lab.neutron import configuration
from lab.neutron.configuration import AGENT_FILE, AgentOptions, Paths
from lab.neutron.controller import PROGRAMS
from lab.neutron.plugging import BRIDGE, Vif, plug_all
from lab.neutron.underlay import Underlay
from lab.process import Daemon, run, wait_until
from lab.rest import Body
from lab.switch import Switch
from lab.vm import Plugged, Vm, plug

_READY_SECONDS = 180
_QUIT_SECONDS = 30
_STARTED = "Agent initialized successfully"
_ITERATION = "completed. Processed ports statistics"
_QUIT = "Agent caught SIGTERM, quitting daemon loop"


class Host(Lifetime):
    """A switch of its own and the agent beside it; ``bus`` is the message bus' URL."""

    def __init__(
        self, name: str, options: AgentOptions, place: Path, underlay: Underlay, bus: str
    ) -> None:
        self.name = name
        self.options = options
        self.place = place / name
        self.config_file = self.place / AGENT_FILE
        self.switch = Switch(name)
        self.vms: dict[str, Vm] = {}
        self._vifs: dict[str, Vif] = {}
        self._underlay = underlay
        self.bus = bus
        self._address = ""
        self._log_begin = 0
        super().__init__()

    def _start(self) -> None:
        self._stack.enter_context(self.switch)
        self._address = self._underlay.connect(self.switch)
        self._stack.callback(self._delete_vms)
        self.place.mkdir(mode=0o711)
        program = [*self.options.launcher, str(PROGRAMS / "neutron-openvswitch-agent")]
        # Tools it runs find the switch by its run directory; its own leftovers stay here.
        env = {"OVS_RUNDIR": str(self.switch.run_dir), "TMPDIR": str(self.place)}
        argv = self.switch.namespace.argv([*program, "--config-file", str(self.config_file)])
        self.agent = Daemon(f"agent of {self.name}", argv, self.place / "agent.log", env)
        self._stack.callback(self.agent.kill)
        self.launch_agent()

    # The agent.

    def start_agent(self) -> None:
        """Start it and wait until it watches the switch."""
        self.launch_agent()
        self.await_agent()

    def launch_agent(self) -> None:
        """Start it, and leave it to :meth:`await_agent` to wait."""
        paths = Paths(self.place, PROGRAMS, self.bus)
        self.config_file.write_text(
            configuration.agent_file(
                self.options,
                paths,
                self.name,
                ovs_run_dir=self.switch.run_dir,
                local_ip=self._address,
            )
        )
        self._log_begin = len(self.agent_log)
        self.agent.start()

    def await_agent(self) -> None:
        """Raises :class:`lab.process.Ended` with the end of its log, or TimeoutError."""
        self.agent.ready(lambda: _STARTED in self._new_log(), _READY_SECONDS)

    def await_iterations(self, number: int) -> None:
        """Until the agent's loop has run ``number`` times from now on."""
        enough = self.agent_log.count(_ITERATION) + number
        wait_until(lambda: self.agent_log.count(_ITERATION) >= enough, _READY_SECONDS, "its loop")

    def stop_agent(self) -> None:
        """SIGTERM, and SIGKILL once its loop has ended.

        Neutron 29's agent never ends by itself then: it waits for os-ken's threads
        (os_ken/base/app_manager.py, run_apps), which nothing stops.
        """
        os.kill(self.agent.pid, signal.SIGTERM)
        self.agent.ready(lambda: _QUIT in self._new_log(), _QUIT_SECONDS)
        self.agent.kill()

    def restart_agent(self, options: AgentOptions | None = None) -> None:
        """Stop and start it; with other ``options`` if some are given."""
        self.stop_agent()
        self.options = options or self.options
        self.start_agent()

    def _new_log(self) -> str:
        """What it has logged since it was last started."""
        return self.agent_log[self._log_begin :]

    def kill_agent(self) -> None:
        """``kill -9``, it and its helpers."""
        self.agent.kill()

    @property
    def agent_log(self) -> str:
        log = self.agent.log
        return log.read_text(errors="replace") if log.exists() else ""

    def run(self, program: str) -> str:
        """What ``program`` prints that reads the agent's configuration."""
        return run([str(PROGRAMS / program), "--config-file", str(self.config_file)])

    def reports_waiting(self) -> int:
        """How many reports of our extension the server has not acknowledged."""
        outbox = self.place / "agent-flows" / "outbox.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as there:
            [number] = there.execute("SELECT COUNT(*) FROM unsent").fetchone()
        return int(number)

    # The switch.

    def flows(self, table: int | None = None, match: str = "") -> list[str]:
        """The integration bridge's flows, without counters."""
        words = [f"table={table}"] if table is not None else []
        return self.switch.flows(BRIDGE, ",".join([*words, *([match] if match else [])]))

    @contextlib.contextmanager
    def switch_gone(self) -> Iterator[None]:
        """Open vSwitch's daemon was killed, and starts again afterwards: its flows are gone."""
        self.switch.kill_vswitchd()
        try:
            yield
        finally:
            self.switch.start_vswitchd()
            self._underlay.address_tunnels(self.switch, self._address)

    # Machines.

    def boot(self, ports: Sequence[Body], prefixes: Mapping[str, int], mtu: int) -> list[Vm]:
        """A machine for each port, all plugged in one transaction, links up: Nova's part.

        ``prefixes`` are the lengths of the subnets' prefixes.
        """
        machines = []
        for port in ports:
            addresses = [
                f"{fixed['ip_address']}/{prefixes[fixed['subnet_id']]}"
                for fixed in port["fixed_ips"]
            ]
            label = f"vm{port['id'][:4]}"
            vm = Vm(self.switch, label, port["mac_address"], addresses, port_id=port["id"], mtu=mtu)
            self.vms[vm.port_id] = vm
            self._vifs[vm.port_id] = Vif.of(vm, port)
            vm.create()
            vm.raise_link()
            machines.append(vm)
        plug_all(self.switch, [self._vifs[vm.port_id] for vm in machines])
        return machines

    def plug(self, *machines: Plugged) -> None:
        plug(self.switch, machines, BRIDGE)

    def shut_down(self, *vms: Vm) -> None:
        """Unplug and forget."""
        for vm in vms:
            self._vifs.pop(vm.port_id).remove(self.switch)
            vm.delete()
            del self.vms[vm.port_id]

    def _delete_vms(self) -> None:
        for vm in self.vms.values():
            vm.delete()
        self.vms.clear()
        self._vifs.clear()
