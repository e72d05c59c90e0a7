"""What the agent has told so far: ports, rules, members; and the desired state in it."""

import dataclasses
import itertools
import threading
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from oslo_log import log

from agent_flows.neutron import parsing
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.parsing import NO_MEMBERS, Group, Members
from agent_flows.report import TaskError
from agent_flows.spec import (
    AddressGroupSpec,
    DesiredState,
    PortSpec,
    SecurityGroupSpec,
)
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

T = TypeVar("T", Group, Members)


@dataclass(frozen=True)
class Port:
    """A port as told, and what was made of it.

    ``raw`` is Neutron's dict; a trusted port is known by its id alone and has
    none. ``version`` rises when the port itself changes. ``left_out`` says what
    of it could not be used.
    """

    raw: Mapping[str, Any]
    version: int
    spec: PortSpec | None = None
    refused: TaskError | None = None
    left_out: tuple[str, ...] = ()

    @property
    def filtered(self) -> bool:
        return self.spec is None or self.spec.port_security_enabled

    @property
    def macs(self) -> frozenset[str]:
        """Under which MAC addresses it may speak, as far as that can be told."""
        return frozenset() if self.spec is None else parsing.macs_of(self.spec)

    @property
    def groups(self) -> tuple[str, ...]:
        return self.spec.security_groups if self.spec is not None else ()


@dataclass(frozen=True)
class Wanted:
    """The desired state of some ports; those in ``refused`` cannot be used."""

    state: DesiredState
    refused: Mapping[str, TaskError] = field(default_factory=dict)


