"""Random changes of the desired state, one after another."""

import dataclasses
import ipaddress
from collections.abc import Callable, Sequence
from random import Random

from agent_flows.openflow.flow import IPNetwork
from agent_flows.spec import (
    TCP,
    UDP,
    AddressGroupSpec,
    DesiredState,
    Direction,
    Ethertype,
    Member,
    SecurityGroupRule,
    SecurityGroupSpec,
)
from lab import model
from lab.model import addresses_of, everything, group, numbered_id
from lab.vm import Vm

PORTS = range(1000, 1008)
"""What the packets of the tests are for."""
_RANGES = [(None, None)] * 2 + [(1000, 1003), (1001, 1001), (1002, 1007), (1, 65535), (1005, 2000)]
_GROUPS = 4
_RULES = 6


@dataclasses.dataclass(frozen=True)
class Step:
    """``desired`` after the change; what changed by id, and in words."""

    desired: DesiredState
    ports: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    words: str = ""


def _open(number: int) -> SecurityGroupSpec:
    return group(*everything(), id=numbered_id(2, number))


class Walk:
    """``vms`` are in groups that change all the time; those that are ``open`` are besides in one
    that allows everything and never changes."""

    def __init__(self, random: Random, vms: Sequence[Vm], open_: Sequence[Vm]) -> None:
        self._random = random
        self._revision = 1
        self._walking = [vm.port_id for vm in vms]
        always = _open(0)
        self._always = {vm.port_id: (always.id,) for vm in open_}
        addresses = [address for vm in vms for address in addresses_of(vm)]
        self._addresses = [Member(_host(address)) for address in addresses]
        groups = [always, *(_open(n) for n in range(1, _GROUPS + 1))]
        self._groups = [numbered_id(2, n) for n in range(1, _GROUPS + 1)]
        self._address_groups = [numbered_id(3, n) for n in (1, 2)]
        ports = [
            model.port(
                id=vm.port_id,
                mac_address=vm.mac,
                fixed_ips=addresses_of(vm),
                security_groups=self._always.get(vm.port_id, (self._groups[0],)),
            )
            for vm in vms
        ]
        self.first = DesiredState.of(
            [*ports, *groups, *(AddressGroupSpec(id=each) for each in self._address_groups)]
        )

    def step(self, before: DesiredState) -> Step:
        count = self._random.choice([1, 1, 1, 1, 2, 4])
        step = Step(before)
        for _ in range(count):
            step = self._one(step)
        return step

    def rules_only(self, before: DesiredState) -> Step:
        return self._change_rules(Step(before))

    def impossible(self, before: DesiredState) -> Step:
        """A change that adds sixteen flows for each port of a group that is in use."""
        used = [g for port in before.ports.values() for g in port.security_groups]
        group = before.security_groups[self._random.choice(used)]
        wide = SecurityGroupRule(
            direction=Direction.INGRESS,
            protocol=TCP,
            port_range_min=1,
            port_range_max=65535,
            remote_ip_prefix=_host(f"192.0.2.{self._random.randrange(256)}"),
        )
        return self._replaced(Step(before), group, "too many", rules=(*group.rules, wide))

    def _one(self, step: Step) -> Step:
        changes: list[Callable[[Step], Step]] = [
            *[self._change_rules] * 4,
            *[self._change_members] * 3,
            *[self._change_addresses] * 2,
            *[self._change_groups_of_port] * 2,
            self._replace_rules,
        ]
        return self._random.choice(changes)(step)

    def _rule(self) -> SecurityGroupRule:
        random = self._random
        ethertype = random.choice(list(Ethertype))
        low = high = None
        protocol = random.choice([None, TCP, UDP])
        if protocol is not None:
            low, high = random.choice(_RANGES)
        remote: dict[str, object] = random.choice(
            [
                {},
                {},
                {"remote_group_id": random.choice(self._groups)},
                {"remote_address_group_id": random.choice(self._address_groups)},
                {"remote_ip_prefix": self._prefix(ethertype)},
            ]
        )
        return SecurityGroupRule(
            direction=random.choice(list(Direction)),
            ethertype=ethertype,
            protocol=protocol,
            port_range_min=low,
            port_range_max=high,
            **remote,  # type: ignore[arg-type]
        )

    def _prefix(self, ethertype: Ethertype) -> IPNetwork:
        members = [m.address for m in self._addresses if m.address.version == ethertype.version]
        return self._random.choice(members).supernet(self._random.choice([0, 1, 2]))

    def _change_rules(self, step: Step) -> Step:
        group = step.desired.security_groups[self._random.choice(self._groups)]
        rules = list(group.rules)
        if rules and self._random.random() < len(rules) / (2 * _RULES):
            gone = rules.pop(self._random.randrange(len(rules)))
            return self._replaced(step, group, f"without {gone}", rules=tuple(rules))
        rules.insert(0, self._rule())
        return self._replaced(step, group, f"with {rules[0]}", rules=tuple(rules))

    def _replace_rules(self, step: Step) -> Step:
        group = step.desired.security_groups[self._random.choice(self._groups)]
        rules = tuple(self._rule() for _ in range(self._random.randrange(_RULES + 1)))
        return self._replaced(step, group, f"now {len(rules)} other rules", rules=rules)

    def _change_members(self, step: Step) -> Step:
        group = step.desired.security_groups[self._random.choice(self._groups)]
        members = set(group.members) ^ {self._random.choice(self._addresses)}
        words = f"members {sorted(str(m.address) for m in members)}"
        return self._replaced(step, group, words, members=tuple(members))

    def _change_addresses(self, step: Step) -> Step:
        group = step.desired.address_groups[self._random.choice(self._address_groups)]
        prefix = self._prefix(self._random.choice(list(Ethertype)))
        changed = AddressGroupSpec(
            id=group.id,
            addresses=tuple(set(group.addresses) ^ {prefix}),
        )
        desired = dataclasses.replace(
            step.desired, address_groups={**step.desired.address_groups, group.id: changed}
        )
        return self._noted(
            step, desired, f"{group.id} holds {[*map(str, changed.addresses)]}", groups={group.id}
        )

    def _change_groups_of_port(self, step: Step) -> Step:
        port = step.desired.ports[self._random.choice(self._walking)]
        groups = self._random.sample(self._groups, self._random.choice([0, 1, 2, 3, 3]))
        changed = dataclasses.replace(
            port,
            revision=port.revision + 1,
            security_groups=(*groups, *self._always.get(port.id, ())),
        )
        desired = dataclasses.replace(step.desired, ports={**step.desired.ports, port.id: changed})
        return self._noted(step, desired, f"{port.id} in {groups}", ports={port.id})

    def _replaced(
        self, step: Step, group: SecurityGroupSpec, words: str, **changes: object
    ) -> Step:
        changed = dataclasses.replace(group, **changes)  # type: ignore[arg-type]
        desired = dataclasses.replace(
            step.desired,
            security_groups={**step.desired.security_groups, group.id: changed},
        )
        return self._noted(step, desired, f"{group.id} {words}", groups={group.id})

    def _noted(
        self,
        step: Step,
        desired: DesiredState,
        words: str,
        *,
        ports: set[str] | None = None,
        groups: set[str] | None = None,
    ) -> Step:
        """With new revisions of the groups that changed, and of those that refer to them."""
        changed = groups or set()
        self._revision += 1
        risen = {
            id_: dataclasses.replace(group, revision=self._revision)
            for id_, group in desired.security_groups.items()
            if id_ in changed
            or any(
                {rule.remote_group_id, rule.remote_address_group_id} & changed
                for rule in group.rules
            )
        }
        return Step(
            dataclasses.replace(desired, security_groups={**desired.security_groups, **risen}),
            step.ports | (ports or set()),
            step.groups | changed,
            f"{step.words}; {words}" if step.words else words,
        )


def _host(address: str) -> IPNetwork:
    return ipaddress.ip_network(address)
