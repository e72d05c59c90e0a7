"""The ports of a host without Neutron's agent: where they are, what the server desires of them."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import oslo_messaging
from oslo_log import log
from taskflow.flow import Flow

from agent_flows.agent import flows
from agent_flows.agent.flows import Switch
from agent_flows.agent.group_reports import GroupReports
from agent_flows.agent.knowledge import Knowledge
from agent_flows.engine.port_life import Life
from agent_flows.engine.reconciler import Desired, Sight, is_concerned
from agent_flows.engine.tasks import LocateInterface
from agent_flows.errors import ErrorType
from agent_flows.l2 import interfaces
from agent_flows.report import FlowName, FlowReport, TaskError
from agent_flows.reporting.outbox import Outbox
from agent_flows.rpc.desired import Known, Update
from agent_flows.rpc.revisions import Revisions
from agent_flows.spec import DesiredState, PortSpec
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)


class Specs(Protocol):
    """The agent's RPC client, as far as specs go."""

    def get_desired(self, port_ids: Collection[str], known: Known) -> Update: ...

    def get_bound(self) -> Collection[str]: ...

    def get_revisions(self) -> Revisions: ...


@dataclass(frozen=True)
class Context:
    """What the flows of a batch apply; and the ports that the server ``asked`` about."""

    state: DesiredState
    asked: frozenset[str] = frozenset()


class AgentSite:
    """A :class:`agent_flows.engine.reconciler.Site`."""

    forced_flow = FlowName.RESYNC
    first_task = LocateInterface

    def __init__(
        self,
        switch: Switch,
        server: Specs,
        outbox: Outbox,
        changed: Callable[[Collection[str]], None] = lambda port_ids: None,
    ) -> None:
        """``changed`` gets ports that are in a group of which something new was learnt."""
        self._switch, self._server, self._outbox = switch, server, outbox
        self._changed = changed
        self.knowledge = Knowledge()
        self._group_reports = GroupReports()
        self._delivering = threading.Lock()
        # Ports are closed before others open.
        self.flows: Mapping[FlowName, Callable[[], Flow]] = {
            FlowName.UNWIRE: partial(flows.unwire, switch),
            FlowName.REFRESH: partial(flows.refresh, switch),
            FlowName.WIRE: partial(flows.wire, switch),
            FlowName.RESYNC: partial(flows.resync, switch),
        }
        self.is_deliverable = outbox.writable

    def look(self, lives: Sequence[Life]) -> Sight:
        port_ids = [life.port_id for life in lives]
        found = interfaces.find(self._switch.ovsdb, self._switch.bridge, port_ids)
        present = {**found, **interfaces.missing(list(found), found)}
        early = frozenset(life.port_id for life in lives if is_early(life, found))
        concerned = [
            life.port_id
            for life in lives
            if life.port_id not in early and is_concerned(life, found.get(life.port_id))
        ]
        wanted = set(concerned)
        asking = [life.port_id for life in lives if life.port_id in wanted and self._must_ask(life)]
        if asking:
            try:
                self._learn(asking, concerned)
            except (oslo_messaging.MessagingException, Invalid) as exc:
                # Ports keep what they have. The server gets no heartbeats either, and counts this
                # host's ports as UNKNOWN.
                LOG.warning(
                    "Could not get the specs of %d ports from the server (%s: %s); trying again "
                    "later",
                    len(asking),
                    type(exc).__name__,
                    str(exc).partition("\n")[0],
                )
                return Sight(present, {}, early, frozenset(concerned), Context(DesiredState({})))
        state = self.knowledge.state(concerned)
        own = frozenset(life.port_id for life in lives if life.request.asked)
        return Sight(present, desired_of(state, concerned), early, context=Context(state, own))

    def _must_ask(self, life: Life) -> bool:
        """Not about a port whose spec came before it was plugged, nor if only its groups changed:
        a cast or a heartbeat brings what changes, and a report of an older revision proves
        nothing but is answered by a cast."""
        request = life.request
        return (
            request.forced
            or request.asked
            or request.attempt > 1
            or not self.knowledge.has(life.port_id)
        )

    def learn(self, port_ids: Collection[str]) -> None:
        """Read what is desired of these ports, and what changed of all groups.

        Raises :class:`oslo_messaging.MessagingException` and Invalid.
        """
        self._learn(port_ids, ())

    def _learn(self, port_ids: Collection[str], batch: Collection[str]) -> None:
        """Ports of this batch get what changed of their groups without being submitted for it."""
        groups = self.knowledge.ask(self._server.get_desired, port_ids)
        self._submit(groups, batch)

    def follow(self, change: Update) -> bool:
        """Learn what a cast of the server carries; False if the server must be asked instead."""
        try:
            groups = self.knowledge.follow(change)
        except Invalid as exc:
            LOG.info("A change of security groups does not fit; asking the server: %s", exc)
            return False
        self._submit(groups, ())
        return True

    def _submit(self, groups: Collection[str], batch: Collection[str]) -> None:
        if groups and (others := self.knowledge.inside(groups).difference(batch)):
            self._changed(others)

    def expect(self, bound: Collection[str]) -> None:
        """These ports are bound to this host, and all of them are to be reported."""
        with self._delivering:
            self._group_reports.expect(bound)

    def inputs(self, flow: FlowName, port_ids: Sequence[str], sight: Sight) -> Mapping[str, object]:
        state: DesiredState = sight.context.state
        inputs: dict[str, object] = {"desired": state, "present": sight.present}
        if flow is FlowName.RESYNC:
            self._switch.firewall.distrust()
        if flow is FlowName.REFRESH:
            # As they were wired: otherwise they would not be refreshed.
            vlans = self._switch.networks.vlans()
            ports = state.ports
            inputs["attachments"] = {
                port_id: interfaces.attach(sight.present[port_id], vlans[ports[port_id].network.id])
                for port_id in port_ids
            }
        return inputs

    def secured(self, reports: Sequence[FlowReport], sight: Sight) -> Sequence[FlowReport]:
        """A port that failed is on the dead VLAN, or keeps what was verified before."""
        return reports

    def deliver(self, reports: Sequence[FlowReport], sight: Sight) -> None:
        """The server takes no report of a port that is not bound to this host."""
        desired = sight.desired
        bound = [report for report in reports if report.resource_id in desired]
        gone = [report.resource_id for report in reports if report.resource_id not in desired]
        with self._delivering:
            shortened = self._group_reports.shorten(
                bound, asked=sight.context.asked, gone=gone, by_group=self.knowledge.by_host
            )
            self._outbox.put(shortened.reports)
            self._group_reports.note(shortened)


