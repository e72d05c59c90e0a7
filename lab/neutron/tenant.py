"""A tenant of Neutron: a network, a group of web servers, and machines in it."""

from collections.abc import Collection

from lab.cloud import ingress
from lab.neutron.stack import Neutron
from lab.vm import Vm

SERVED, CLOSED = 80, 81  # both answer; the group lets the first one in


class Tenant:
    """Its group lets anybody reach tcp 80, and its machines everywhere."""

    def __init__(self, neutron: Neutron, cidr: str = "10.30.0.0/24", **network: object) -> None:
        self.neutron = neutron
        self.network = str(neutron.api.network(cidr, **network)["id"])
        self.group = neutron.api.group("web", [ingress(protocol="tcp", port=SERVED)])
        self._vms: list[Vm] = []

    def boot(
        self, count: int, groups: Collection[str] | None = None, host: str | None = None
    ) -> list[Vm]:
        """Machines that listen, all plugged at once; in the group, on the first host."""
        wanted = [self.group] if groups is None else groups
        where = host or self.neutron.host.name
        ports = self.neutron.api.ports(count, self.network, wanted, where)
        vms = self.neutron.boot(ports)
        self._vms += vms
        for vm in vms:
            vm.listen(SERVED)
            vm.listen(CLOSED)
        return vms

    def active(self, *vms: Vm, seconds: float = 30) -> None:
        """Wait until Neutron says so of all of them."""
        self.neutron.api.wait_ports([vm.port_id for vm in vms], "ACTIVE", seconds)

    def leave(self) -> None:
        """Machines, ports, network and group: all gone."""
        for host in self.neutron.hosts.values():
            host.shut_down(*[vm for vm in self._vms if vm.port_id in host.vms])
        for vm in self._vms:
            self.neutron.api.delete("ports", vm.port_id)
        self.neutron.api.delete("networks", self.network)
        self.neutron.api.delete("security_groups", self.group)
