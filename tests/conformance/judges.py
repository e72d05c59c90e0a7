"""Hold verdicts against each other: ours against Neutron's, ours against the model's."""

import dataclasses

from tests.conformance.bridges import OURS, OWN, THEIRS, Bridges
from tests.conformance.differences import neutrons, reasons
from tests.conformance.disagreement import Disagreement
from tests.conformance.model import Forwarding, forwarded, verdict
from tests.conformance.world import Packet, Verdict, World


class AgainstNeutron:
    """Ours on Neutron's bridge, and Neutron's own driver on another."""

    def __init__(self, bridges: Bridges) -> None:
        self._bridges = bridges

    def install(self, world: World) -> None:
        self._bridges.install(world, OURS, THEIRS)

    def judge(self, world: World, packet: Packet) -> Disagreement | None:
        """None, too, for a verdict that a listed difference predicts."""
        ours = settled(world, packet, self._bridges.verdict(world, packet, OURS))
        theirs = settled(world, packet, self._bridges.verdict(world, packet, THEIRS))
        if theirs == ours:
            return None
        if reasons(world, packet) and theirs == settled(world, packet, neutrons(world, packet)):
            return None
        if packet.cut and self._bridges.tracks_again(world, packet, OURS, THEIRS):
            return self.judge(world, dataclasses.replace(packet, cut=False))
        return Disagreement(world, packet, ours, theirs)


class AgainstModel:
    """Ours on Neutron's bridge or on our own, and the model."""

    def __init__(self, bridges: Bridges, bridge: str) -> None:
        self._bridges = bridges
        self._bridge = bridge
        self._forwarding = {OURS: Forwarding.NORMAL, OWN: Forwarding.OWN}[bridge]

    def install(self, world: World) -> None:
        self._bridges.install(world, self._bridge)

    def judge(self, world: World, packet: Packet) -> Disagreement | None:
        ours = self._bridges.verdict(world, packet, self._bridge)
        if self._forwarding is Forwarding.NORMAL:
            ours = settled(world, packet, ours)
        meant = verdict(world, packet, self._forwarding)
        if ours == meant:
            return None
        if packet.cut and self._bridges.tracks_again(world, packet, self._bridge):
            return self.judge(world, dataclasses.replace(packet, cut=False))
        return Disagreement(world, packet, ours, meant)


def settled(world: World, packet: Packet, seen: Verdict) -> Verdict:
    """``seen`` with NORMAL followed to where it leads once MACs are learned: so a packet that
    reaches a port by NORMAL and one that does by its MAC's flow have the same verdict."""
    if not seen.network:
        return seen
    onward = forwarded(world, packet)
    return Verdict(seen.ports | onward.ports, onward.network, seen.changes)
