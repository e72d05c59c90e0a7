"""Two verdicts that differ, and the smallest world in which they do."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.conformance.world import Packet, Verdict, World

T = TypeVar("T")


@dataclass(frozen=True)
class Disagreement:
    """Two verdicts on one packet; the first is ours."""

    world: World
    packet: Packet
    ours: Verdict
    other: Verdict

    def __str__(self) -> str:
        lines = [f"{self.packet}", f"ours: {self.ours}", f"but:  {self.other}", "in"]
        lines += [f"  network {n}: {each}" for n, each in self.world.networks.items()]
        lines += [f"  port {n}: {each}" for n, each in self.world.ports.items()]
        for name, group in self.world.groups.items():
            kind = "stateful" if group.stateful else "stateless"
            lines.append(f"  {kind} group {name}, members elsewhere: {group.outside}")
            lines += [f"    {rule}" for rule in group.rules]
        lines += [f"  address group {n}: {each}" for n, each in self.world.address_groups.items()]
        lines.append(f"  permitted ethertypes: {sorted(self.world.permitted_ethertypes)}")
        return "\n".join(lines)


def smaller(world: World) -> Iterator[World]:
    """Worlds with one thing less."""
    for number, port in world.ports.items():
        rest = {n: p for n, p in world.ports.items() if n != number}
        yield dataclasses.replace(world, ports=rest)
        for field in ("addresses", "pairs", "groups"):
            for fewer in _without_one(getattr(port, field)):
                less = dataclasses.replace(port, **{field: fewer})
                yield dataclasses.replace(world, ports={**world.ports, number: less})
    for name, group in world.groups.items():
        for field in ("rules", "outside"):
            for fewer in _without_one(getattr(group, field)):
                if not (fewer or group.stateful):
                    continue  # Neutron's agent passes it with the rules: without any it is stateful
                less_group = dataclasses.replace(group, **{field: fewer})
                yield dataclasses.replace(world, groups={**world.groups, name: less_group})
        if not _is_used(world, name):
            groups = {n: g for n, g in world.groups.items() if n != name}
            yield dataclasses.replace(world, groups=groups)
    for name, prefixes in world.address_groups.items():
        for rest_of in _without_one(prefixes):
            kept = {**world.address_groups, name: rest_of}
            yield dataclasses.replace(world, address_groups=kept)
        if not _is_used(world, name):
            address_groups = {n: g for n, g in world.address_groups.items() if n != name}
            yield dataclasses.replace(world, address_groups=address_groups)
    if world.permitted_ethertypes:
        yield dataclasses.replace(world, permitted_ethertypes=frozenset())


def _without_one(values: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    for index in range(len(values)):
        yield values[:index] + values[index + 1 :]


def _is_used(world: World, name: str) -> bool:
    return any(name in port.groups for port in world.ports.values()) or any(
        rule.remote == name for group in world.groups.values() for rule in group.rules
    )


def smallest(
    found: Disagreement,
    install: Callable[[World], None],
    judge: Callable[[World, Packet], Disagreement | None],
) -> Disagreement:
    """The same packet in the smallest world in which ``judge`` still finds a disagreement."""
    while True:
        for world in smaller(found.world):
            if found.packet.source and found.packet.source not in world.ports:
                continue
            install(world)
            less = judge(world, found.packet)
            if less is not None:
                found = less
                break
        else:
            return found
