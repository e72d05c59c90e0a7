"""The agent's resource cache (neutron/agent/resource_cache.py), to which the server pushes what
changes: how it is read, what it says of security groups, and at which revisions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import oslo_messaging
from neutron.api.rpc.callbacks import resources
from neutron.api.rpc.handlers.securitygroups_rpc import SecurityGroupServerAPIShim
from neutron_lib import context
from oslo_log import log

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.neutron import parsing, rules_digest
from agent_flows.report import TaskError
from agent_flows.supervision import described

LOG = log.getLogger(__name__)

T = TypeVar("T")

_READINGS = 5


def steadily(read: Callable[[], T]) -> T:
    """What ``read`` finds in the cache, though other threads write to it meanwhile.

    Going through it then ends in a RuntimeError ("dictionary changed size"),
    and works the next time.
    """
    for _ in range(_READINGS - 1):
        try:
            return read()
        except RuntimeError:
            continue
    return read()


@dataclass(frozen=True)
class Known:
    """What the cache has of some ports' groups, in the words in which firewall drivers are told
    (``security_group_info_for_ports``), and of which ports it cannot be read."""

    devices: Mapping[str, Mapping[str, Any]]
    security_groups: Mapping[str, Sequence[Mapping[str, Any]]]
    members: Mapping[str, Mapping[str, Any]]
    unreadable: Mapping[str, TaskError]


class SecurityGroupInfo(SecurityGroupServerAPIShim):  # type: ignore[misc]  # untyped
    """What ``cache`` knows of ports' groups."""

    def __init__(self, cache: Any) -> None:
        # Not the parent's: it subscribes for good, so that every change would be handled twice.
        self.rcache = cache
        # What was logged last of each port that cannot be read: it is asked for time and again.
        self._logged: dict[str, str] = {}

    def of(self, port_ids: Sequence[str]) -> Known:
        """All that these ports' filters follow from; a trusted port is in none of it.

        Neutron's code raises for all of them if one refers to a group that is gone, so then each
        is asked for alone. Raises :class:`TaskFailed` if the server had to be asked and does not
        answer.
        """
        try:
            told = self._of(port_ids)
        except TaskFailed:
            raise
        # Whatever the cache makes of it: it is the outcome of the port concerned.
        except Exception as exc:  # noqa: BLE001
            if len(port_ids) != 1:
                return _joined([self.of([port_id]) for port_id in port_ids])
            return self._unreadable(port_ids[0], exc)
        for port_id in port_ids:
            self._logged.pop(port_id, None)
        return Known(told["devices"], told["security_groups"], told["sg_member_ips"], {})

    def _unreadable(self, port_id: str, exc: Exception) -> Known:
        said = described(exc)
        if self._logged.get(port_id) != said:
            self._logged[port_id] = said
            LOG.error("The security groups of port %s cannot be read", port_id, exc_info=exc)
        error = TaskError(
            ErrorType.GROUPS_UNREADABLE, f"the port's security groups cannot be read: {said}"
        )
        return Known({}, {}, {}, {port_id: error})

    def _of(self, port_ids: Sequence[str]) -> dict[str, Any]:
        admin = context.get_admin_context()
        try:
            told: dict[str, Any] = steadily(
                lambda: self.security_group_info_for_devices(admin, list(port_ids))
            )
        except oslo_messaging.MessagingException as exc:
            error = TaskError(
                ErrorType.NEUTRON_UNREACHABLE,
                "could not read the port's security groups from neutron-server",
                f"{type(exc).__name__}: {exc}",
            )
            raise TaskFailed(error, whole_batch=True) from exc
        return told

    def device(self, port_id: str) -> dict[str, Any]:
        """The port's dict alone; empty for a trusted port."""
        admin = context.get_admin_context()
        found: dict[str, dict[str, Any]] = steadily(
            lambda: self._get_devices_info(admin, [port_id])
        )
        return found.get(port_id, {})


def _joined(parts: Sequence[Known]) -> Known:
    members: dict[str, dict[str, Any]] = {}
    for part in parts:
        # Each part has the families that its own ports' rules need.
        for group, families in part.members.items():
            members.setdefault(group, {}).update(families)
    return Known(
        {id_: each for part in parts for id_, each in part.devices.items()},
        {id_: each for part in parts for id_, each in part.security_groups.items()},
        members,
        {id_: each for part in parts for id_, each in part.unreadable.items()},
    )


class CachedRevisions:
    """The revisions of ports and groups, as ``info`` has them now."""

    def __init__(self, info: SecurityGroupInfo) -> None:
        self._info, self._cache = info, info.rcache

    def port(self, port_id: str) -> int:
        """0 for one that the server does not know (any more)."""
        found = self._cache.get_resource_by_id(resources.PORT, port_id)
        return 0 if found is None else int(found.revision_number)

    def port_as_told(self, port_id: str, told: Mapping[str, Any]) -> int:
        """The revision that a driver is about that was ``told`` this of the port.

        The cache may have it at a higher one by now: of the same wiring (only
        a name or the status is another one), or of one the driver does not
        know yet. Of a trusted port a driver is told nothing.
        """
        then = told.get("revision_number")
        try:
            now = self.port(port_id)
            if not isinstance(then, int) or now in (then, 0):
                return now
            latest = self._info.device(port_id)
        except oslo_messaging.MessagingException:
            # No longer in the cache, and the server does not answer: it has not heard of more.
            return then if isinstance(then, int) else 0
        return int(latest["revision_number"]) if parsing.same_wiring(told, latest) else then

    def group(self, group_id: str) -> int:
        wanted = {"security_group_id": (group_id,)}
        return rules_digest.of_objects(
            steadily(lambda: self._cache.get_resources(resources.SECURITYGROUPRULE, wanted))
        )
