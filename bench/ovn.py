"""OVN with the same network, ports and rules, on a switch of its own."""

import contextlib
import time
from collections.abc import Iterator

from bench.runner import Figures
from bench.site import PHYSICAL, PHYSICAL_BRIDGE, VLAN, poll_seconds, rules
from lab.cables import Cable, cables, laid
from lab.model import ingress
from lab.ovn import Ovn
from lab.process import wait_until
from lab.switch import Switch
from lab.vm import plug

_GIVE_UP_SECONDS = 300
_NETWORK, _GROUP = "bench", "group"
_FIRST_RULE = 4001
_SETTLE_SECONDS = 0.5


def wire(ports: int) -> Figures:
    """From one ovs-vsctl call that plugs all ports to all of them up, on a new switch where one
    port was wired before."""
    first, *lines = cables(ports + 1)
    with _ovn([first, *lines]) as ovn:
        plug(ovn.switch, [first])
        ovn.nbctl("wait-until", "Logical_Switch_Port", first.port_id, "up=true")
        _settle(ovn)
        began = time.perf_counter()
        plug(ovn.switch, lines)
        _wait_all_up(ovn, ports)
        return {"seconds": time.perf_counter() - began}


class Group:
    """Wired ports of one group."""

    def __init__(self, ovn: Ovn) -> None:
        self._ovn = ovn
        self._rules = self._members = 0

    def refresh(self) -> Figures:
        """Add an ACL, until it is in force."""
        rule = ingress(protocol="tcp", port=_FIRST_RULE + self._rules)
        self._rules += 1
        began = time.perf_counter()
        self._ovn.add_acl(_GROUP, rule, wait=True)
        return {"seconds": time.perf_counter() - began}

    def member(self) -> Figures:
        """Add an address to the address set, until it is in force."""
        self._members += 1
        began = time.perf_counter()
        self._ovn.add_member(_GROUP, f"192.0.2.{self._members}")
        return {"seconds": time.perf_counter() - began}


@contextlib.contextmanager
def group(ports: int) -> Iterator[Group]:
    lines = cables(ports)
    with _ovn(lines) as ovn:
        plug(ovn.switch, lines)
        _wait_all_up(ovn, ports)
        _settle(ovn)
        yield Group(ovn)


@contextlib.contextmanager
def _ovn(lines: list[Cable]) -> Iterator[Ovn]:
    with Switch("bench-ovn") as switch, laid(switch, lines):
        switch.add_bridge(PHYSICAL_BRIDGE, fail_mode="standalone")
        with Ovn(switch, {PHYSICAL: PHYSICAL_BRIDGE}) as ovn:
            ovn.add_network(_NETWORK, PHYSICAL, VLAN)
            ovn.add_group(_GROUP, rules(_GROUP), _NETWORK, lines)
            yield ovn


def _wait_all_up(ovn: Ovn, ports: int) -> None:
    wait_until(
        lambda: not ovn.is_any_down(), _GIVE_UP_SECONDS, "all ports are up", poll_seconds(ports)
    )


def _settle(ovn: Ovn) -> None:
    ovn.nbctl("--wait=hv", "sync")
    time.sleep(_SETTLE_SECONDS)
