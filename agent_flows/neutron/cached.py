"""The agent's resource cache (neutron/agent/resource_cache.py), to which the server pushes what
changes: how it is read, what it says of security groups, and at which revisions."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import oslo_messaging
from neutron.api.rpc.callbacks import resources
from neutron.api.rpc.handlers.securitygroups_rpc import SecurityGroupServerAPIShim
from neutron_lib import context

from agent_flows.flows.task import TaskFailed
from agent_flows.neutron import desired, revision
from agent_flows.report import TaskError

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


class SecurityGroupInfo(SecurityGroupServerAPIShim):  # type: ignore[misc]  # untyped
    """What ``cache`` knows of ports' groups, in the words in which firewall drivers are told."""

    def __init__(self, cache: Any) -> None:
        # Not the parent's: it subscribes for good, so that every change would be handled twice.
        self.rcache = cache

    def of(self, port_ids: list[str]) -> dict[str, Any]:
        """``devices``, ``security_groups`` and ``sg_member_ips``.

        Raises :class:`TaskFailed` if the server had to be asked and does not
        answer.
        """
        admin = context.get_admin_context()
        try:
            told: dict[str, Any] = steadily(
                lambda: self.security_group_info_for_devices(admin, port_ids)
            )
        except oslo_messaging.MessagingException as exc:
            error = TaskError(
                "NeutronUnreachable",
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
        return int(latest["revision_number"]) if desired.same_wiring(told, latest) else then

    def group(self, group_id: str) -> int:
        wanted = {"security_group_id": (group_id,)}
        return revision.of_objects(
            steadily(lambda: self._cache.get_resources(resources.SECURITYGROUPRULE, wanted))
        )
