"""Reads the agent's resource cache (neutron/agent/resource_cache.py), to which the server pushes
changes: ports' security groups, and revisions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import oslo_messaging
from neutron.api.rpc.callbacks import resources
from neutron.api.rpc.handlers.securitygroups_rpc import SecurityGroupServerAPIShim
from neutron_lib import context
from oslo_log import log

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.fairness import fair, give_way
from agent_flows.neutron import parsing, rules_digest
from agent_flows.report import TaskError
from agent_flows.supervision import described

LOG = log.getLogger(__name__)

T = TypeVar("T")

_READINGS = 5


def retry_read(read: Callable[[], T]) -> T:
    """The result of ``read``, which is repeated if another thread writes to the cache at the same
    time (RuntimeError: "dictionary changed size")."""
    for _ in range(_READINGS - 1):
        try:
            return read()
        except RuntimeError:
            continue
    return read()


@dataclass(frozen=True)
class Known:
    """Some ports and their groups, in the form that firewall drivers get
    (``security_group_info_for_ports``), and the ports that cannot be read."""

    devices: Mapping[str, Mapping[str, Any]]
    security_groups: Mapping[str, Sequence[Mapping[str, Any]]]
    members: Mapping[str, Mapping[str, Any]]
    unreadable: Mapping[str, TaskError]


class _FairCache:
    """Lets others run between two resources that are read: a host may have many ports, a group many
    members, and reading an attribute of Neutron's objects is slow."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def get_resource_by_id(self, kind: str, resource_id: str) -> Any:
        give_way()
        return self._cache.get_resource_by_id(kind, resource_id)

    def get_resources(self, kind: str, filters: Mapping[str, tuple[str, ...]]) -> Iterable[Any]:
        give_way()
        return fair(self._cache.get_resources(kind, filters))


class SecurityGroupInfo(SecurityGroupServerAPIShim):  # type: ignore[misc]  # untyped
    """Ports and their groups, as ``cache`` has them."""

    def __init__(self, cache: Any) -> None:
        # Not the parent's __init__: it subscribes to changes, which would be handled twice.
        self.rcache = _FairCache(cache)
        # The last logged error of each unreadable port, as every read repeats it.
        self._logged: dict[str, str] = {}

    def of(self, port_ids: Sequence[str]) -> Known:
        """All that determines these ports' filters; trusted ports are left out.

        Neutron's code raises for all of them if one refers to a deleted group; then each port is
        read by itself. Raises :class:`TaskFailed` if the cache had to ask the server and it does
        not answer.
        """
        try:
            info = self._of(port_ids)
        except TaskFailed:
            raise
        # Any error of Neutron's code is the outcome of the port concerned.
        except Exception as exc:  # noqa: BLE001
            if len(port_ids) != 1:
                return _joined([self.of([port_id]) for port_id in port_ids])
            return self._unreadable(port_ids[0], exc)
        for port_id in port_ids:
            self._logged.pop(port_id, None)
        return Known(info["devices"], info["security_groups"], info["sg_member_ips"], {})

    def _unreadable(self, port_id: str, exc: Exception) -> Known:
        reason = described(exc)
        if self._logged.get(port_id) != reason:
            self._logged[port_id] = reason
            LOG.error("The security groups of port %s cannot be read", port_id, exc_info=exc)
        error = TaskError(
            ErrorType.GROUPS_UNREADABLE, f"the port's security groups cannot be read: {reason}"
        )
        return Known({}, {}, {}, {port_id: error})

    def _of(self, port_ids: Sequence[str]) -> dict[str, Any]:
        admin = context.get_admin_context()
        try:
            return retry_read(lambda: self.security_group_info_for_devices(admin, list(port_ids)))
        except oslo_messaging.MessagingException as exc:
            error = TaskError(
                ErrorType.NEUTRON_UNREACHABLE,
                "could not read the port's security groups from neutron-server",
                f"{type(exc).__name__}: {exc}",
            )
            raise TaskFailed(error, whole_batch=True) from exc

    def device(self, port_id: str) -> dict[str, Any]:
        """The port's dict; empty for a trusted port."""
        admin = context.get_admin_context()
        found: dict[str, dict[str, Any]] = retry_read(
            lambda: self._get_devices_info(admin, [port_id])
        )
        return found.get(port_id, {})

    # What Neutron's security_group_info_for_ports calls, and goes through.

    def _select_rules_for_ports(
        self, context: object, ports: Mapping[str, Mapping[str, Any]]
    ) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Each port with each of its rules. Neutron's method reads a rule once for each port."""
        return fair(self._rules_of(ports))

    def _rules_of(
        self, ports: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        rules: dict[str, list[Mapping[str, Any]]] = {}
        for port_id, port in ports.items():
            for group in port["security_group_ids"]:
                if group not in rules:
                    of_group = {"security_group_id": (group,)}
                    found = self.rcache.get_resources(resources.SECURITYGROUPRULE, of_group)
                    rules[group] = [rule.to_dict() for rule in found]
                for rule in rules[group]:
                    yield port_id, rule

    def _select_ips_for_remote_group(
        self, context: object, groups: Iterable[str]
    ) -> dict[str, Iterable[tuple[str, str]]]:
        found = super()._select_ips_for_remote_group(context, groups)
        return {group: fair(members) for group, members in found.items()}

    def _select_ips_for_remote_address_group(
        self, context: object, groups: Iterable[str]
    ) -> dict[str, Iterable[tuple[str, None]]]:
        found = super()._select_ips_for_remote_address_group(context, groups)
        return {group: fair(addresses) for group, addresses in found.items()}


def _joined(parts: Sequence[Known]) -> Known:
    members: dict[str, dict[str, Any]] = {}
    for part in parts:
        # Each part has only the families that its own ports' rules need.
        for group, families in part.members.items():
            members.setdefault(group, {}).update(families)
    return Known(
        {id_: device for part in parts for id_, device in part.devices.items()},
        {id_: rules for part in parts for id_, rules in part.security_groups.items()},
        members,
        {id_: error for part in parts for id_, error in part.unreadable.items()},
    )


class CachedRevisions:
    """The current revisions of ports and groups in the cache."""

    def __init__(self, info: SecurityGroupInfo) -> None:
        self._info, self._cache = info, info.rcache

    def port(self, port_id: str) -> int:
        """0 for a port that the server does not know."""
        found = self._cache.get_resource_by_id(resources.PORT, port_id)
        return 0 if found is None else int(found.revision_number)

    def of_details(self, port_id: str, details: Mapping[str, Any]) -> int:
        """The port's revision that a driver applies if it got these ``details``, which are empty
        for a trusted port.

        The cached revision may be higher: of the same wiring (only the name or
        the status changed), or of a wiring that the driver does not know yet.
        """
        then = details.get("revision_number")
        try:
            now = self.port(port_id)
            if not isinstance(then, int) or now in (then, 0):
                return now
            latest = self._info.device(port_id)
        except oslo_messaging.MessagingException:
            # Not cached, and the server does not answer.
            return then if isinstance(then, int) else 0
        return int(latest["revision_number"]) if parsing.same_wiring(details, latest) else then

    def group(self, group_id: str) -> int:
        of_group = {"security_group_id": (group_id,)}
        return rules_digest.of_objects(
            retry_read(lambda: self._cache.get_resources(resources.SECURITYGROUPRULE, of_group))
        )
