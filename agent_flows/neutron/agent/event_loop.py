"""What the agent and the server said of ports, acted upon in order by one thread of ours."""

import queue
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from oslo_log import log

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.neutron.agent import port_events
from agent_flows.neutron.agent.port_events import Event, Gone, Here, Resync, Rules
from agent_flows.neutron.agent.quarantine import Closed
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles, described

LOG = log.getLogger(__name__)


class Firewall(Protocol):
    """Our firewall driver, or what watches another one's work."""

    troubles: Troubles

    def report_to(self, reporting: Reporting) -> None: ...

    def quarantine(self, ports: Collection[Closed]) -> None: ...

    def handle(self, details: Mapping[str, Any]) -> None: ...

    def gone(self, port_id: str) -> None: ...

    def refresh(self, groups: Collection[str], info: SecurityGroupInfo) -> None: ...

    def resync(self, port_ids: Collection[str] | None = None) -> None: ...


class Events:
    """An event that cannot be acted upon is set aside: it is logged, given to ``failed``, and the
    host's trouble until one about the same port or group is acted upon. The others go on.

    ``firewall`` answers who acts, once it is known; None leaves events to wait. It is asked with
    the events that wait.
    """

    def __init__(
        self,
        firewall: Callable[[Sequence[Event]], Firewall | None],
        info: SecurityGroupInfo,
        troubles: Troubles,
        failed: Callable[[Here, Exception], None],
    ) -> None:
        self._firewall, self._info, self._failed = firewall, info, failed
        self._troubles = troubles
        self._heard: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._waiting: list[Event] = []
        # By port or group: what could not be acted upon.
        self._set_aside: dict[str, str] = {}
        self._loop = Loop("agent_flows ports", self._step, troubles, Trouble.CONTROL)

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End the thread after what is under way."""
        self._loop.stopping.set()
        self._heard.put(None)
        self._loop.stop(timeout)

    def put(self, event: Event) -> None:
        """Act upon ``event``, soon; returns at once."""
        self._heard.put(event)

    def _step(self) -> None:
        # What waits for a firewall that could not be made is taken up again at once.
        news = [self._heard.get()] if not self._waiting else []
        while not self._heard.empty():
            news.append(self._heard.get())
        self._waiting += [each for each in news if each is not None]
        firewall = self._firewall(self._waiting)
        events, self._waiting = self._waiting, []
        if firewall is not None:
            self._act(firewall, events)

    def _act(self, firewall: Firewall, events: Sequence[Event]) -> None:
        unusable = self._close(firewall, events)
        for each in events:
            match each:
                case Here(details):
                    if each.port_id not in unusable:
                        self._try(each.port_id, partial(firewall.handle, details), each)
                case Gone(port_id):
                    self._try(port_id, partial(firewall.gone, port_id))
                case Resync(port_ids):
                    self._try("resync", partial(firewall.resync, port_ids))
        groups = sorted({each.group_id for each in events if isinstance(each, Rules)})
        if groups and not self._refresh(firewall, groups):
            for group in groups:
                self._try(group, partial(firewall.refresh, [group], self._info))
        self._tell()

    def _close(self, firewall: Firewall, events: Sequence[Event]) -> set[str]:
        """Close ports that are new, all at once; if the switch refuses that, each alone, for it may
        be about one of them. The ports of which nothing can be made."""
        closed: dict[str, Closed] = {}
        here = port_events.arrived(events)
        for each in here:
            self._try(each.port_id, partial(_add, closed, each), each)
        try:
            firewall.quarantine(list(closed.values()))
        except TaskFailed as exc:
            # The firewall closes what it could not prove, too, and its outcome says why.
            LOG.error("New ports could not be closed: %s (%s)", exc, exc.error.detail)
            if len(closed) > 1 and exc.error.type != ErrorType.TIMEOUT:
                for port in closed.values():
                    self._close_alone(firewall, port)
        return {each.port_id for each in here} - closed.keys()

    def _close_alone(self, firewall: Firewall, port: Closed) -> None:
        try:
            firewall.quarantine([port])
        except TaskFailed as exc:
            LOG.error("Port %s could not be closed: %s", port.port_id, exc)

    def _refresh(self, firewall: Firewall, groups: Sequence[str]) -> bool:
        try:
            firewall.refresh(groups, self._info)
        except Exception:
            LOG.exception("Changed rules are read group by group")
            return False
        for group in groups:
            self._set_aside.pop(group, None)
        return True

    def _try(self, about: str, act: Callable[[], None], here: Here | None = None) -> None:
        try:
            act()
        # The one door that keeps the thread alive; it ends in the host's trouble, and in the
        # outcome of the port where there is one.
        except Exception as exc:
            LOG.exception("Set aside what was heard of %s", about)
            self._set_aside[about] = described(exc)
            if here is not None:
                self._failed(here, exc)
        else:
            self._set_aside.pop(about, None)

    def _tell(self) -> None:
        if not self._set_aside:
            self._troubles.clear(Trouble.PORTS)
            return
        about, reason = next(iter(self._set_aside.items()))
        number = len(self._set_aside)
        more = f", and {number - 1} more" if number > 1 else ""
        self._troubles.report(Trouble.PORTS, f"set aside: {about}{more}: {reason}")


def _add(closed: dict[str, Closed], here: Here) -> None:
    closed[here.port_id] = port_events.to_close(here)
