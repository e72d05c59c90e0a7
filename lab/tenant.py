"""A tenant with web servers and databases on a network of its own."""

from lab.cloud import Cloud
from lab.model import Rule, egress_to_anywhere, ingress, random_mac
from lab.product import Site
from lab.vm import Vm, plug


class Tenant:
    """A network, a group of web servers (tcp 80, icmp) and one of databases that serves only those.

    The network is a VLAN of physnet1 if one is given, else it does not leave the host.
    """

    def __init__(self, site: Site, vlan: int | None = None) -> None:
        self.site, self.vlan = site, vlan
        self.cloud = Cloud(site.api, site.host)
        physical = {"physical_network": "physnet1", "segmentation_id": vlan, "mtu": 1500}
        self.network = self.cloud.network("vlan", **physical) if vlan else self.cloud.network()
        self.web = self.cloud.group("web", self.web_rules())
        from_web = ingress(protocol="tcp", port=5432, remote_group_id=self.web)
        self.db = self.cloud.group("db", [from_web, *egress_to_anywhere()])
        self._vms: list[Vm] = []
        self._declared: set[Vm] = set()

    @staticmethod
    def web_rules(*more: Rule) -> list[Rule]:
        from_anywhere = [ingress(protocol="tcp", port=80), ingress(protocol="icmp")]
        return [*from_anywhere, *more, *egress_to_anywhere()]

    def boot(self, name: str, group: str | None = None, *, declared: bool = True) -> Vm:
        """A VM that listens, and its port in the API (a web server's by default); not plugged."""
        address = f"10.20.0.{11 + len(self._vms)}/24"
        vm = Vm(self.site.switch, name, random_mac(), [address])
        self._vms.append(vm)
        vm.create()
        for port in (80, 5432):
            vm.listen(port)
        if declared:
            self._declared.add(vm)
            self.cloud.port(vm, self.network, [group or self.web])
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
            if vm in self._declared:
                self.site.api.delete("ports", vm.port_id)
            vm.delete()
