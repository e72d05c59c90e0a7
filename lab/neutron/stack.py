"""A Neutron that runs: one controller and its compute hosts."""

import contextlib
import ipaddress
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.lifetime import Lifetime
from lab.namespace import mark
from lab.neutron.client import PROJECT, Client
from lab.neutron.configuration import Options
from lab.neutron.controller import Controller
from lab.neutron.host import Host
from lab.neutron.nova import Nova
from lab.neutron.services import Kind, ServiceAgent
from lab.neutron.underlay import Underlay
from lab.process import wait_until
from lab.rest import Body
from lab.vm import Vm

_AGENT_SECONDS = 90


class Neutron(Lifetime):
    """A Neutron as ``options`` say, and nothing of it left when the ``with`` block ends.

    ``log`` gets the name of each part once it runs.
    """

    def __init__(
        self, options: Options | None = None, log: Callable[[str], None] = lambda _: None
    ) -> None:
        self.options = options or Options()
        self.hosts: dict[str, Host] = {}
        self._log = log
        super().__init__()

    def _start(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix=f"{mark()}neutron-"))
        self._stack.callback(shutil.rmtree, self.place, ignore_errors=True)
        # dnsmasq reads files of an agent's place as a user of its own.
        self.place.chmod(0o711)
        self.underlay = self._stack.enter_context(Underlay())
        controller = Controller(self.underlay.controller, self.place, self.options, self._log)
        self.controller = self._stack.enter_context(controller)
        for name, options in self.options.hosts.items():
            host = Host(name, options, self.place, self.underlay, self.controller.rabbit.url)
            self.hosts[name] = self._stack.enter_context(host)
            self._log(f"Open vSwitch of {name}")
        for name, host in self.hosts.items():
            host.await_agent()
            self._log(f"agent of {name}")
        wait_until(self._agents_alive, _AGENT_SECONDS, "Neutron knows its agents", poll=0.2)

    def _agents_alive(self) -> bool:
        alive = {agent["host"] for agent in self.api.find("agents") if agent["alive"]}
        return alive >= self.hosts.keys()

    @contextlib.contextmanager
    def service_agent(self, kind: Kind, host: str, **options: object) -> Iterator[ServiceAgent]:
        """A DHCP or L3 agent on ``host`` while the block lasts; ``options`` are its DEFAULTs."""
        with ServiceAgent(kind, self.hosts[host], {"DEFAULT": options}) as agent:
            agent.daemon.ready(lambda: self._reports(agent), _AGENT_SECONDS)
            yield agent

    def _reports(self, agent: ServiceAgent) -> bool:
        found = self.api.find("agents", host=agent.host, binary=agent.binary)
        return any(each["alive"] for each in found)

    @property
    def api(self) -> Client:
        return self.controller.client

    @property
    def nova(self) -> Nova:
        """What Nova was sent; only with ``nova`` in the options."""
        return self.controller.nova

    def as_nova(self) -> Client:
        """The API as Nova asks it: only a service may bind a port to a second host."""
        roles = {"X-User-Id": "nova", "X-Roles": "service,admin,member,reader"}
        return Client(self.controller.namespace, {"X-Project-Id": PROJECT, **roles})

    @property
    def host(self) -> Host:
        """The first compute host; often the only one."""
        return next(iter(self.hosts.values()))

    def boot(self, ports: Sequence[Body]) -> list[Vm]:
        """Plug a machine into each port, on the host the port is bound to, host by host at once."""
        networks = {port["network_id"] for port in ports}
        mtu = min(self.api.show("networks", network)["mtu"] for network in networks)
        prefixes = {
            subnet["id"]: ipaddress.ip_network(subnet["cidr"]).prefixlen
            for subnet in self.api.find("subnets", network_id=list(networks))
        }
        machines: dict[str, Vm] = {}
        for name, host in self.hosts.items():
            here = [port for port in ports if port["binding:host_id"] == name]
            if here:
                machines.update((vm.port_id, vm) for vm in host.boot(here, prefixes, mtu))
        return [machines[port["id"]] for port in ports]
