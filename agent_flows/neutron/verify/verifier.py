"""Hosts with another firewall driver than ours: looks what that one left, and reports it."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from neutron.api.rpc.callbacks import resources as cached
from neutron_lib.callbacks import events, registry, resources
from oslo_config import cfg
from oslo_log import log
from taskflow.flow import Flow

from agent_flows import conf as options
from agent_flows.engine.port_queue import Participant, Request, Verdict
from agent_flows.engine.runner import Runner, Work, error_of
from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.interfaces import Located
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import CachedRevisions, SecurityGroupInfo
from agent_flows.neutron.verify import factory, flows, plugged_port
from agent_flows.neutron.verify.checks import Checks
from agent_flows.neutron.verify.plugged_port import PluggedPort
from agent_flows.neutron.verify.watchlist import Sight, Watchlist
from agent_flows.openflow.ofctl import SLOW_CALL
from agent_flows.report import FlowName, FlowReport, Trouble
from agent_flows.secgroups.tasks import ApplySecurityGroups
from agent_flows.supervision import Backoff, Loop, Troubles, described
from agent_flows.watchdog import Watchdog

LOG = log.getLogger(__name__)

_BETWEEN_LOOKS = 0.5
"""Seconds. One look serves every port that is waited for."""
_SHARE = 0.2
"""Of the time, how much may go into looking."""

Compose = Callable[[Checks], Flow]


class Verifier:
    """Takes the place of our driver for the extension.

    A port's flow runs as soon as everything the other driver must have left is
    there, or when ``verify_timeout`` has passed; so no port waits for another.
    Ports that stand are looked at again every ``verify_timeout``: the driver
    writes their flows anew on every occasion, and does not tell if it fails.

    Changes of rules are heard from the agent's resource cache. Nothing here
    changes the switch.
    """

    def __init__(
        self, agent_api: Any, reporting: Reporting, troubles: Troubles | None = None
    ) -> None:
        """``agent_api`` is neutron's OVSAgentExtensionAPI."""
        self.troubles = troubles or Troubles()
        conf = options.register(cfg.CONF)
        ours = conf[options.AGENT]
        # Not request_int_br(): that is a copy with a cookie of its own.
        bridge, cache = agent_api.br_int, agent_api.plugin_rpc.remote_resource_cache
        self._watchdog = Watchdog(self.troubles)
        self._watchdog.start()
        self._runner = Runner(conf.host, watch=self._watchdog.watch(Trouble.FLOW, ours.slow_flow))
        self._reporting = reporting
        self._revisions = CachedRevisions(SecurityGroupInfo(cache))
        slow_calls = self._watchdog.watch(Trouble.OPENFLOW, SLOW_CALL)
        self._checks = Checks(bridge, factory.configured(conf, bridge, cache, slow_calls))
        self._watchlist = Watchlist(ours.verify_timeout)
        self._lock = threading.Lock()
        self._news = threading.Event()
        backoff = Backoff(ours.retry_initial, ours.retry_max)
        self._participant = Participant(
            self._process, ours.max_batch, 1, backoff, troubles=self.troubles
        )
        self._participant.start()
        self._pause = 0.0
        self._watcher = Loop("agent_flows watch", self._look, self.troubles, Trouble.PORTS)
        self._watcher.start()
        for event in (events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.subscribe(self._rule_changed, cached.SECURITYGROUPRULE, event)
        registry.subscribe(self._ovs_restarted, resources.AGENT, events.OVS_RESTARTED)

    def stop(self, timeout: float) -> None:
        """End both threads, within ``timeout`` seconds each."""
        for event in (events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.unsubscribe(self._rule_changed, cached.SECURITYGROUPRULE, event)
        registry.unsubscribe(self._ovs_restarted, resources.AGENT, events.OVS_RESTARTED)
        self._watcher.stopping.set()
        self._news.set()
        self._watcher.stop(timeout)
        self._participant.stop(timeout)
        self._watchdog.stop(timeout)

    # What the extension says.

    def report_to(self, reporting: Reporting) -> None:
        """From now on outcomes go there."""
        self._reporting = reporting

    def quarantine(self, ports: Collection[object]) -> None:
        """Nothing: with another driver the data plane is not ours to change. A port that is not
        proven stays DOWN for the server, and open as that driver leaves it."""

    def handle(self, port: Mapping[str, Any]) -> None:
        """The agent takes up a port. One that stands, asks for no other wiring than it has and is
        ACTIVE already costs nothing."""
        plugged = plugged_port.PluggedPort.of(port)
        settled = plugged_port.is_active(port) or not plugged.admin_state_up
        with self._lock:
            self._watchlist.here(plugged, time.monotonic(), settled=settled)
        self._news.set()

    def gone(self, port_id: str) -> None:
        with self._lock:
            self._watchlist.gone(port_id, time.monotonic())
        self._news.set()

    def refresh(self, groups: Collection[str], info: SecurityGroupInfo) -> None:
        """Nothing: changed rules are heard of here, too, and the other driver needs its time."""

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        """Look at ports (None: all) and report them, changed or not. Of those that nobody spoke
        of, report the ones without an interface."""
        with self._lock:
            self._watchlist.again(port_ids, time.monotonic())
            unheard = frozenset(port_ids or ()) - self._watchlist.known()
        self._news.set()
        if absent := self._checks.absent(unheard):
            works = [Work(port_id, 0, {}, 1) for port_id in sorted(absent)]
            # What is not delivered, the server asks for again.
            deliver = self._reporting.deliver
            self._runner.run(
                FlowName.UNWIRE, lambda: flows.absence(self._checks), works, {}, deliver
            )

    # What else is heard.

    def _rule_changed(self, resource: str, event: str, trigger: object, payload: Any) -> None:
        rule = payload.states[-1]
        if rule is not None:
            with self._lock:
                self._watchlist.rules_changed(rule.security_group_id, time.monotonic())
            self._news.set()

    def _ovs_restarted(
        self, resource: str, event: str, trigger: object, payload: object = None
    ) -> None:
        """No flow is left; the agent tells of it, and says no more than that of ports."""
        with self._lock:
            self._watchlist.audit()
        self._news.set()

    # Waiting.

    def _look(self) -> None:
        if self._watcher.stopping.wait(self._pause):
            return
        with self._lock:
            rest = 0.0 if self._watchlist.waits else self._watchlist.rest(time.monotonic())
        self._news.wait(rest)
        self._news.clear()
        if self._watcher.stopping.is_set():
            return
        with self._lock:
            sight = self._watchlist.sight(time.monotonic())
        began = time.monotonic()
        good: set[str] = set()
        try:
            good = self._good(sight)
        finally:
            # Whatever happened: time passes for those that are waited for.
            now = time.monotonic()
            with self._lock:
                due = self._watchlist.seen(sight, good, now)
            self._participant.submit(due)
            self._pause = max(_BETWEEN_LOOKS, (now - began) * (1 / _SHARE - 1))

    def _good(self, sight: Sight) -> set[str]:
        if not sight.present and not sight.gone:
            return set()
        try:
            return self._checks.good(sight)
        except TaskFailed as exc:
            # If it lasts, it meets the ports' flows when their time is up, and is their outcome.
            LOG.debug("Ports could not be looked at: %s", exc)
            return set()

    # Reporting.

    def _process(self, requests: Sequence[Request]) -> dict[str, Verdict]:
        attempts = {each.port_id: each.attempt for each in requests}
        with self._lock:
            claimed = self._watchlist.claim(attempts)
        retried: set[str] = set()
        located = self._checks.locate(claimed.present)
        with self._lock:
            names = {
                port_id: self._watchlist.flow(port_id, located.interfaces.get(port_id))
                for port_id in claimed.present
            }
        for name in (FlowName.WIRE, FlowName.REFRESH):
            ports = {id_: each for id_, each in claimed.present.items() if names[id_] is name}
            retried |= self._run(name, flows.wire, ports, located, attempts)
        retried |= self._run(FlowName.UNWIRE, flows.unwire, claimed.gone, Located(), attempts)
        return dict.fromkeys(retried, Verdict.RETRY)

    def _run(
        self,
        name: FlowName,
        compose: Compose,
        ports: Mapping[str, PluggedPort],
        located: Located,
        attempts: Mapping[str, int],
    ) -> set[str]:
        """Run one flow; the ports for which it is to be run again."""
        retried: set[str] = set()
        if not ports:
            return retried
        works = [self._work(port, attempts[port_id]) for port_id, port in ports.items()]
        waiting = {work.port_id: work for work in works}

        def deliver(reports: Sequence[FlowReport]) -> None:
            for report in reports:
                waiting.pop(report.resource_id)
            retried.update(self._settle(reports, ports, located))

        try:
            self._runner.run(
                name,
                lambda: compose(self._checks),
                works,
                {"plugged": ports, "located": located},
                deliver,
            )
        # The one door that keeps a batch alive.
        except Exception as exc:
            LOG.exception("%s: a batch of %d ports could not be run", name, len(waiting))
            error = error_of(exc)
            deliver([
                self._runner.never_ran(name, work, ApplySecurityGroups, error)
                for work in list(waiting.values())
            ])  # fmt: skip
        return retried

    def _work(self, port: PluggedPort, attempt: int) -> Work:
        # Read before what they are of, so that no report claims more than was looked at.
        groups = {group: self._revisions.group(group) for group in port.groups}
        return Work(port.port_id, self._revisions.port(port.port_id), groups, attempt)

    def _settle(
        self, reports: Sequence[FlowReport], ports: Mapping[str, PluggedPort], located: Located
    ) -> set[str]:
        delivered = self._delivered(reports)
        with self._lock:
            return {
                report.resource_id
                for report in reports
                if self._watchlist.settle(
                    ports[report.resource_id],
                    located.interfaces.get(report.resource_id),
                    succeeded=delivered and report.failed is None,
                )
            }

    def _delivered(self, reports: Sequence[FlowReport]) -> bool:
        try:
            self._reporting.deliver(reports)
        # Whatever the receiver's trouble is: what it did not take is reported again.
        except Exception as exc:  # noqa: BLE001
            LOG.error("%d reports could not be delivered: %s", len(reports), described(exc))
            self.troubles.report(Trouble.OUTBOX, described(exc))
            return False
        self.troubles.clear(Trouble.OUTBOX)
        return True
