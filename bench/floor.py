"""The floor of what happens in a switch: the bare tools make the same change."""

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from lab.cables import Cable, laid
from lab.switch import Switch
from lab.vm import plug

BRIDGE = "br-int"


@dataclass(frozen=True)
class Change:
    """The integration bridge's flows before and after, without counters."""

    before: frozenset[str]
    after: frozenset[str]

    @property
    def number(self) -> int:
        """How many flows were added or removed."""
        return len(self.before ^ self.after)


@dataclass(frozen=True)
class Wiring:
    """Interfaces that were plugged, the flows made for them, and their VLAN tags."""

    cables: Sequence[Cable]
    flows: Change
    tags: Sequence[str]


def flows(switch: Switch) -> frozenset[str]:
    return frozenset(switch.flows(BRIDGE))


def tags(switch: Switch, cables: Sequence[Cable]) -> list[str]:
    words = [word for cable in cables for word in ("--", "get", "Port", cable.tap, "tag")]
    return switch.vsctl(*words).split()


class Bare:
    """A switch that nothing but ovs-vsctl and ovs-ofctl changes."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self._flows: frozenset[str] = flows(switch)

    def seconds(self, change: Change) -> float:
        """What ``ovs-ofctl`` takes for it, in one bundle; the flows before are put there first."""
        self._bundle(_lines(self._flows, change.before))
        lines = _lines(change.before, change.after)
        began = time.perf_counter()
        self._bundle(lines)
        seconds = time.perf_counter() - began
        self._flows = change.after
        return seconds

    def wiring_seconds(self, wiring: Wiring) -> float:
        """What the tools take to plug, tag and open the ports."""
        words = [
            word
            for cable, tag in zip(wiring.cables, wiring.tags, strict=True)
            for word in ("--", "set", "Port", cable.tap, f"tag={tag}")
        ]
        began = time.perf_counter()
        plug(self.switch, wiring.cables, BRIDGE)
        self.switch.vsctl(*words)
        return time.perf_counter() - began + self.seconds(wiring.flows)

    def _bundle(self, lines: Collection[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        where = self.switch.management(BRIDGE)
        self.switch.ofctl("--bundle", "add-flows", where, "-", stdin=text)


@contextlib.contextmanager
def bare() -> Iterator[Bare]:
    with Switch("bench-floor") as switch:
        switch.add_bridge(BRIDGE)
        yield Bare(switch)


def of_wiring(wiring: Wiring) -> float:
    """Seconds of the bare tools, on a new switch. Raises ValueError if they made other flows."""
    with bare() as switch, laid(switch.switch, list(wiring.cables)):
        seconds = switch.wiring_seconds(wiring)
        if len(flows(switch.switch)) != len(wiring.flows.after):
            raise ValueError("the bare tools did not install the same flows")
        return seconds


def _lines(before: frozenset[str], after: frozenset[str]) -> list[str]:
    """Of a bundle that makes the one into the other. What goes is first: a flow whose cookie or
    actions alone are new is the same flow to the switch."""
    return [
        *(f"delete_strict {_match(flow)}" for flow in before - after),
        *(f"add {flow}" for flow in after - before),
    ]


def _match(flow: str) -> str:
    """Of a flow, what identifies it: table, priority and match."""
    return flow.partition(" actions=")[0].partition(", ")[2]
