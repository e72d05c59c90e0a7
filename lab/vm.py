"""Virtual machines as namespaces, plugged into a switch as Nova would."""

import contextlib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

from lab.namespace import Namespace
from lab.process import run
from lab.switch import Switch
from lab.tagged import TaggedInterface
from lab.traffic import Connection, Listener, Transport, Wire, ping

INTERFACE = "eth0"
_TAP_ID_CHARS = 11  # tap + 11 characters of the port's id, as Neutron names them


class Plugged(Protocol):
    """A kernel link beside the switch, and its port."""

    @property
    def tap(self) -> str: ...
    @property
    def port_id(self) -> str: ...
    @property
    def mac(self) -> str: ...
    @property
    def addresses(self) -> Sequence[str]: ...


class Vm:
    """A namespace with ``eth0``; the other end of the cable lies beside the switch.

    That end keeps its link down, as a hypervisor's tap is when it is made:
    raising it is the agent's work. ``addresses`` come with a prefix length.
    """

    def __init__(
        self,
        switch: Switch,
        name: str,
        mac: str,
        addresses: Sequence[str] = (),
        *,
        port_id: str | None = None,
        mtu: int = 1500,
    ) -> None:
        self.switch = switch
        self.name = name
        self.mac = mac
        self.addresses = tuple(addresses)
        self.mtu = mtu
        self.port_id = port_id or str(uuid.uuid4())
        self.tap = f"tap{self.port_id[:_TAP_ID_CHARS]}"
        self.namespace = Namespace(name)
        self._open: list[Listener | Wire | Connection | TaggedInterface] = []

    @property
    def ip(self) -> str:
        """The first address, without its prefix length."""
        return self.addresses[0].partition("/")[0]

    def create(self) -> None:
        self.namespace.create()
        with self.namespace.entered():
            # Addresses must work at once, and nothing but the test should send.
            conf = Path("/proc/sys/net/ipv6/conf/default")
            (conf / "accept_dad").write_text("0")
            (conf / "router_solicitations").write_text("0")
        self.switch.namespace.ip_batch(
            [
                f"link add {self.tap} mtu {self.mtu} type veth peer name {INTERFACE} "
                f"netns {self.namespace.name} address {self.mac} mtu {self.mtu}"
            ]
        )
        # The kernel leaves checksums to hardware, and the userspace datapath's connection
        # tracker drops every packet without one (ethtool -K, measured: tx on, no connection).
        run(self.namespace.argv(["ethtool", "-K", INTERFACE, "tx", "off"]))
        self.namespace.ip_batch(
            [f"address add {address} dev {INTERFACE}" for address in self.addresses]
            + [f"link set {INTERFACE} up"]
        )

    def delete(self) -> None:
        """Remove the cable; the switch's port stays, as after a crash."""
        for end in self._open:
            end.close()
        self._open.clear()
        with contextlib.ExitStack() as stack:
            stack.callback(self.namespace.delete)
            if self.switch.namespace.path.exists() and self.tap in self.switch.namespace.ip("link"):
                # A namespace lives on while a socket of it is open; its cable need not.
                self.switch.namespace.ip("link", "delete", self.tap)

    def raise_link(self) -> None:
        """What the agent's ``raise-link`` does; for tests without an agent."""
        self.switch.namespace.ip("link", "set", self.tap, "up")

    def plug(self, bridge: str = "br-int") -> None:
        plug(self.switch, [self], bridge)

    def unplug(self, bridge: str = "br-int") -> None:
        self.switch.vsctl("--if-exists", "del-port", bridge, self.tap)

    # What it does once it runs.

    def listen(self, port: int, protocol: Transport = "tcp") -> None:
        """Serve ``port`` until the VM is deleted; the answers carry the VM's name."""
        self._open.append(Listener(self.namespace, port, protocol, self.name))

    def open(
        self, address: str, port: int, protocol: Transport = "tcp", timeout: float = 1.0
    ) -> Connection:
        """Raises OSError."""
        connection = Connection(self.namespace, address, port, protocol, timeout)
        self._open.append(connection)
        return connection

    def reach(
        self, address: str, port: int, protocol: Transport = "tcp", timeout: float = 1.0
    ) -> str | None:
        """Name of the VM that answers there, or None."""
        try:
            with Connection(self.namespace, address, port, protocol, timeout) as connection:
                return connection.ask(timeout)
        except OSError:
            return None

    def connect(
        self, address: str, port: int, protocol: Transport = "tcp", timeout: float = 1.0
    ) -> bool:
        """Whether a VM answers there."""
        return self.reach(address, port, protocol, timeout) is not None

    def ping(self, address: str, timeout: float = 1.0) -> bool:
        return ping(self.namespace, address, timeout)

    def forget_neighbours(self) -> None:
        """Ask again for every MAC: an unanswered request is remembered for seconds."""
        self.namespace.ip("neighbour", "flush", "all")

    def add_tagged(self, name: str, vlan: int, mac: str, address: str) -> None:
        """An interface whose frames have a VLAN tag on ``eth0``; ``address``: with its prefix."""
        self._open.append(
            TaggedInterface(
                self.namespace, name, parent=INTERFACE, vlan=vlan, mac=mac, address=address
            )
        )

    def wire(self) -> Wire:
        """A raw socket on ``eth0``, for frames as they are."""
        wire = Wire(self.namespace, INTERFACE)
        self._open.append(wire)
        return wire

    def __enter__(self) -> Self:
        try:
            self.create()
        except BaseException:
            self.delete()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()


def plug(switch: Switch, interfaces: Iterable[Plugged], bridge: str = "br-int") -> None:
    """What Nova does: the interfaces and their ports' ids, all in one transaction."""
    words: list[str] = []
    for interface in interfaces:
        tap = interface.tap
        words += ["--", "add-port", bridge, tap, "--", "set", "Interface", tap]
        words += [
            f"external_ids:iface-id={interface.port_id}",
            f'external_ids:attached-mac="{interface.mac}"',
            "external_ids:iface-status=active",
        ]
    switch.vsctl(*words)
