"""A tenant of Neutron: a network, a group of web servers, and machines in it."""

import contextlib
from collections.abc import Callable, Collection, Sequence

from lab.model import ingress
from lab.neutron.host import Host
from lab.neutron.stack import Neutron
from lab.rest import Body
from lab.vm import Vm

SERVED, CLOSED = 80, 81  # both answer; the group lets the first one in


class Tenant:
    """Its group lets in tcp 80 from anywhere, and everything out."""

    def __init__(self, neutron: Neutron, cidr: str = "10.30.0.0/24", **network: object) -> None:
        self.neutron = neutron
        self.network = str(neutron.api.network(cidr, **network)["id"])
        self.group = neutron.api.group("web", [ingress(protocol="tcp", port=SERVED)])
        self._vms: list[Vm] = []

    def boot(
        self, count: int, groups: Collection[str] | None = None, host: str | None = None
    ) -> list[Vm]:
        """Machines that listen, all plugged at once; in the group, on the first host."""
        return self.start(self.ports(count, host or self.neutron.host.name, groups))

    def ports(self, count: int, host: str, groups: Collection[str] | None = None) -> list[Body]:
        """Ports of the group, bound to ``host``, for machines to come."""
        wanted = [self.group] if groups is None else groups
        return self.neutron.api.ports(count, self.network, wanted, host)

    def stop(self, vm: Vm) -> None:
        """Unplug the machine; its port is the caller's from now on."""
        self._host_of(vm).shut_down(vm)
        self._vms.remove(vm)

    def _host_of(self, vm: Vm) -> Host:
        [host] = [each for each in self.neutron.hosts.values() if vm.port_id in each.vms]
        return host

    def move(self, vm: Vm, host: str) -> Vm:
        """Shut the machine down, bind its port to ``host``, and start it there."""
        self.stop(vm)
        port = self.neutron.api.update("ports", vm.port_id, **{"binding:host_id": host})
        [moved] = self.start([port])
        return moved

    def migrate(
        self, vm: Vm, host: str, before_it_moves: Callable[[], object] = lambda: None
    ) -> Vm:
        """As :meth:`move`, live, as Nova does it: the port has two bindings for a while, and a
        machine on either host. ``before_it_moves`` is called when both are there."""
        before = self._host_of(vm)
        path = f"/ports/{vm.port_id}/bindings"
        with contextlib.closing(self.neutron.as_nova()) as nova:
            nova.request("POST", path, {"binding": {"host": host}})
            port = nova.update("ports", vm.port_id, **{"binding:profile": {"migrating_to": host}})
            [moved] = self.start([{**port, "binding:host_id": host}])
            before_it_moves()
            nova.request("PUT", f"{path}/{host}/activate")
            before.shut_down(vm)
            self._vms.remove(vm)
            nova.request("DELETE", f"{path}/{before.name}")
            nova.update("ports", vm.port_id, **{"binding:host_id": host, "binding:profile": {}})
        return moved

    def start(self, ports: Sequence[Body]) -> list[Vm]:
        """A machine for each of these ports, where it is bound; it listens."""
        vms = self.neutron.boot(ports)
        self._vms += vms
        for vm in vms:
            vm.listen(SERVED)
            vm.listen(CLOSED)
        return vms

    def active(self, *vms: Vm, seconds: float = 30) -> None:
        """Wait until Neutron shows all of them as ACTIVE."""
        self.neutron.api.wait_ports([vm.port_id for vm in vms], "ACTIVE", seconds)

    def leave(self) -> None:
        """Machines, ports, network and group: all gone."""
        for host in self.neutron.hosts.values():
            host.shut_down(*[vm for vm in self._vms if vm.port_id in host.vms])
        for vm in self._vms:
            self.neutron.api.delete("ports", vm.port_id)
        self.neutron.api.delete("networks", self.network)
        self.neutron.api.delete("security_groups", self.group)
