"""A tenant with web servers and databases on a network of its own."""

from lab.cloud import Cloud
from lab.model import egress_to_anywhere, ingress, random_mac
from lab.product import Site
from lab.vm import Vm, plug


class Tenant:
    """A VLAN, a group of web servers (tcp 80, icmp) and one of databases that serves only those."""

    def __init__(self, site: Site, vlan: int) -> None:
        self.site = site
        self.cloud = Cloud(site.api, site.host)
        self.network = self.cloud.network(
            "vlan", physical_network="physnet1", segmentation_id=vlan, mtu=1500
        )
        from_anywhere = [ingress(protocol="tcp", port=80), ingress(protocol="icmp")]
        self.web = self.cloud.group("web", [*from_anywhere, *egress_to_anywhere()])
        from_web = ingress(protocol="tcp", port=5432, remote_group_id=self.web)
        self.db = self.cloud.group("db", [from_web, *egress_to_anywhere()])
        self._vms: list[Vm] = []

    def boot(self, name: str, group: str) -> Vm:
        """A VM that listens, and its port in the API; not plugged yet."""
        address = f"10.20.0.{11 + len(self._vms)}/24"
        vm = Vm(self.site.switch, name, random_mac(), [address])
        self._vms.append(vm)
        vm.create()
        for port in (80, 5432):
            vm.listen(port)
        self.cloud.port(vm, self.network, [group])
        return vm

    def plug(self, *vms: Vm) -> None:
        plug(self.site.switch, vms)

    def active(self, *vms: Vm) -> None:
        """Wait until all of ``vms`` are ACTIVE and IN_SYNC."""
        for vm in vms:
            self.site.api.wait_port(vm.port_id, 30, status="ACTIVE", sync_state="IN_SYNC")

    def leave(self) -> None:
        for vm in self._vms:
            vm.unplug()
            self.site.api.delete("ports", vm.port_id)
            vm.delete()
