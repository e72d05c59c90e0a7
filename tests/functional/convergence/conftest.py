"""A server and an agent in this process, on a real switch, and a bus between them that loses."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.agent.service import AgentService
from agent_flows.rpc import transport
from agent_flows.server.service import ServerService
from lab.cloud import Cloud
from lab.model import HOST, egress_to_anywhere, ingress, random_mac
from lab.process import wait_until
from lab.rest import Api
from lab.server_parts import configuration
from lab.switch import Switch
from lab.vm import Vm
from tests.functional.convergence.lossy import LossyBus

_AGENT = {"host": HOST, "datapath_type": "netdev", "retry_initial": 0.2, "retry_max": 0.5}
_SERVER = {"agent_down_time": 5.0, "report_timeout": 10.0, "sweep_interval": 0.2}


class World:
    """Group ``db`` serves tcp 5432 to members of ``web`` only."""

    def __init__(self, switch: Switch, bus: LossyBus, api: Api, conf: cfg.ConfigOpts) -> None:
        self.switch, self.bus, self.api = switch, bus, api
        self._conf = conf
        self._agent: AgentService | None = None
        self.start_agent()
        self.cloud = Cloud(api, HOST)
        self.network = self.cloud.network()
        self.web = self.cloud.group("web", egress_to_anywhere())
        from_web = ingress(protocol="tcp", port=5432, remote_group_id=self.web)
        self.db = self.cloud.group("db", [from_web, *egress_to_anywhere()])
        self.vms: list[Vm] = []

    def start_agent(self) -> None:
        self._agent = AgentService(self._conf, self.bus)
        self._agent.start()

    def stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.stop()
            self._agent.wait()
            self._agent = None

    def boot(self, name: str, *groups: str) -> Vm:
        """A VM that serves tcp 5432, with a port in these groups; not plugged."""
        vm = Vm(self.switch, name, random_mac(), [f"10.20.0.{11 + len(self.vms)}/24"])
        self.vms.append(vm)
        vm.create()
        vm.listen(5432)
        self.declare(vm, *groups)
        return vm

    def declare(self, vm: Vm, *groups: str, **fields: object) -> None:
        """The VM's port in these groups; again, if it is there."""
        self.cloud.port(vm, self.network, groups, **fields)

    def in_sync(self, *vms: Vm, seconds: float = 30) -> None:
        """Until all of these are wired as the server desires now."""
        for vm in vms:
            shown = self.api.wait_port(vm.port_id, seconds, status="ACTIVE", sync_state="IN_SYNC")
            revisions = [
                task["revision"]
                for task in self.api.tasks(vm.port_id)
                if task["task_state"] == "SUCCEEDED" and task["resource_type"] == "port"
            ]
            assert max(revisions) == shown["revision_number"]

    def idle(self) -> None:
        """Until the agent has nothing to do and all that the server desires, at two heartbeats."""
        seen = set[str]()

        def twice() -> bool:
            (agent,) = self.api.find("agents", host=HOST)
            state, desired = agent["state"], agent["desired"]
            busy = state["waiting"] or state["unreported"] or state["trouble"]
            if busy or not desired or not desired["in_step"]:
                seen.clear()
            else:
                seen.add(agent["heartbeat_at"])
            return len(seen) > 1

        wait_until(twice, 20, "the agent has nothing to do")

    def attempts(self, resource_id: str, flow: str | None = None) -> set[str]:
        """The ids of the reports of a port or a security group in the history; without those that
        the server adds, and those of a port's groups."""
        return {
            task["flow_id"]
            for task in self.api.tasks(resource_id)
            if task["resource_id"] == resource_id
            and flow in (None, task["flow"])
            and task["name"] != "await-report"
        }


@pytest.fixture
def world(switch: Switch, tmp_path: Path) -> Iterator[World]:
    # oslo.messaging reads some of its options from the global object only.
    conf = options.register(cfg.CONF)
    conf([], default_config_files=[])
    of_server = configuration(f"sqlite:///{tmp_path}/server.sqlite")
    of_server.set_override("bind_port", 0, options.API)
    for name, value in _SERVER.items():
        of_server.set_override(name, value, options.SERVER)
    for name, value in {
        **_AGENT,
        "ovsdb_connection": switch.database,
        "ovs_run_dir": str(switch.run_dir),
        "state_dir": str(tmp_path / "state"),
        "heartbeat_interval": 0.4,
    }.items():
        conf.set_override(name, value, options.AGENT)
    with ExitStack() as undo:
        undo.callback(conf.clear)
        inner = transport.get_transport(conf, transport.EMBEDDED_URL)
        undo.callback(inner.cleanup)
        bus = LossyBus(inner)
        # Threads are born into the namespace of who starts them.
        undo.enter_context(switch.namespace.entered())
        server = ServerService(of_server, bus)
        undo.callback(server.stop)
        server.start()
        api = Api(switch.namespace, server.api_port)
        undo.callback(api.close)
        made = World(switch, bus, api, conf)
        undo.callback(made.stop_agent)
        yield made
        for vm in made.vms:
            vm.delete()
