"""Kernel links to plug, with no virtual machine at their other end."""

import contextlib
import dataclasses
from collections.abc import Iterator

from lab.model import new_id, random_mac
from lab.namespace import Namespace
from lab.switch import Switch


@dataclasses.dataclass(frozen=True)
class Cable:
    """One end is beside the switch and can be plugged; the other is in another namespace."""

    port_id: str
    mac: str
    address: str

    @property
    def tap(self) -> str:
        return f"tap{self.port_id[:11]}"

    @property
    def addresses(self) -> tuple[str]:
        return (self.address,)


def cables(count: int) -> list[Cable]:
    return [
        Cable(new_id(), random_mac(), f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
        for n in range(256, 256 + count)
    ]


@contextlib.contextmanager
def laid(switch: Switch, cables: list[Cable]) -> Iterator[None]:
    """The links exist, down as a hypervisor's new taps are."""
    with Namespace("cables") as far:
        switch.namespace.ip_batch(
            [
                f"link add {cable.tap} type veth peer name {cable.tap} netns {far.name}"
                for cable in cables
            ]
        )
        yield
