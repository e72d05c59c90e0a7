"""A Neutron with two compute hosts: one with our firewall driver, where everything is broken, and
one with Neutron's, to which machines move."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.model import ingress
from lab.namespace import mark
from lab.neutron.configuration import AgentOptions, Options
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant
from lab.process import Daemon
from lab.rest import Body
from lab.vm import Plugged, Vm
from tests.faults.any_stage import BRIDGE, SECONDS, WEB, AnyStage, Place, small_disk
from tests.faults.records import Records

OURS, WATCHED = "ours", "watched"
_DISK_MIB = 16
_LINES, _WATCHED = 5, 2
_FIREWALLS = {OURS: "agent_flows", WATCHED: "openvswitch"}

# All processes should notice soon that an outage is over.
_MESSAGES = {
    "DEFAULT": {"rpc_response_timeout": 10},
    "oslo_messaging_rabbit": {"rabbit_interval_max": 5},
}
_SERVER = {
    "DEFAULT": {**_MESSAGES["DEFAULT"], "agent_down_time": 8},
    "oslo_messaging_rabbit": _MESSAGES["oslo_messaging_rabbit"],
    "agent_flows_server": {
        "report_timeout": 10,
        "sweep_interval": 1,
        # None of the attempts may be forgotten.
        "history_attempts": 1_000_000,
        "history_failures": 1_000_000,
    },
}
_AGENT = {
    "retry_initial": 0.3,
    "retry_max": 1,
    "verify_timeout": 5,
    "rpc_timeout": 5,
    "heartbeat_interval": 1,
    "openflow_timeout": 5,
    "ovsdb_timeout": 5,
}


class NeutronStage(AnyStage):
    """The state of our extension on the first host is on a disk of its own."""

    def _start(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix=f"{mark()}states-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self.state_dir = directory / OURS
        for host in _FIREWALLS:
            (directory / host).mkdir()
        self._stack.enter_context(small_disk(self.state_dir, _DISK_MIB))
        options = Options(
            hosts={
                host: AgentOptions(
                    firewall,
                    ("agent_flows",),
                    {
                        **_MESSAGES,
                        "agent": {"report_interval": 2},
                        # A request that meets a closing connection may never be answered.
                        "ovs": {"of_request_timeout": 5},
                        "agent_flows": {**_AGENT, "state_dir": directory / host},
                    },
                )
                for host, firewall in _FIREWALLS.items()
            },
            mechanism_drivers=("openvswitch", "agent_flows"),
            service_plugins=("agent_flows",),
            extra=_SERVER,
        )
        self.neutron = self._stack.enter_context(Neutron(options))
        self.controller = self.neutron.controller
        self.host = self.neutron.hosts[OURS]
        self.switch = self.host.switch
        outboxes = {host: directory / host / "outbox.sqlite" for host in _FIREWALLS}
        self.records = Records(outboxes, self.controller.database_url)
        self.records.watch()
        self._populate()
        self.wait_converged()
        self.learn()

    def _populate(self) -> None:
        self.tenant = Tenant(self.neutron, "10.20.0.0/16")
        api = self.neutron.api
        self.web = api.group("web", WEB[:2])
        self.db = api.group("db", [ingress(protocol="tcp", port=5432, remote_group_id=self.web)])
        web = self.boot(3 + _LINES, self.web)
        self.client, self.server_vm, self.attacker, *self.lines = web
        self.victim, self.other = self.boot(2, self.db)
        self.boot(_WATCHED, self.web, WATCHED)

    def boot(self, count: int, group: str, host: str = OURS) -> list[Vm]:
        """Machines that listen on the ports that a group may open, all plugged at once."""
        vms = self.tenant.boot(count, [group], host)
        for vm in vms:
            vm.listen(5432)
            self._roles[vm.port_id] = group
        self.plugged |= {vm.port_id for vm in vms}
        return vms

    def migrate(self, vm: Vm, host: str, before_it_moves: Callable[[], object]) -> Vm:
        """Live (:meth:`lab.neutron.tenant.Tenant.migrate`)."""
        moved = self.tenant.migrate(vm, host, before_it_moves)
        moved.listen(5432)
        self.lines[self.lines.index(vm)] = moved
        return moved

    def lose(self, vm: Vm) -> None:
        """Its port is deleted in the API; then it is shut down."""
        self.plugged.remove(vm.port_id)
        self.neutron.api.delete("ports", vm.port_id)
        self.tenant.stop(vm)

    # Neutron's API.

    def places(self) -> Sequence[Place]:
        return [
            Place(name, host.switch, BRIDGE, host.vms, _FIREWALLS[name])
            for name, host in self.neutron.hosts.items()
        ]

    def find(self, kind: str, **filters: object) -> list[Body]:
        return self.neutron.api.find(kind, **filters)

    def agents(self) -> list[Body]:
        found = self.find("agent_flows_agents")
        return sorted(found, key=lambda agent: list(_FIREWALLS).index(agent["host"]))

    def shown(self) -> list[Body]:
        fields = ["id", "status", "sync_state", "binding:host_id"]
        return self.find("ports", fields=fields)

    def hang_up(self) -> None:
        self.neutron.api.close()

    def daemons(self) -> Sequence[Daemon]:
        agents = [host.agent for host in self.neutron.hosts.values()]
        return [*agents, self.controller.rpc_server, self.controller.api]

    # Its processes.

    def begin_agent(self) -> None:
        """Start it, and wait until the extension has opened its outbox: the wiring is to come."""
        before = self.records.starts()
        self.host.launch_agent()
        self.host.agent.ready(lambda: self.records.starts() > before, SECONDS)

    def wait_port(self, port: Plugged, **expected: object) -> None:
        self.neutron.api.wait_port(port.port_id, SECONDS, **expected)