def is_early(life: Life, found: Mapping[str, interfaces.Interface]) -> bool:
    """Whether the port is to be looked at once more before there is anything to report.

    ovs-vswitchd opens a new interface within milliseconds, and its ofport comes
    as a change of its own; a port that the server names may be about to be
    plugged.
    """
    request, interface = life.request, found.get(life.port_id)
    if request.attempt > 1 or request.looked:
        return False
    if interface is not None:
        return not interface.is_settled
    return request.asked and not request.forced and life.applied is None


def desired_of(state: DesiredState, port_ids: Collection[str]) -> dict[str, Desired]:
    """What is desired of those of the ports that are bound to this host."""
    desired = {}
    for port_id in port_ids:
        if refused := state.refused.get(port_id):
            error = TaskError(ErrorType.INVALID_SPEC, f"invalid port spec: {refused.reason}")
            desired[port_id] = Desired(None, None, refused.revision, {}, error)
        elif spec := state.ports.get(port_id):
            groups = revisions(spec, state)
            desired[port_id] = Desired(spec, groups, spec.revision, groups)
    return desired


def revisions(spec: PortSpec, state: DesiredState) -> dict[str, int]:
    """The revisions of the port's groups, those with an invalid spec included. One that is missing
    from ``state`` is left out: its port fails by name, and no other port is held up."""
    known = (
        (group, state.security_groups.get(group) or state.refused.get(group))
        for group in spec.security_groups_in_force
    )
    return {group: content.revision for group, content in known if content is not None}
