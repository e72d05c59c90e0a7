"""A VXLAN tunnel: at this end Open vSwitch's, at the far end the kernel's of another host."""

from lab.lifetime import Lifetime
from lab.namespace import Namespace
from lab.process import run, wait_until
from lab.switch import Switch
from lab.traffic import Connection, Listener, Transport, Wire

BRIDGE, PORT = "br-tun", "vxlan0"
_UNDERLAY, _CABLE, _DEVICE = "br-underlay", "underlay", "overlay"
_HERE, _HERE_MAC = "172.31.0.1", "0e:00:00:00:00:01"
_THERE, _THERE_MAC = "172.31.0.2", "0e:00:00:00:00:02"
_MTU = 1400


class FarVm(Lifetime):
    """A machine on another host, with an address in the network of one VNI.

    Entering makes a bridge ``br-tun`` without any flows, with the tunnel's
    port ``vxlan0``; what comes in carries its VNI as tunnel id.
    """

    def __init__(self, switch: Switch, name: str, vni: int, mac: str, *addresses: str) -> None:
        self.switch, self.name, self.vni, self.mac = switch, name, vni, mac
        self.addresses = addresses
        self.namespace = Namespace(name)
        super().__init__()

    @property
    def ip(self) -> str:
        return self.addresses[0].partition("/")[0]

    def _start(self) -> None:
        switch, here = self.switch, self.switch.namespace
        self._stack.enter_context(self.namespace)
        switch.add_bridge(_UNDERLAY, fail_mode="standalone")
        switch.add_bridge(BRIDGE)
        here.ip_batch(
            [
                f"link add {_CABLE} type veth peer name eth0 netns {self.namespace.name} "
                f"address {_THERE_MAC}",
                f"link set {_CABLE} up",
            ]
        )
        switch.vsctl(
            # By itself a bridge takes another MAC with every port it gets.
            "set", "Bridge", _UNDERLAY, f'other_config:hwaddr="{_HERE_MAC}"',
            "--", "add-port", _UNDERLAY, _CABLE, "--", "add-port", BRIDGE, PORT,
            "--", "set", "Interface", PORT, "type=vxlan",
            f"options:remote_ip={_THERE}", "options:key=flow",
        )  # fmt: skip
        here.ip_batch([f"address add {_HERE}/24 dev {_UNDERLAY}", f"link set {_UNDERLAY} up"])
        self.namespace.ip_batch(
            [
                f"address add {_THERE}/24 dev eth0",
                "link set eth0 up",
                # Not asked for: the bridge may still answer with the MAC it had at first.
                f"neighbour replace {_HERE} lladdr {_HERE_MAC} dev eth0 nud permanent",
                f"link add {_DEVICE} address {self.mac} mtu {_MTU} type vxlan id {self.vni} "
                f"remote {_HERE} dstport 4789 dev eth0",
                *(f"address add {address} dev {_DEVICE} nodad" for address in self.addresses),
                f"link set {_DEVICE} up",
            ]
        )
        for device in ("eth0", _DEVICE):
            # As for a VM: Open vSwitch's connection tracker wants real checksums.
            run(self.namespace.argv(["ethtool", "-K", device, "tx", "off"]))
        # Open vSwitch drops what is sent into a tunnel while it asks for the far end's MAC.
        switch.appctl("tnl/neigh/set", _UNDERLAY, _THERE, _THERE_MAC)
        # It learns its own addresses from the kernel, in its own time; until then what
        # comes from the far end goes to the kernel.
        known = f"eth(dst={_HERE_MAC}),eth_type(0x0800),ipv4(dst={_HERE},"
        wait_until(lambda: known in switch.appctl("tnl/ports/show", "-v"), 10, known)

    # What it does, as a VM of this host would.

    def listen(self, port: int, protocol: Transport = "tcp") -> None:
        listener = Listener(self.namespace, port, protocol, self.name)
        self._stack.callback(listener.close)

    def open(
        self, address: str, port: int, protocol: Transport = "tcp", timeout: float = 1.0
    ) -> Connection:
        """Raises OSError."""
        connection = Connection(self.namespace, address, port, protocol, timeout)
        self._stack.callback(connection.close)
        return connection

    def wire(self) -> Wire:
        """A raw socket inside the tunnel."""
        wire = Wire(self.namespace, _DEVICE)
        self._stack.callback(wire.close)
        return wire
