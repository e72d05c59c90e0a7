"""The cables between Neutron's machines: one controller, and hosts with a network of their own."""

from pathlib import Path

from lab.lifetime import Lifetime
from lab.namespace import Namespace
from lab.neutron.configuration import PHYSICAL_BRIDGE
from lab.process import run
from lab.switch import Switch

# Kernel bridges beside the controller: who talks to the message bus, and what carries tenants.
_MANAGEMENT, _FABRIC = "mgmt", "fabric"
_UPLINK = "uplink"
CONTROLLER = "10.254.0.1"


class Underlay(Lifetime):
    """The controller's namespace, and the two networks every host is connected to."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = Namespace("neutron")
        self._hosts = 0

    def connect(self, switch: Switch) -> str:
        """Cable a host and its switch; the address its tunnels end at.

        The physical bridge's own port carries that address: the userspace datapath sends
        tunnelled packets by way of a bridge only (OVS, "Connecting VMs Using Tunnels (Userspace)").
        """
        self._hosts += 1
        number = self._hosts
        switch.add_bridge(PHYSICAL_BRIDGE, fail_mode="standalone")
        for near, far in ((_MANAGEMENT, _MANAGEMENT), (_UPLINK, _FABRIC)):
            port = f"{far}{number}"
            switch.namespace.ip_batch(
                [f"link add {near} type veth peer name {port} netns {self.controller.name}"]
            )
            self.controller.ip_batch([f"link set {port} master {far}", f"link set {port} up"])
        switch.vsctl("add-port", PHYSICAL_BRIDGE, _UPLINK)
        switch.namespace.ip_batch(
            [
                f"address add 10.254.0.{10 + number}/24 dev {_MANAGEMENT}",
                f"link set {_MANAGEMENT} up",
                f"link set {_UPLINK} up",
            ]
        )
        address = f"10.255.0.{10 + number}"
        self.address_tunnels(switch, address)
        return address

    @staticmethod
    def address_tunnels(switch: Switch, address: str) -> None:
        """Also after a restart of the switch: whether its devices outlive it is its own affair."""
        switch.namespace.ip_batch(
            [
                f"address replace {address}/24 dev {PHYSICAL_BRIDGE}",
                f"link set {PHYSICAL_BRIDGE} up",
            ]
        )

    def add_address(self, address: str) -> None:
        """``address``, with its prefix length, on the physical network: a neighbour of tenants.

        It answers from the controller's namespace.
        """
        # The userspace datapath's connection tracker drops packets without a checksum.
        run(self.controller.argv(["ethtool", "-K", _FABRIC, "tx", "off"]))
        self.controller.ip("address", "replace", address, "dev", _FABRIC)

    def _start(self) -> None:
        self._stack.enter_context(self.controller)
        with self.controller.entered():
            # What the bridges themselves send would reach the tenants.
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        self.controller.ip_batch(
            [
                f"link add {_MANAGEMENT} type bridge",
                f"address add {CONTROLLER}/24 dev {_MANAGEMENT}",
                f"link set {_MANAGEMENT} up",
                f"link add {_FABRIC} type bridge mcast_snooping 0",
                f"link set {_FABRIC} up",
            ]
        )
