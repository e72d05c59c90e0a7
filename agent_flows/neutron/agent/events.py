"""Events about ports and groups, from the agent and the server, handled in order by one thread."""

import queue
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pydantic
from oslo_log import log

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.fairness import fair
from agent_flows.neutron.agent.quarantine import Endpoint
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles, described
from agent_flows.validation import Invalid, Mac, parse

LOG = log.getLogger(__name__)

_MAC: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Mac)


@dataclass(frozen=True)
class PortUpdated:
    """A port was bound or changed; its details as handle_port gets them
    (neutron/plugins/ml2/drivers/openvswitch/agent/ovs_neutron_agent.py)."""

    details: Mapping[str, Any]

    @property
    def port_id(self) -> str:
        return str(self.details.get("port_id"))


@dataclass(frozen=True)
class PortDeleted:
    port_id: str


@dataclass(frozen=True)
class Resync:
    """None: all ports."""

    port_ids: Collection[str] | None


@dataclass(frozen=True)
class RulesChanged:
    group_id: str


Event = PortUpdated | PortDeleted | Resync | RulesChanged


def updated(events: Iterable[Event]) -> list[PortUpdated]:
    """The last update of every port that was not deleted after it."""
    updates: dict[str, PortUpdated] = {}
    for event in events:
        match event:
            case PortUpdated():
                updates[event.port_id] = event
            case PortDeleted(port_id):
                updates.pop(port_id, None)
    return list(updates.values())


def endpoint(event: PortUpdated) -> Endpoint:
    """The port as the quarantine closes it: without a local VLAN by ofport alone, and without MACs
    that are invalid or multicast. Raises what invalid details make it raise."""
    port_id, details = event.port_id, event.details
    ofport, vlan = int(details["vif_port"].ofport), details.get("local_vlan")
    if vlan is None:
        return Endpoint(port_id, ofport)
    pairs = details.get("allowed_address_pairs") or ()
    own = details.get("mac_address")
    macs = frozenset(_macs([own, *(pair.get("mac_address") or own for pair in pairs)]))
    segment = None
    if details.get("physical_network"):
        segment = details.get("segmentation_id") or 0
    return Endpoint(port_id, ofport, vlan, macs, segment)


def _macs(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        try:
            yield parse(_MAC, str(value))
        except Invalid:
            continue


class Firewall(Protocol):
    """Our firewall driver, or the verifier of another one's work."""

    troubles: Troubles

    def report_to(self, reporting: Reporting) -> None: ...

    def waiting(self) -> int: ...

    def oldest(self) -> float | None: ...

    def audit_age(self) -> float | None: ...

    def quarantine(self, ports: Collection[Endpoint]) -> None: ...

    def handle(self, details: Mapping[str, Any]) -> None: ...

    def gone(self, port_id: str) -> None: ...

    def refresh(self, groups: Collection[str], info: SecurityGroupInfo) -> None: ...

    def resync(self, port_ids: Collection[str] | None = None) -> None: ...


class EventLoop:
    """An event whose handling raises does not hold up the others: it is logged, passed to
    ``failed``, and the host's trouble until a later event of that port or group is handled.

    ``firewall`` is called with the waiting events; they wait until it returns one.
    """

    def __init__(
        self,
        firewall: Callable[[Sequence[Event]], Firewall | None],
        info: SecurityGroupInfo,
        troubles: Troubles,
        failed: Callable[[PortUpdated, Exception], None],
    ) -> None:
        self._firewall, self._info, self._failed = firewall, info, failed
        self._troubles = troubles
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._waiting: list[Event] = []
        # What handling raised, by port or group.
        self._unhandled: dict[str, str] = {}
        self._loop = Loop("agent_flows ports", self._step, troubles, Trouble.CONTROL)

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End the thread after the events in progress."""
        self._loop.stopping.set()
        self._queue.put(None)
        self._loop.stop(timeout)

    def put(self, event: Event) -> None:
        """Returns at once."""
        self._queue.put(event)

    def _step(self) -> None:
        # Without a firewall the waiting events are tried again after the loop's backoff.
        new = [self._queue.get()] if not self._waiting else []
        while not self._queue.empty():
            new.append(self._queue.get())
        self._waiting += [event for event in new if event is not None]
        firewall = self._firewall(self._waiting)
        events, self._waiting = self._waiting, []
        if firewall is not None:
            self._handle(firewall, events)

    def _handle(self, firewall: Firewall, events: Sequence[Event]) -> None:
        invalid = self._close_new(firewall, events)
        for event in fair(events):
            match event:
                case PortUpdated(details):
                    if event.port_id not in invalid:
                        self._try(event.port_id, partial(firewall.handle, details), event)
                case PortDeleted(port_id):
                    self._try(port_id, partial(firewall.gone, port_id))
                case Resync(port_ids):
                    self._try("resync", partial(firewall.resync, port_ids))
        groups = sorted({event.group_id for event in events if isinstance(event, RulesChanged)})
        if groups and not self._refresh(firewall, groups):
            for group in groups:
                self._try(group, partial(firewall.refresh, [group], self._info))
        self._report_troubles()

    def _close_new(self, firewall: Firewall, events: Sequence[Event]) -> set[str]:
        """Close new ports in one bundle; if the switch refuses it, each by itself, since one of
        them may be the cause. Returns the ports with invalid details."""
        ports: dict[str, Endpoint] = {}
        updates = updated(events)
        for event in fair(updates):
            self._try(event.port_id, partial(_add, ports, event), event)
        try:
            firewall.quarantine(list(ports.values()))
        except TaskFailed as exc:
            # The ports' flow reports say why: the firewall closes the ports that fail, too.
            LOG.error("Could not close %d new ports: %s (%s)", len(ports), exc, exc.error.detail)
            if len(ports) > 1 and exc.error.type != ErrorType.TIMEOUT:
                for port in ports.values():
                    self._close_alone(firewall, port)
        return {event.port_id for event in updates} - ports.keys()

    def _close_alone(self, firewall: Firewall, port: Endpoint) -> None:
        try:
            firewall.quarantine([port])
        except TaskFailed as exc:
            LOG.error("Could not close new port %s: %s", port.port_id, exc)

    def _refresh(self, firewall: Firewall, groups: Sequence[str]) -> bool:
        try:
            firewall.refresh(groups, self._info)
        except Exception:
            LOG.exception("Could not refresh %d security groups; trying each one", len(groups))
            return False
        for group in groups:
            self._unhandled.pop(group, None)
        return True

    def _try(
        self, subject: str, handle: Callable[[], None], event: PortUpdated | None = None
    ) -> None:
        try:
            handle()
        # The one door that keeps the thread alive; it ends in the host's trouble, and in a report
        # of the port if there is one.
        except Exception as exc:
            LOG.exception("Could not handle an event of %s", subject)
            self._unhandled[subject] = described(exc)
            if event is not None:
                self._failed(event, exc)
        else:
            self._unhandled.pop(subject, None)

    def _report_troubles(self) -> None:
        if not self._unhandled:
            self._troubles.clear(Trouble.PORTS)
            return
        subject, reason = next(iter(self._unhandled.items()))
        more = f" and {len(self._unhandled) - 1} more" if len(self._unhandled) > 1 else ""
        self._troubles.report(
            Trouble.PORTS, f"could not handle an event of {subject}{more}: {reason}"
        )


def _add(ports: dict[str, Endpoint], event: PortUpdated) -> None:
    ports[event.port_id] = endpoint(event)
