"""What is asked about a firewall driver other than ours: did it install what it must?"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from oslo_log import log

from agent_flows.engine.runner import error_of
from agent_flows.errors import ErrorType
from agent_flows.neutron.interfaces import Interface
from agent_flows.report import TaskError

LOG = log.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """What is wrong with a port's filter: flows or rules that are missing, and surplus ones."""

    missing: TaskError | None = None
    surplus: TaskError | None = None

    @property
    def good(self) -> bool:
        return self.missing is None and self.surplus is None


class Inspector(Protocol):
    """Inspects what one kind of firewall driver installed on this host; changes nothing. Methods
    raise :class:`TaskFailed` if they cannot read it."""

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        """The finding of each port; ``ports`` are their interfaces."""
        ...

    def leftovers(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        """What is still installed for ports that are gone; ``ofports`` are those they had."""
        ...


def inspect_each(port_ids: Iterable[str], judge: Callable[[str], Finding]) -> dict[str, Finding]:
    """What ``judge`` finds for each port; an exception that it raises is that port's finding."""
    findings = {}
    for port_id in port_ids:
        try:
            findings[port_id] = judge(port_id)
        # Neutron's generators raise any exception for data they do not expect. If it lasts, it
        # becomes the port's outcome, traceback included.
        except Exception as exc:  # noqa: BLE001
            LOG.debug("Port %s cannot be inspected: %s", port_id, exc)
            findings[port_id] = Finding(missing=error_of(exc))
    return findings


class NoFirewall:
    """No port of this host is filtered: ``noop``, or ``enable_security_group`` is off.

    Such a driver installs nothing, so nothing can be missing and no port waits for it.
    """

    def __init__(self, why: str) -> None:
        LOG.warning("Security groups are not enforced on this host: %s", why)

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        return dict.fromkeys(ports, Finding())

    def leftovers(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        return {}


class UnknownFirewall:
    """A driver of which it is not known what it installs: none of its ports is ever proven."""

    def __init__(self, name: str) -> None:
        self._error = TaskError(
            ErrorType.UNKNOWN_FIREWALL_DRIVER,
            f"it is not known what firewall_driver = {name} installs, so it cannot be verified",
        )

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        return dict.fromkeys(ports, Finding(missing=self._error))

    def leftovers(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        return {}