class Told:
    """Safe from any thread. Whatever changes something takes a new version, so that equal
    versions mean that nothing has changed."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._lock = threading.RLock()
        self._versions = itertools.count(1)
        self._ports: dict[str, Port] = {}
        self._groups: dict[str, tuple[int, Group]] = {}
        self._members: dict[str, tuple[int, Members]] = {}

    # What is told.

    def port(self, raw: Mapping[str, Any]) -> None:
        """A port's dict, under its ``device``."""
        port_id = str(raw["device"])
        try:
            read = parsing.port(raw, self._host)
        except Invalid as exc:
            self._take(port_id, raw, None, parsing.refused_port(port_id, exc))
        else:
            self._take(port_id, raw, read.spec, None, read.left_out)

    def trusted(self, port_id: str) -> None:
        """A port that is not to be filtered, of which nothing else is known."""
        self._take(port_id, {}, None, None)

    def _take(
        self,
        port_id: str,
        raw: Mapping[str, Any],
        spec: PortSpec | None,
        refused: TaskError | None,
        left_out: tuple[str, ...] = (),
    ) -> None:
        with self._lock:
            known = self._ports.get(port_id)
            same = known is not None and (known.spec, known.refused) == (spec, refused)
            version = known.version if known and same else next(self._versions)
            self._ports[port_id] = Port(raw, version, spec, refused, left_out)
            _log_left_out(known, left_out)

    def gone(self, port_id: str) -> None:
        with self._lock:
            self._ports.pop(port_id, None)

    def rules(self, name: object, raw: object) -> frozenset[str]:
        """A security group's rules; the ports this concerns. Raises :class:`Invalid`."""
        return self._learn(self._groups, parsing.group_id(name), parsing.group(name, raw))

    def members(self, name: object, raw: object) -> frozenset[str]:
        """The members of a security or address group; the ports this concerns.

        Raises :class:`Invalid`.
        """
        group_id = parsing.group_id(name)
        with self._lock:
            _, before = self._members.get(group_id, (0, NO_MEMBERS))
            return self._learn(self._members, group_id, parsing.members(name, raw, before))

    def _learn(self, known: dict[str, tuple[int, T]], group_id: str, new: T) -> frozenset[str]:
        with self._lock:
            before = known[group_id][1] if group_id in known else None
            if before == new:
                return frozenset()
            _log_left_out(before, new.left_out)
            known[group_id] = (next(self._versions), new)
            return frozenset(
                port_id
                for port_id, port in self._ports.items()
                if group_id in port.groups or group_id in self._remotes(port.groups)
            )

    def forget_unused(self) -> None:
        """Nothing says that a group was deleted, but that no port here needs it any more."""
        with self._lock:
            used = {group for port in self._ports.values() for group in port.groups}
            remotes = self._remotes(used)
            self._groups = {id_: self._groups[id_] for id_ in self._groups.keys() & used}
            self._members = {id_: self._members[id_] for id_ in self._members.keys() & remotes}

    # What is asked.

    def revisions(self, port_id: str) -> dict[str, int]:
        """Of each of the port's groups, which rules were told of it (:mod:`.revision`)."""
        with self._lock:
            port = self._ports.get(port_id)
            groups = parsing.groups_of(port.raw) if port is not None else ()
            return {id_: self._groups[id_][1].revision for id_ in groups if id_ in self._groups}

    def known(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._ports)

    def filtered(self) -> dict[str, dict[str, Any]]:
        """The dicts of the ports that are filtered."""
        with self._lock:
            return {
                port_id: dict(port.raw)
                for port_id, port in self._ports.items()
                if port.raw and port.filtered
            }

    def members_of(self, groups: Collection[str]) -> frozenset[str]:
        """The ports here that have one of these security groups."""
        with self._lock:
            return frozenset(
                port_id
                for port_id, port in self._ports.items()
                if not set(port.groups).isdisjoint(groups)
            )

    def get(self, port_id: str) -> Port | None:
        with self._lock:
            return self._ports.get(port_id)

    def versions(self, port_id: str) -> tuple[int, int]:
        """Of the port and everything its rules depend on, and of the port alone; 0 for a port
        nobody told of."""
        with self._lock:
            port = self._ports.get(port_id)
            if port is None:
                return 0, 0
            versions = [port.version]
            versions += [self._groups[each][0] for each in port.groups if each in self._groups]
            remotes = self._remotes(port.groups)
            versions += [self._members[each][0] for each in remotes if each in self._members]
            return max(versions), port.version

    def wanted(self, interfaces: Mapping[str, Interface]) -> Wanted:
        """The desired state of the ports that have an interface here, and of all it refers to."""
        with self._lock:
            specs: dict[str, PortSpec] = {}
            refused: dict[str, TaskError] = {}
            for port_id, interface in interfaces.items():
                port = self._ports.get(port_id)
                if port is None:
                    continue
                spec, error = self._spec(port_id, port, interface)
                if spec is not None:
                    specs[port_id] = spec
                elif error is not None:
                    refused[port_id] = error
            groups = {each for spec in specs.values() for each in spec.security_groups}
            return Wanted(self._state(specs, groups), refused)

    def _spec(
        self, port_id: str, port: Port, interface: Interface
    ) -> tuple[PortSpec | None, TaskError | None]:
        if port.refused is not None:
            return None, port.refused
        if port.spec is None:
            try:
                trusted = parsing.trusted_port(port_id, interface.mac, self._host)
            except Invalid as exc:
                return None, parsing.refused_port(port_id, exc)
            return dataclasses.replace(trusted, network=interface.network), None
        groups = {id_: self._groups[id_][1] for id_ in port.groups if id_ in self._groups}
        error = next((each.refused for each in groups.values() if each.refused), None)
        if error is not None and port.filtered:
            return None, error
        # A group without rules allows nothing, so the port does without it: whether a group is
        # stateful is said by its rules. One whose rules did not come yet is the same until they do.
        ruled = tuple(id_ for id_ in port.groups if id_ in groups and groups[id_].rules)
        spec = dataclasses.replace(port.spec, network=interface.network, security_groups=ruled)
        return spec, None

    def _state(self, ports: Mapping[str, PortSpec], groups: Set[str]) -> DesiredState:
        security_groups: dict[str, SecurityGroupSpec] = {}
        address_groups: dict[str, AddressGroupSpec] = {}
        remotes = {
            id_
            for group in groups & self._groups.keys()
            for rule in self._groups[group][1].rules
            if (id_ := rule.remote_group_id)
        }
        # A group whose members did not come yet has none until they do.
        for group in (groups & self._groups.keys()) | remotes:
            version, content = self._groups.get(group, (0, Group()))
            others = [self._members[each][0] for each in content.remotes if each in self._members]
            _, known = self._members.get(group, (0, NO_MEMBERS))
            security_groups[group] = SecurityGroupSpec(
                group, max([version, *others]), content.stateful, content.rules, known.all
            )
        for group in self._remotes(groups) - remotes:
            _, known = self._members.get(group, (0, NO_MEMBERS))
            addresses = tuple(each.address for each in known.all)
            address_groups[group] = AddressGroupSpec(group, addresses)
        return DesiredState(ports, security_groups, address_groups)

    def _remotes(self, groups: Iterable[str]) -> frozenset[str]:
        """The groups that the rules of ``groups`` refer to."""
        known: Collection[Group] = [
            self._groups[each][1] for each in groups if each in self._groups
        ]
        return frozenset().union(*(each.remotes for each in known))


def _log_left_out(before: Port | Group | Members | None, left_out: Iterable[str]) -> None:
    """Each item once, however often the agent says it."""
    known = before.left_out if before is not None else ()
    for line in left_out:
        if line not in known:
            LOG.warning("%s", line)
