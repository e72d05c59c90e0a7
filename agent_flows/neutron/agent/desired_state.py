"""Ports, rules and members as the agent last passed them in, and the desired state they make."""

import dataclasses
import itertools
import threading
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from oslo_log import log

from agent_flows.fairness import fair
from agent_flows.neutron import parsing
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.parsing import NO_MEMBERS, Group, Members
from agent_flows.report import TaskError
from agent_flows.spec import AddressGroupSpec, DesiredState, PortSpec, SecurityGroupSpec
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

T = TypeVar("T", Group, Members)


@dataclass(frozen=True)
class Port:
    """A port as the agent passed it in, and its spec.

    ``raw`` is Neutron's dict, empty for a trusted port, of which only the id is
    known. ``version`` rises when the port itself changes. ``left_out``: one
    line for each item of it that could not be used.
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
        """The MAC addresses it may send from, as far as they are known."""
        return frozenset() if self.spec is None else parsing.macs_of(self.spec)

    @property
    def groups(self) -> tuple[str, ...]:
        return self.spec.security_groups if self.spec is not None else ()


@dataclass(frozen=True)
class Resolved:
    """The desired state of some ports; those in ``refused`` are invalid."""

    state: DesiredState
    refused: Mapping[str, TaskError] = field(default_factory=dict)


class DesiredPorts:
    """Safe from any thread. Every change takes a new version: equal versions mean no change."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._lock = threading.RLock()
        self._versions = itertools.count(1)
        self._ports: dict[str, Port] = {}
        self._groups: dict[str, tuple[int, Group]] = {}
        self._members: dict[str, tuple[int, Members]] = {}

    # Changes.

    def set_port(self, raw: Mapping[str, Any]) -> None:
        """``raw``: the dict that firewall drivers get; ``device`` is the port's id."""
        port_id = str(raw["device"])
        try:
            read = parsing.port(raw, self._host)
        except Invalid as exc:
            self._set(port_id, raw, None, parsing.refused_port(port_id, exc))
        else:
            self._set(port_id, raw, read.spec, None, read.left_out)

    def set_trusted(self, port_id: str) -> None:
        """A port without filter, of which nothing else is known."""
        self._set(port_id, {}, None, None)

    def _set(
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

    def remove(self, port_id: str) -> None:
        with self._lock:
            self._ports.pop(port_id, None)

    def set_rules(self, name: object, raw: object) -> frozenset[str]:
        """A security group's rules. Returns the ports concerned; raises :class:`Invalid`."""
        return self._replace(self._groups, parsing.group_id(name), parsing.group(name, raw))

    def set_members(self, name: object, raw: object) -> frozenset[str]:
        """The members of a security or address group. Returns the ports concerned; raises
        :class:`Invalid`."""
        group_id = parsing.group_id(name)
        with self._lock:
            _, before = self._members.get(group_id, (0, NO_MEMBERS))
            return self._replace(self._members, group_id, parsing.members(name, raw, before))

    def _replace(self, known: dict[str, tuple[int, T]], group_id: str, new: T) -> frozenset[str]:
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
        """Drop the groups that no port here uses: a deleted group is not announced."""
        with self._lock:
            used = {group for port in self._ports.values() for group in port.groups}
            remotes = self._remotes(used)
            self._groups = {id_: self._groups[id_] for id_ in self._groups.keys() & used}
            self._members = {id_: self._members[id_] for id_ in self._members.keys() & remotes}

    # Questions.

    def group_revisions(self, port_id: str) -> dict[str, int]:
        """The rules of the port's groups, by group (:mod:`agent_flows.neutron.rules_digest`)."""
        with self._lock:
            port = self._ports.get(port_id)
            groups = parsing.groups_of(port.raw) if port is not None else ()
            return {id_: self._groups[id_][1].revision for id_ in groups if id_ in self._groups}

    def port_ids(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._ports)

    def filtered_ports(self) -> dict[str, Mapping[str, Any]]:
        """The dicts of filtered ports, by port id."""
        with self._lock:
            return {
                port_id: port.raw
                for port_id, port in self._ports.items()
                if port.raw and port.filtered
            }

    def samples(self, groups: Collection[str]) -> frozenset[str]:
        """Of the ports that have the same security groups, among them one of ``groups``, one."""
        with self._lock:
            found = {
                port.groups: port_id
                for port_id, port in self._ports.items()
                if not set(port.groups).isdisjoint(groups)
            }
        return frozenset(found.values())

    def get(self, port_id: str) -> Port | None:
        with self._lock:
            return self._ports.get(port_id)

    def versions(self, port_id: str) -> tuple[int, int]:
        """The version of the port with all that its rules depend on, and of the port alone; 0 for
        an unknown port."""
        with self._lock:
            port = self._ports.get(port_id)
            if port is None:
                return 0, 0
            versions = [port.version]
            versions += [self._groups[id_][0] for id_ in port.groups if id_ in self._groups]
            remotes = self._remotes(port.groups)
            versions += [self._members[id_][0] for id_ in remotes if id_ in self._members]
            return max(versions), port.version

    def resolve(self, interfaces: Mapping[str, Interface]) -> Resolved:
        """The desired state of the ports with one of ``interfaces``, and of their groups."""
        with self._lock:
            specs: dict[str, PortSpec] = {}
            refused: dict[str, TaskError] = {}
            for port_id, interface in fair(interfaces.items()):
                port = self._ports.get(port_id)
                if port is None:
                    continue
                found = self._spec(port_id, port, interface)
                if isinstance(found, TaskError):
                    refused[port_id] = found
                else:
                    specs[port_id] = found
            groups = {id_ for spec in specs.values() for id_ in spec.security_groups}
            return Resolved(self._state(specs, groups), refused)

    def _spec(self, port_id: str, port: Port, interface: Interface) -> PortSpec | TaskError:
        if port.refused is not None:
            return port.refused
        if port.spec is None:
            try:
                trusted = parsing.trusted_port(port_id, interface.mac, self._host)
            except Invalid as exc:
                return parsing.refused_port(port_id, exc)
            return dataclasses.replace(trusted, network=interface.network)
        groups = {id_: self._groups[id_][1] for id_ in port.groups if id_ in self._groups}
        error = next((group.refused for group in groups.values() if group.refused), None)
        if error is not None and port.filtered:
            return error
        # Only rules state whether a group is stateful. One without rules, or whose rules have not
        # come yet, allows nothing: the port does without it.
        ruled = tuple(id_ for id_ in port.groups if id_ in groups and groups[id_].rules)
        return dataclasses.replace(port.spec, network=interface.network, security_groups=ruled)

    def _state(self, ports: Mapping[str, PortSpec], groups: Set[str]) -> DesiredState:
        security_groups: dict[str, SecurityGroupSpec] = {}
        address_groups: dict[str, AddressGroupSpec] = {}
        remotes = {
            id_
            for group in groups & self._groups.keys()
            for rule in self._groups[group][1].rules
            if (id_ := rule.remote_group_id)
        }
        # A group has no members until they come.
        for group in (groups & self._groups.keys()) | remotes:
            version, content = self._groups.get(group, (0, Group()))
            others = [self._members[id_][0] for id_ in content.remotes if id_ in self._members]
            _, known = self._members.get(group, (0, NO_MEMBERS))
            security_groups[group] = SecurityGroupSpec(
                group, max([version, *others]), content.stateful, content.rules, known.all
            )
        for group in self._remotes(groups) - remotes:
            _, known = self._members.get(group, (0, NO_MEMBERS))
            addresses = tuple(member.address for member in known.all)
            address_groups[group] = AddressGroupSpec(group, addresses)
        return DesiredState(ports, security_groups, address_groups)

    def _remotes(self, groups: Iterable[str]) -> frozenset[str]:
        """The groups that the rules of ``groups`` refer to."""
        known = (self._groups[id_][1] for id_ in groups if id_ in self._groups)
        return frozenset().union(*(group.remotes for group in known))


def _log_left_out(before: Port | Group | Members | None, left_out: Iterable[str]) -> None:
    """Once per item, however often the agent repeats it."""
    known = before.left_out if before is not None else ()
    for line in left_out:
        if line not in known:
            LOG.warning("%s", line)
