"""The ports of a host with another firewall driver: what the agent passed, what is installed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from taskflow.flow import Flow

from agent_flows.engine.port_life import Life
from agent_flows.engine.reconciler import Desired, Sight
from agent_flows.neutron.reporting import ReportingSite
from agent_flows.neutron.resource_cache import CachedRevisions
from agent_flows.neutron.verify import flows
from agent_flows.neutron.verify.checks import Checks
from agent_flows.neutron.verify.watchlist import Watched
from agent_flows.report import FlowName, FlowReport
from agent_flows.secgroups.tasks import ApplySecurityGroups
from agent_flows.supervision import Troubles


class VerifierSite(ReportingSite):
    """A :class:`agent_flows.engine.reconciler.Site`. Nothing in it changes the switch."""

    first_task = ApplySecurityGroups

    def __init__(
        self,
        checks: Checks,
        revisions: CachedRevisions,
        watched: Callable[[Iterable[str]], Mapping[str, Watched]],
        troubles: Troubles,
    ) -> None:
        super().__init__(troubles)
        self._checks, self._revisions, self._watched = checks, revisions, watched
        wire = partial(flows.wire, checks)
        self.flows: Mapping[FlowName, Callable[[], Flow]] = {
            FlowName.WIRE: wire,
            FlowName.REFRESH: wire,
            FlowName.UNWIRE: partial(flows.unwire, checks),
        }

    def look(self, lives: Sequence[Life]) -> Sight:
        watched = self._watched(life.port_id for life in lives)
        # Revisions are read before what they are of: no report claims more than was looked at.
        desired = {port_id: self._desired(entry) for port_id, entry in watched.items()}
        plugged = {port_id: entry.port for port_id, entry in watched.items()}
        staying = {id_: port for id_, port in plugged.items() if not watched[id_].leaving}
        located = self._checks.locate(staying)
        # A port without either is to have no traffic, and was never bound.
        present = {**staying, **located.interfaces, **located.errors}
        inputs = {"plugged": plugged, "located": located, "present": present}
        return Sight(present, desired, context=inputs)

    def inputs(self, flow: FlowName, port_ids: Sequence[str], sight: Sight) -> Mapping[str, object]:
        inputs: Mapping[str, object] = sight.context
        return inputs

    def secured(self, reports: Sequence[FlowReport], sight: Sight) -> Sequence[FlowReport]:
        """The data plane is the other driver's: a port that failed stays as that one leaves it."""
        return reports

    def _desired(self, watched: Watched) -> Desired:
        port = watched.port
        groups = {group: self._revisions.group(group) for group in port.groups}
        # Rules that equal none: a port is only submitted if it is to be looked at.
        rules = object()
        revision = self._revisions.port(port.port_id)
        return Desired(port, rules, revision, groups, leaving=watched.leaving)
