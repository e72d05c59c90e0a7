"""Brings the ports of a host to their desired state: claims, decides, runs flows, settles.

The one reconciler: the standalone agent, Neutron's firewall driver and the
verifier of other drivers give it a :class:`Site` with what differs between them.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from oslo_log import log
from taskflow.flow import Flow

from agent_flows.engine.port_life import Applied, Life, Verdict
from agent_flows.engine.port_table import PortTable
from agent_flows.engine.runner import Runner, Work, error_of
from agent_flows.engine.task import FlowTask
from agent_flows.fairness import fair
from agent_flows.report import FlowName, FlowReport, TaskError, Trouble
from agent_flows.supervision import Backoff, Loop, Troubles, described

LOG = log.getLogger(__name__)

# How long, and with how many calls, a worker looks for the ports that make a batch raise; what is
# left then is tried again after its backoff.
_SEARCH_SECONDS = 5.0
_SEARCH_CALLS = 32


@dataclass(frozen=True)
class Desired:
    """What a port is to be. ``wiring`` and ``rules`` are values of the site's own: as long as they
    are equal the port needs no flow. The rest is for its report.

    ``refused``: why it cannot be used at all. ``leaving``: the port is to be
    unwired, whatever its interface; its revisions are for the report.
    """

    wiring: Any
    rules: Any
    revision: int
    security_group_revisions: Mapping[str, int]
    refused: TaskError | None = None
    leaving: bool = False


@dataclass(frozen=True)
class Sight:
    """What a site knows of the ports of a batch before their flows run.

    ``present``: each port's interface, or what is wrong with it; a port that is
    not in it has none. ``desired``: a port that is not in it is not desired
    here. Ports that are ``early`` cannot be judged yet and are looked at once
    more; those in ``unclear`` are tried again after their backoff. ``context`` is
    the site's own.
    """

    present: Mapping[str, Any]
    desired: Mapping[str, Desired]
    early: Set[str] = frozenset()
    unclear: Set[str] = frozenset()
    context: Any = None


class Site(Protocol):
    """What differs between the hosts whose ports are reconciled."""

    flows: Mapping[FlowName, Callable[[], Flow]]
    """How each flow is composed; a batch runs them in this order. Flows that one callable composes
    run as one."""
    forced_flow: FlowName
    """The flow of a port that is forced: applied again whether or not it has changed."""
    first_task: type[FlowTask]
    """The task that the report of a port names if its flow could not begin."""

    def look(self, lives: Sequence[Life]) -> Sight:
        """Where the ports are and what is desired of them; raises if that cannot be read."""
        ...

    def inputs(self, flow: FlowName, port_ids: Sequence[str], sight: Sight) -> Mapping[str, object]:
        """What the flow's tasks need in TaskFlow's store beside ``port_ids``."""
        ...

    def secured(self, reports: Sequence[FlowReport], sight: Sight) -> Sequence[FlowReport]:
        """Close the ports that failed and must not stay open. Returns the reports, amended if that
        failed too."""
        ...

    def deliver(self, reports: Sequence[FlowReport], sight: Sight) -> None:
        """Keep the reports safely; raises if that is not possible."""
        ...

    def is_deliverable(self) -> bool:
        """Whether reports could be kept now: if not, a flow is not run again for its report."""
        ...


@dataclass(frozen=True)
class _Batch:
    """Ports that go through one flow run, and which flow it is for each of them."""

    flows: Mapping[str, FlowName]
    lives: Mapping[str, Life]
    sight: Sight

    def outcome(self, port_id: str) -> Any:
        """What the flow makes of the port if it succeeds: equal ones need not run twice."""
        return self.flows[port_id], self.applied(port_id, proven=True)

    def applied(self, port_id: str, *, proven: bool) -> Applied | None:
        desired = self.sight.desired.get(port_id)
        if desired is None:
            return None
        present = self.sight.present.get(port_id)
        return Applied(present, desired.wiring, desired.rules, proven)

    def work(self, port_id: str) -> Work:
        desired, attempt = self.sight.desired.get(port_id), self.lives[port_id].request.attempt
        if desired is None:
            return Work(port_id, 0, {}, attempt)
        return Work(port_id, desired.revision, desired.security_group_revisions, attempt)


def is_concerned(life: Life, present: Any) -> bool:
    """Whether anything can come of processing the port: one that is neither present nor was ever
    wired is left alone, unless its absence is to be reported."""
    request = life.request
    return request.forced or request.asked or present is not None or life.applied is not None


def choose(life: Life, present: Any, desired: Desired | None, forced: FlowName) -> FlowName | None:
    """Which flow a claimed port needs; None if it needs nothing. ``present`` is None for a port
    without an interface."""
    request, applied = life.request, life.applied
    if desired is None or desired.leaving or present is None:
        unreported = request.asked and desired is not None and desired.revision != life.absent_at
        needed = applied is not None or request.forced or unreported
        return FlowName.UNWIRE if needed else None
    if request.forced:
        return forced
    before = (applied.wiring, applied.interface) if applied and applied.proven else None
    if applied is None or before != (desired.wiring, present):
        return FlowName.WIRE
    return FlowName.REFRESH if applied.rules != desired.rules else None


class Reconciler:
    """Safe from any thread; no port is ever in two batches.

    If the site cannot look at a batch, the batch is split to find the ports at
    fault; these are the trouble PORTS, and are tried again after their backoff.
    """

    def __init__(
        self,
        site: Site,
        runner: Runner,
        *,
        backoff: Backoff,
        max_batch: int,
        workers: int = 1,
        troubles: Troubles | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most ``workers`` batches of up to ``max_batch`` ports run at a time."""
        self.table = PortTable(max_batch, backoff, clock)
        self.submit = self.table.submit
        self.drifted = self.table.drifted
        self._site, self._runner = site, runner
        self._clock = clock
        self._troubles = troubles or Troubles()
        self._turns = threading.BoundedSemaphore(workers)
        self._lock = threading.Lock()
        # Ports that the site could not even look at, and why.
        self._unprocessed: dict[str, str] = {}
        self._unseen: set[str] = set()
        self._when_all_seen: Callable[[], None] = lambda: None
        self._loops = [
            Loop(f"reconciler-{n}", self._work, self._troubles, Trouble.PORTS)
            for n in range(workers)
        ]

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    def stop(self, timeout: float) -> None:
        """Let running flows end, for at most ``timeout`` seconds; what waits is dropped."""
        for loop in self._loops:
            loop.stopping.set()
        self.table.close()
        deadline = time.monotonic() + timeout
        for loop in self._loops:
            loop.stop(max(0.0, deadline - time.monotonic()))

    def is_alive(self) -> bool:
        """Whether every worker runs."""
        return all(loop.is_alive() for loop in self._loops)

    def finish(self, port_ids: Collection[str]) -> None:
        """Process these ports in the caller's thread if no worker does: returns when each of them
        was processed once since it was submitted."""
        while self.table.wait_for(port_ids):
            self.process_ready()

    def process_ready(self) -> bool:
        """Process one batch in the caller's thread; False if no port was ready."""
        batch = self.table.claim(wait=False)
        self._process(batch)
        return bool(batch)

    def watch_for(self, port_ids: Collection[str], when_all_seen: Callable[[], None]) -> None:
        """Call ``when_all_seen``, once, when each of these ports has been processed, whatever
        the outcome."""
        with self._lock:
            self._unseen, self._when_all_seen = set(port_ids), when_all_seen
        self._see(())

    def _work(self) -> None:
        self._process(self.table.claim())

    def _process(self, batch: Sequence[Life]) -> None:
        if not batch:
            return
        port_ids = [life.port_id for life in batch]
        verdicts: Mapping[str, Verdict] = dict.fromkeys(port_ids, Verdict.RETRY)
        try:
            with self._turns:
                verdicts = self._verdicts(batch)
        finally:
            self.table.release(port_ids, verdicts)

    def _verdicts(self, batch: Sequence[Life]) -> dict[str, Verdict]:
        """What each port came to; the ports for which the site raised are searched for."""
        verdicts: dict[str, Verdict] = {}
        raised: dict[str, str] = {}
        parts = collections.deque([tuple(batch)])
        deadline = self._clock() + _SEARCH_SECONDS
        calls, reason = 0, ""
        while parts:
            part = parts.popleft()
            if calls == _SEARCH_CALLS or (calls and self._clock() > deadline):
                raised |= {life.port_id: reason for life in part}
                continue
            calls += 1
            try:
                verdicts |= self._reconcile(part)
            # The one door that keeps the batch alive; it ends in the trouble PORTS, and in a retry.
            except Exception as exc:
                new = described(exc)
                if not reason and new not in self._unprocessed.values():
                    LOG.exception("A batch of %d ports could not be processed", len(part))
                elif not reason:
                    LOG.error("A batch of %d ports could not be processed: %s", len(part), new)
                reason = new
                if len(part) == 1:
                    raised[part[0].port_id] = reason
                else:
                    middle = len(part) // 2
                    parts += [part[:middle], part[middle:]]
        self._report_unprocessed(verdicts, raised)
        return verdicts | dict.fromkeys(raised, Verdict.RETRY)

    def _report_unprocessed(self, processed: Collection[str], raised: Mapping[str, str]) -> None:
        with self._lock:
            before = self._unprocessed
            kept = {id_: reason for id_, reason in before.items() if id_ not in processed}
            now = self._unprocessed = kept | dict(raised)
        if now:
            port_id, reason = next(iter(now.items()))
            message = f"{len(now)} ports cannot be processed, first {port_id}: {reason}"
            self._troubles.report(Trouble.PORTS, message)
        elif before:
            self._troubles.clear(Trouble.PORTS)

    def _reconcile(self, batch: Sequence[Life]) -> dict[str, Verdict]:
        """One batch: look, decide, run."""
        sight = self._site.look(batch)
        verdicts = {life.port_id: Verdict.DONE for life in batch}
        verdicts |= dict.fromkeys(sight.early, Verdict.LATER)
        verdicts |= dict.fromkeys(sight.unclear, Verdict.RETRY)
        chosen: dict[str, FlowName] = {}
        refused: dict[str, TaskError] = {}
        for life in fair(batch):
            port_id = life.port_id
            if verdicts[port_id] is not Verdict.DONE:
                continue
            desired = sight.desired.get(port_id)
            present = sight.present.get(port_id)
            if desired is None and life.absent_at is not None and is_concerned(life, present):
                self.table.note(port_id, absent_at=None)
            if desired is not None and desired.refused is not None:
                refused[port_id] = desired.refused
                continue
            flow = choose(life, present, desired, self._site.forced_flow)
            if flow is not None:
                chosen[port_id] = flow
        lives = {life.port_id: life for life in batch}
        if refused:
            flows = dict.fromkeys(refused, FlowName.WIRE)
            verdicts |= self._refuse(_Batch(flows, lives, sight), refused)
        self._report_drift(batch, chosen, sight)
        for compose in dict.fromkeys(self._site.flows.values()):
            flows = {id_: flow for id_, flow in chosen.items() if self._site.flows[flow] is compose}
            verdicts |= self._run(_Batch(flows, lives, sight), compose)
        self._see({life.port_id for life in batch} - sight.early - sight.unclear)
        return verdicts

    def _refuse(self, batch: _Batch, errors: Mapping[str, TaskError]) -> dict[str, Verdict]:
        """Ports that cannot be used keep what they have; the server may send others."""
        reports = [self._never_ran(batch, port_id, error) for port_id, error in errors.items()]
        self._log_failures(reports)
        self._deliver(reports, batch.sight)
        return dict.fromkeys(errors, Verdict.RETRY)

    def _report_drift(
        self, batch: Sequence[Life], chosen: Mapping[str, FlowName], sight: Sight
    ) -> None:
        """What another program changed is kept in the outbox before the repair starts.

        If it cannot be kept, the port is repaired all the same, and the next attempt
        reports it: that one comes, since the repair's report cannot be kept either.
        """
        drifted = {
            life.port_id: life
            for life in batch
            if life.request.drift is not None
            and chosen.get(life.port_id, FlowName.UNWIRE) is not FlowName.UNWIRE
        }
        if not drifted:
            return
        works = _Batch(dict.fromkeys(drifted, FlowName.AUDIT), drifted, sight)
        reports = [
            self._runner.drifted(works.work(port_id), life.request.drift)
            for port_id, life in drifted.items()
            if life.request.drift is not None
        ]
        self._log_failures(reports)
        if self._deliver(reports, sight):
            for port_id, life in drifted.items():
                reported = dataclasses.replace(life.request, drift=None)
                self.table.note(port_id, request=reported)

    def _never_ran(self, batch: _Batch, port_id: str, error: TaskError) -> FlowReport:
        work = batch.work(port_id)
        return self._runner.never_ran(batch.flows[port_id], work, self._site.first_task, error)

    def _run(self, batch: _Batch, compose: Callable[[], Flow]) -> dict[str, Verdict]:
        # Ports that are as they should be, but for a report that still cannot be kept: running
        # their flow again would not help.
        undelivered = {
            port_id
            for port_id in batch.flows
            if (unreported := batch.lives[port_id].unreported) is not None
            and unreported == batch.outcome(port_id)
        }
        verdicts = {}
        if undelivered and not self._site.is_deliverable():
            verdicts = dict.fromkeys(undelivered, Verdict.RETRY)
        waiting = dict.fromkeys(id_ for id_ in batch.flows if id_ not in verdicts)
        if not waiting:
            return verdicts
        works = [batch.work(port_id) for port_id in fair(waiting)]
        flow = batch.flows[works[0].port_id]

        def deliver(reports: Sequence[FlowReport]) -> None:
            verdicts.update(self._settle(batch, reports))
            for report in reports:
                del waiting[report.resource_id]

        try:
            inputs = self._site.inputs(flow, tuple(waiting), batch.sight)
            self._runner.run(flow, compose, works, inputs, deliver)
        # The one door that keeps the batch alive; it ends in an outcome of every port.
        except Exception as exc:
            LOG.exception(
                "%s of %d ports could not be run, first port %s",
                flow,
                len(waiting),
                next(iter(waiting)),
                extra={"host": self._runner.host, "flow": flow.value},
            )
            error = error_of(exc)
            deliver([self._never_ran(batch, port_id, error) for port_id in list(waiting)])
        failed = sum(verdict is Verdict.RETRY for verdict in verdicts.values())
        names = "/".join(sorted(set(batch.flows.values())))
        LOG.info(
            "%s: %d ports, %d of them failed",
            names,
            len(verdicts),
            failed,
            extra={"host": self._runner.host, "flow": names},
        )
        return verdicts

    def _settle(self, batch: _Batch, reports: Sequence[FlowReport]) -> dict[str, Verdict]:
        """First keep the reports, then believe them: what was not reported must be done, and
        reported, again."""
        named = [
            # To replace means to validate it again.
            report if report.flow is flow else dataclasses.replace(report, flow=flow)
            for report in fair(reports)
            for flow in [batch.flows[report.resource_id]]
        ]
        secured = self._site.secured(named, batch.sight)
        self._log_failures(secured)
        kept = self._deliver(secured, batch.sight)
        verdicts = {}
        for report in fair(secured):
            port_id = report.resource_id
            proven = kept and report.failed is None
            verdicts[port_id] = Verdict.DONE if proven else Verdict.RETRY
            unreported = None if kept else batch.outcome(port_id)
            self.table.note(
                port_id, unreported=unreported, **self._noted(batch, port_id, proven=proven)
            )
        return verdicts

    def _deliver(self, reports: Sequence[FlowReport], sight: Sight) -> bool:
        try:
            self._site.deliver(reports, sight)
        # What the outbox cannot do is the trouble OUTBOX, and a retry; anything else is raised.
        except Exception as exc:
            if Trouble.OUTBOX not in self._troubles.current():
                raise
            LOG.error(
                "%d reports could not be kept, and their ports do not count as done: %s",
                len(reports),
                described(exc),
            )
            return False
        return True

    def _log_failures(self, reports: Sequence[FlowReport]) -> None:
        for report in reports:
            failed = report.failed
            if failed is not None and failed.error is not None:
                LOG.error(
                    "Port %s on host %s: %s failed in %s, attempt %d: %s: %s",
                    report.resource_id,
                    report.host,
                    failed.name,
                    report.flow,
                    report.attempt,
                    failed.error.type,
                    failed.error.message,
                    extra={
                        **report.log_fields,
                        "task": failed.name,
                        "error_type": failed.error.type,
                    },
                )

    def _noted(self, batch: _Batch, port_id: str, *, proven: bool) -> dict[str, Any]:
        """What is remembered of a port after its flow."""
        flow, before = batch.flows[port_id], batch.lives[port_id].applied
        if flow is FlowName.UNWIRE:
            if proven:
                desired = batch.sight.desired.get(port_id)
                absent_at = None if desired is None or desired.leaving else desired.revision
                return {"applied": None, "absent_at": absent_at}
            # Half taken away: desired again, it is to be wired from the start.
            lost = None if before is None else dataclasses.replace(before, proven=False)
            return {"applied": lost}
        if flow is FlowName.REFRESH and not proven and before is not None:
            return {"applied": dataclasses.replace(before, rules=None), "absent_at": None}
        return {"applied": batch.applied(port_id, proven=proven), "absent_at": None}

    def _see(self, port_ids: Collection[str]) -> None:
        with self._lock:
            self._unseen.difference_update(port_ids)
            if self._unseen:
                return
            when_all_seen, self._when_all_seen = self._when_all_seen, lambda: None
        when_all_seen()
