"""What the agent's resource cache says of security groups, in the words its drivers are told."""

from typing import Any

import oslo_messaging
from neutron.api.rpc.handlers.securitygroups_rpc import SecurityGroupServerAPIShim
from neutron_lib import context

from agent_flows.flows.task import TaskFailed
from agent_flows.report import TaskError

_READINGS = 5


class SecurityGroupInfo(SecurityGroupServerAPIShim):  # type: ignore[misc]  # untyped
    """What Neutron's cache knows of ports' groups, in the words in which its drivers are told."""

    def __init__(self, cache: Any) -> None:
        # Not the parent's: it subscribes for good, so that every change would be handled twice.
        self.rcache = cache

    def of(self, port_ids: list[str]) -> dict[str, Any]:
        """``devices``, ``security_groups`` and ``sg_member_ips``.

        Raises :class:`TaskFailed` if the server had to be asked and does not
        answer.
        """
        for _ in range(_READINGS - 1):
            try:
                return self._read(port_ids)
            except RuntimeError:
                # The cache was changed by another thread while this one went through it.
                continue
        return self._read(port_ids)

    def _read(self, port_ids: list[str]) -> dict[str, Any]:
        try:
            told: dict[str, Any] = self.security_group_info_for_devices(
                context.get_admin_context(), port_ids
            )
        except oslo_messaging.MessagingException as exc:
            error = TaskError(
                "NeutronUnreachable",
                "neutron-server does not tell what the port's groups are",
                f"{type(exc).__name__}: {exc}",
            )
            raise TaskFailed(error, whole_batch=True) from exc
        return told
