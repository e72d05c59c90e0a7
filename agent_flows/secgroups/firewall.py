"""The firewall of one integration bridge: what is installed, and the way from one state to the
next.

Decisions are made in :mod:`.port_flows` and :mod:`.plan`; here they are carried
out, remembered, and reverted.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import replace

from oslo_log import log

from agent_flows.engine.task import PortErrors
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.ofctl import Ofctl, SwitchError, SwitchUnreachable, Timeout, ToolMissing
from agent_flows.openflow.outcome import switch_errors
from agent_flows.openflow.pipeline import OWN_PIPELINE, Pipeline
from agent_flows.openflow.priorities import CONJUNCTIONS
from agent_flows.report import TaskError
from agent_flows.secgroups import takeover
from agent_flows.secgroups.audit import Audit, NetworkFlows
from agent_flows.secgroups.base import base_flows
from agent_flows.secgroups.blame import blame
from agent_flows.secgroups.conjunction import Conjunctions, Remote, members_in
from agent_flows.secgroups.difference import Difference, shown
from agent_flows.secgroups.installed import Installed, forget_unused
from agent_flows.secgroups.plan import Plan, plan
from agent_flows.secgroups.port_flows import PortFlows, compile_ports
from agent_flows.secgroups.strangers import Bridge, NeutronsBridge, OwnBridge
from agent_flows.spec import DesiredState

LOG = log.getLogger(__name__)

_FEW = 4
_SMALL = 2000
"""For up to so many ports, on a bridge with up to so many flows, every flow is compared each time.
That takes 10 ms for 500 flows and 120 ms for 13,000; counting them takes 4 and 7 ms."""


class Firewall:
    """Owns the flows of ports, the flows they share and the pipeline itself.

    Every method may be called from any thread; one bundle is sent at a time.
    Errors of the switch are raised as :class:`PortErrors` for the ports whose
    flows were refused, otherwise as :class:`TaskFailed`.

    Flows of others are judged only if their owners are known: on our own
    bridge only those of ``networks`` are allowed, on Neutron's those with a
    ``reserved`` cookie. ``remove_strange``: whether others are removed from our own bridge, or
    fail the ports about whose packets they decide.
    """

    def __init__(
        self,
        ofctl: Ofctl,
        pipeline: Pipeline = OWN_PIPELINE,
        *,
        networks: NetworkFlows | None = None,
        reserved: Callable[[int], bool] | None = None,
        remove_strange: bool = True,
    ) -> None:
        self._ofctl = ofctl
        self._pipeline = pipeline
        self._lock = threading.RLock()
        self._base = base_flows(pipeline)
        self._bridge = Bridge()
        if networks is not None:
            self._bridge = OwnBridge(networks.uplinks, removes=remove_strange)
        elif reserved is not None:
            self._bridge = NeutronsBridge(reserved)
        self._judges = networks is not None
        self._audit = Audit(ofctl, self._base, networks, self._bridge)
        self._bundles = 0
        self._forget()

    def _forget(self) -> None:
        self._installed = Installed()
        self._conjunctions = Conjunctions(CONJUNCTIONS[0], 1)
        # What a revert falls back to. For a port with flows of an older process
        # that is unknown: what was applied last stays installed.
        self._committed: dict[str, PortFlows] = {}
        self._taken_over: set[str] = set()
        self._ofports: dict[str, int] = {}
        # For each remote group the revisions of the groups that refer to it, as of
        # its known members: an older view never overwrites a newer one.
        self._views: dict[Remote, dict[str, int]] = {}
        self._unanswered: Plan | None = None
        # Until every flow was compared without a difference; and whether the last comparison
        # found one.
        self._distrusted, self._differs = True, False
        # What the last comparison found, and how many bundles had been sent by then.
        self._found, self._found_after = Difference(), -1
        # On Neutron's bridge only on request: what its agent wrote before its restart stays
        # for a while under a cookie that is not reserved any more.
        self._judging = False
        # Cookies of flows that ports of an older process may need until the sweep.
        self._kept: frozenset[int] = frozenset()

    def start(self) -> None:
        """Install the pipeline where it is missing, and take over the installed flows.

        Called when the agent starts and after a restart of the switch; every
        port must then be applied again. Open ports stay as they are.

        Raises :class:`TaskFailed`.
        """
        with self._lock:
            found = takeover.read(self._dump(), self._pipeline.home)
            missing = [
                flow.add(text, key) for key, text in self._base.items() if key not in found.base
            ]
            foreign = [flow.delete(each) for each in sorted(found.base - set(self._base))]
            self._forget()
            self._execute(Plan([*foreign, *missing], [], Installed()))
            self._installed, self._kept = found.installed, found.shared
            self._conjunctions = Conjunctions(found.conjunction_priority, found.next_conjunction_id)

    def apply(self, desired: DesiredState, attachments: Mapping[str, Attachment]) -> None:
        """Bring every port of ``attachments`` to its desired state, in one bundle.

        A port whose flows do not change costs nothing. A refused bundle
        changes nothing, neither in the switch nor here.
        """
        with self._lock:
            self._resolve_unanswered()
            own = {
                port_id: installed.flows.own
                for port_id in attachments
                if (installed := self._installed.ports.get(port_id)) is not None
            }
            compiled = compile_ports(desired, attachments, self._conjunctions, self._pipeline, own)
            for port_id, attachment in attachments.items():
                self._ofports[port_id] = attachment.ofport
            if compiled.errors:
                raise PortErrors(compiled.errors)
            before = self._installed
            views = self._newer_views(desired, compiled.remotes)
            members = {remote: members_in(desired, remote) for remote in views}
            self._execute(plan(before, compiled.ports, members, self._conjunctions))
            if self._differs:
                self._correct(self._difference(), attachments)
            for remote, view in views.items():
                self._views.setdefault(remote, {}).update(view)
            self._taken_over |= {
                port_id
                for port_id, attachment in attachments.items()
                if port_id not in before.ports and attachment.ofport in before.strays
            }

    def _newer_views(
        self, desired: DesiredState, remotes: Mapping[Remote, Set[str]]
    ) -> dict[Remote, dict[str, int]]:
        """The remote groups whose members ``desired`` knows at least as new as we do."""
        newer = {}
        for remote, referring in remotes.items():
            view = {group: desired.security_groups[group].revision for group in referring}
            known = self._views.get(remote, {})
            if all(revision >= known.get(group, revision) for group, revision in view.items()):
                newer[remote] = view
        return newer

    def distrust(self) -> None:
        """Compare every flow at the next verification, however many there are, and on Neutron's
        bridge judge those of strangers."""
        with self._lock:
            self._distrusted = self._judging = True

    def counts(self) -> bool:
        """Whether the bridge holds as many flows as it should; one call, however many.

        Raises :class:`TaskFailed`.
        """
        return self._holds(self._number_is_right)

    def explains(self, deleted: Set[int], added: Set[int]) -> bool:
        """Whether bundles of ours may have deleted and added the flows of these cookies of ours.

        Flows are counted: all of them, and if few cookies have lost flows those of
        each, for others may have been added in their place. Raises
        :class:`TaskFailed`.
        """
        of_networks = any(cookie.kind(each) == Kind.NETWORK for each in deleted)

        def is_right(installed: Installed) -> bool:
            expected = installed.cookies()
            expected.update(dict.fromkeys(self._base, 1))
            lost = [each for each in deleted if each in expected]
            many = len(lost) > _FEW
            if (added or many or of_networks) and not self._number_is_right(installed):
                return False
            return many or all(
                self._ofctl.count(*cookie.only(each)) == expected[each] for each in lost
            )

        return self._holds(is_right)

    def _holds(self, is_right: Callable[[Installed], bool]) -> bool:
        """Without the lock at first, so that no port waits while nothing is wrong."""
        with self._lock:
            self._resolve_unanswered()
            installed = self._installed
        with switch_errors():
            if is_right(installed):
                return True
            with self._lock:
                self._resolve_unanswered()
                return is_right(self._installed)

    def _number_is_right(self, installed: Installed) -> bool:
        # Flows of an older process are not counted.
        return bool(installed.strays) or self._audit.counts(installed)

    def audit(self) -> Mapping[str, TaskError] | None:
        """Compare every flow with what was compiled, those of strangers too.

        The error of each port that is concerned; None if nothing differs. What
        differs is corrected when a port is next applied or proven, or by
        :meth:`repair`. Flows may be changed meanwhile: then what differs counts only if it is
        found again while none of ours changes. Raises :class:`TaskFailed`.
        """
        with self._lock:
            self._resolve_unanswered()
            before = self._installed, self._conjunctions, self._kept
            bundles = self._bundles
        with switch_errors():
            found = self._audit.compare(*before, judging=True, holding=False)
        if not found:
            return None
        with self._lock:
            self._resolve_unanswered()
            self._judging = True
            if bundles == self._bundles and not found.is_of_networks:
                self._note(found)
            else:
                found = self._compare()
            return self._audit.drifts(found, self._installed) if found else None

    def repair(self) -> None:
        """Correct what differs on behalf of no port: as far as we may.

        Raises :class:`TaskFailed`.
        """
        with self._lock:
            self._resolve_unanswered()
            found = self._difference()
            if found:
                self._correct(found, ())

    def prove(self, port_ids: Collection[str]) -> None:
        """Verify that these ports' flows are installed as applied; correct what differs, and
        verify again.

        Raises :class:`PortErrors` for ports whose flows differ even then, or
        about which a stranger's flow decides that we may not remove.
        """
        with self._lock:
            self._resolve_unanswered()
            if self._count_is_right(port_ids):
                return
            found = self._compare()
            if found:
                self._correct(found, port_ids)
                found = self._compare()
            self._blame(port_ids, found)

    def verify(self, port_ids: Collection[str]) -> None:
        """Raises :class:`PortErrors` for ports whose flows are not installed as applied.

        What differs is corrected when a port is next applied, or proven.
        """
        with self._lock:
            self._resolve_unanswered()
            if not self._count_is_right(port_ids):
                self._blame(port_ids, self._compare())

    def revert(self, port_ids: Iterable[str]) -> None:
        """Install again what was committed; a port that never was is closed."""
        with self._lock:
            self._resolve_unanswered()
            changes: dict[str, PortFlows | None] = {}
            for port_id in port_ids:
                installed = self._installed.ports.get(port_id)
                committed = self._committed.get(port_id)
                unknown = committed is None and port_id in self._taken_over
                if installed is None or unknown:
                    continue
                if installed.flows != committed:
                    changes[port_id] = committed
            self._execute(plan(self._installed, changes, {}, self._conjunctions))
            if self._differs:
                self._correct(self._difference(), self._installed.ports)

    def commit(self, port_ids: Iterable[str]) -> None:
        """Make what is applied what a later revert falls back to."""
        with self._lock:
            for port_id in port_ids:
                installed = self._installed.ports.get(port_id)
                if installed is not None:
                    self._committed[port_id] = installed.flows
                    self._taken_over.discard(port_id)
            self._forget_unused()

    def remove(self, port_ids: Iterable[str]) -> None:
        """Remove all flows of these ports: they are closed."""
        with self._lock:
            self._resolve_unanswered()
            gone = list(port_ids)
            installed = {port_id: None for port_id in gone if port_id in self._installed.ports}
            left = [
                self._ofports[port_id]
                for port_id in gone
                if port_id not in installed and port_id in self._ofports
            ]
            self._execute(plan(self._installed, installed, {}, self._conjunctions, left))
            self._forget_ports(gone)

    def affected_by(self, group_ids: Collection[str]) -> set[str]:
        """Ports that are in one of these security groups, or have rules that refer to one of
        these security or address groups."""
        ids = frozenset(group_ids)
        # Without the lock: what is installed is a value, and a caller need not wait for a bundle.
        return {
            port_id
            for port_id, installed in self._installed.ports.items()
            if not ids.isdisjoint(installed.flows.groups)
        }

    def sweep(self, keep: Set[str], ofports: Collection[int] = ()) -> int:
        """Remove the flows of every port not in ``keep``, and correct what else differs; returns
        the number of flows of ports removed.

        A kept port that could not be applied yet keeps what an older process
        installed for it, shared flows included; so does the port of every
        interface in ``ofports``, for ports that did not get as far as here.
        """
        with self._lock:
            self._resolve_unanswered()
            seen = self._cookies()
            gone = [port_id for port_id in self._installed.ports if port_id not in keep]
            kept = {self._ofports[port_id] for port_id in keep if port_id in self._ofports}
            kept.update(ofports)
            left = [ofport for ofport in self._installed.strays if ofport not in kept]
            swept = plan(self._installed, dict.fromkeys(gone), {}, self._conjunctions, left)
            orphans = _orphans(seen, swept.after, self._base)
            lines = [*swept.lines, *map(flow.delete, orphans)]
            self._execute(replace(swept, lines=lines))
            self._kept = self._kept.difference(orphans) if swept.after.strays else frozenset()
            self._forget_ports(gone)
            found = self._compare()
            if found:
                self._correct(found, keep)
            replaced = sum(line.startswith("add ") for line in swept.lines)
            return sum(seen[each] for each in orphans) - replaced

    def _forget_ports(self, port_ids: Iterable[str]) -> None:
        for port_id in port_ids:
            self._committed.pop(port_id, None)
            self._taken_over.discard(port_id)
            self._ofports.pop(port_id, None)
        self._forget_unused()

    def _forget_unused(self) -> None:
        if len(self._installed.members) > len({use.remote for use in self._installed.users}):
            self._installed = forget_unused(self._installed, self._committed.values())
            self._views = {
                remote: view
                for remote, view in self._views.items()
                if remote in self._installed.members
            }

    def _execute(self, todo: Plan) -> None:
        self._bundles += bool(todo.lines)
        with switch_errors():
            try:
                self._ofctl.bundle(todo.lines)
            except SwitchError as exc:
                if exc.refusals:
                    raise blame(exc, todo) from exc
                if not isinstance(exc, SwitchUnreachable | ToolMissing):
                    self._unanswered = todo
                raise
            except Timeout:
                self._unanswered = todo
                raise
        self._installed = todo.after

    def _count_is_right(self, port_ids: Collection[str]) -> bool:
        """Whether the switch holds as many flows as it should: one call, however many there are.
        The switch acknowledged each of them, so a flow added or removed since shows in the
        number; which one it was only a full comparison shows."""
        installed = self._installed
        if self._distrusted or installed.strays or not installed.ports.keys() >= set(port_ids):
            return False
        if len(port_ids) <= _FEW and installed.count() <= _SMALL:
            return False
        with switch_errors():
            return self._audit.counts(installed)

    def _compare(self) -> Difference:
        """Compare every flow with what was compiled; those of other owners are left out."""
        judging = self._judges or self._judging
        with switch_errors():
            found = self._audit.compare(
                self._installed, self._conjunctions, self._kept, judging=judging
            )
        self._note(found)
        return found

    def _note(self, found: Difference) -> None:
        self._differs = self._distrusted = bool(found)
        self._judging = self._judging and bool(found)
        self._found, self._found_after = found, self._bundles

    def _difference(self) -> Difference:
        """What the last comparison found, unless a flow of ours may have changed since: then
        compare again."""
        if self._found_after == self._bundles and not self._found.is_of_networks:
            return self._found
        return self._compare()

    def _correct(self, found: Difference, port_ids: Collection[str]) -> None:
        """Write the missing flows and remove the surplus ones, on behalf of these ports."""
        todo = self._audit.correction(found, self._installed, port_ids)
        for each in self._audit.removable(found):
            LOG.warning("Removing a flow that was not compiled: %s", each)
        if found.missing:
            number = len(found.missing)
            lost = shown(("missing", entry) for entry in found.missing)
            LOG.warning("Writing %d flows that were lost or changed:\n%s", number, lost)
        # It may be as large as the bridge.
        self._found, self._found_after = Difference(), -1
        self._execute(todo)

    def _blame(self, port_ids: Iterable[str], found: Difference) -> None:
        """Raises :class:`PortErrors` for the ports whose flows are not as applied."""
        errors = self._audit.errors(found, self._installed, port_ids)
        if errors:
            raise PortErrors(errors)

    def _cookies(self) -> Counter[int]:
        """How many flows of ours the switch holds of each cookie."""
        return Counter(entry.cookie for entry in self._dump())

    def _dump(self) -> list[FlowEntry]:
        with switch_errors():
            return self._ofctl.dump()

    def _resolve_unanswered(self) -> None:
        """Find out what became of a bundle that was not answered."""
        if self._unanswered is None:
            return
        before, after = self._installed.cookies(), self._unanswered.after.cookies()
        seen = self._cookies()
        # A bundle is in the tables as a whole or not at all.
        gone = before.keys() - after.keys()
        if all(seen[each] == count for each, count in after.items()) and gone.isdisjoint(seen):
            self._installed = self._unanswered.after
        self._unanswered = None


def _orphans(seen: Iterable[int], installed: Installed, base: Mapping[int, str]) -> list[int]:
    """Cookies in the switch that no installed flow has."""
    accounted = installed.cookies().keys() | base.keys()
    accounted = accounted.union(*installed.strays.values())
    # Addresses of remote groups that an older process' ports may need.
    spared = {Kind.NETWORK}
    if installed.strays:
        spared |= {Kind.MEMBER, Kind.CONJUNCTION}
    return sorted(
        each for each in seen if each not in accounted and cookie.kind(each) not in spared
    )
