"""How Nova plugs a machine in: as its port's binding demands (os-vif's plugin ``ovs``)."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.process import CommandFailed
from lab.switch import Switch
from lab.vm import Vm, plug

BRIDGE = "br-int"
_ID_CHARS = 11  # of the port's id in the name of a device


@dataclass(frozen=True)
class Vif:
    """A machine's interface; ``bridge`` is the switch's bridge that it belongs to.

    ``hybrid``: a Linux bridge lies between, where iptables filters.
    """

    vm: Vm
    bridge: str = BRIDGE
    hybrid: bool = False

    @classmethod
    def of(cls, vm: Vm, port: Mapping[str, Any]) -> "Vif":
        """As Neutron's API shows the binding of ``port`` to Nova."""
        details = port.get("binding:vif_details") or {}
        return cls(vm, details.get("bridge_name") or BRIDGE, bool(details.get("ovs_hybrid_plug")))

    # What belongs into the switch (lab.vm.Plugged).

    @property
    def tap(self) -> str:
        return self._device("qvo") if self.hybrid else self.vm.tap

    @property
    def port_id(self) -> str:
        return self.vm.port_id

    @property
    def mac(self) -> str:
        return self.vm.mac

    @property
    def addresses(self) -> Sequence[str]:
        return self.vm.addresses

    def _device(self, prefix: str) -> str:
        return f"{prefix}{self.vm.port_id[:_ID_CHARS]}"

    def prepare(self, switch: Switch) -> None:
        """The bridges that only this interface needs."""
        if self.bridge != BRIDGE:
            switch.add_bridge(self.bridge, fail_mode="standalone")
        if self.hybrid:
            linux, near, far = (self._device(prefix) for prefix in ("qbr", "qvb", "qvo"))
            mtu = f"mtu {self.vm.mtu}"
            switch.namespace.ip_batch(
                [
                    f"link add {linux} {mtu} type bridge forward_delay 0 ageing_time 0",
                    f"link add {near} {mtu} type veth peer name {far} {mtu}",
                    f"link set {near} master {linux}",
                    f"link set {self.vm.tap} master {linux}",
                    *(f"link set {device} up" for device in (near, far, linux)),
                ]
            )

    def remove(self, switch: Switch) -> None:
        """Unplug it, and what :meth:`prepare` made."""
        switch.vsctl("--if-exists", "del-port", self.bridge, self.tap)
        if self.bridge != BRIDGE:
            switch.vsctl("--if-exists", "del-br", self.bridge)
        if self.hybrid:
            for device in (self._device("qvo"), self._device("qbr")):
                with contextlib.suppress(CommandFailed):  # gone with its peer
                    switch.namespace.ip("link", "delete", device)


def plug_all(switch: Switch, vifs: Sequence[Vif]) -> None:
    """All that belong to one bridge in one transaction."""
    for vif in vifs:
        vif.prepare(switch)
    for bridge in dict.fromkeys(vif.bridge for vif in vifs):
        plug(switch, [vif for vif in vifs if vif.bridge == bridge], bridge)
