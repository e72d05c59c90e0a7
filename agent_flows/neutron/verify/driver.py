"""What is asked of a firewall driver that is not ours: did it leave what it must have?"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from oslo_log import log

from agent_flows.engine.runner import error_of
from agent_flows.neutron.interfaces import Interface
from agent_flows.report import TaskError

LOG = log.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """What is wrong with a port's filter: what it lacks, and what it has too much."""

    missing: TaskError | None = None
    surplus: TaskError | None = None

    @property
    def good(self) -> bool:
        return self.missing is None and self.surplus is None


class OtherDriver(Protocol):
    """One that is loaded in this process. Methods only look; they raise :class:`TaskFailed`
    where they cannot look at all."""

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        """Each of ``ports``, by where it is plugged in."""
        ...

    def left_over(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        """What still stands for ports that are gone, by the ofport they had."""
        ...


def each_alone(port_ids: Iterable[str], judge: Callable[[str], Finding]) -> dict[str, Finding]:
    """What ``judge`` finds for each port; an exception about one is what is wrong with that one."""
    findings = {}
    for port_id in port_ids:
        try:
            findings[port_id] = judge(port_id)
        # Neutron's generators raise what they like for data they do not expect. It is the port's
        # outcome, traceback included, if it lasts.
        except Exception as exc:  # noqa: BLE001
            LOG.debug("What port %s must have cannot be said: %s", port_id, exc)
            findings[port_id] = Finding(missing=error_of(exc))
    return findings


class NoFirewall:
    """The operator wants no filter on this host: ``noop``, or ``enable_security_group`` is off.

    There is nothing that such a driver must have left, so nothing can be
    missing. Its ports are not to wait for what nobody will ever do.
    """

    def __init__(self, why: str) -> None:
        LOG.warning("Security groups are not enforced on this host: %s", why)

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        return dict.fromkeys(ports, Finding())

    def left_over(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        return {}


class UnknownFirewall:
    """What somebody else's driver leaves is not known here, so no port of it is ever proven."""

    def __init__(self, name: str) -> None:
        self._error = TaskError(
            "UnknownFirewallDriver",
            f"what firewall_driver = {name} leaves in the switch cannot be verified",
        )

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        return dict.fromkeys(ports, Finding(missing=self._error))

    def left_over(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        return {}
