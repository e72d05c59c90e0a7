"""Hosts with another firewall driver than ours: checks what that one installed, and reports it."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from neutron.api.rpc.callbacks import resources as cached
from neutron_lib.callbacks import events, registry, resources
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows.engine.reconciler import Reconciler
from agent_flows.engine.runner import Runner, Work
from agent_flows.engine.task import TaskFailed
from agent_flows.neutron import privileged, row_events
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import CachedRevisions, SecurityGroupInfo
from agent_flows.neutron.verify import factory, flows, plugged_port
from agent_flows.neutron.verify.checks import Checks
from agent_flows.neutron.verify.openvswitch import OpenvswitchInspector
from agent_flows.neutron.verify.site import VerifierSite
from agent_flows.neutron.verify.watchlist import Watched, Watchlist
from agent_flows.openflow.monitor import Changes, FlowMonitor, changes_of
from agent_flows.openflow.ofctl import SLOW_CALL
from agent_flows.report import FlowName, Trouble
from agent_flows.supervision import Backoff, Loop, Troubles
from agent_flows.watchdog import Watchdog

LOG = log.getLogger(__name__)

_BETWEEN_LOOKS = 0.5
"""Seconds. One look serves all ports that are awaited."""
_SHARE = 0.2
"""The largest share of the time that looks take."""


class Verifier:
    """Takes the place of our driver for the extension.

    A port's flow runs as soon as everything the other driver must install is
    there, or when ``verify_timeout`` has passed; so no port waits for another.
    Proven ports are looked at again when something changes on the bridge, and every
    ``verify_timeout``: the driver writes their flows again on many occasions, and
    reports no failure.

    Changed rules are read from the agent's resource cache. Nothing here changes
    the switch.
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
        slow_calls = self._watchdog.watch(Trouble.OPENFLOW, SLOW_CALL)
        inspector = factory.configured(conf, bridge, cache, slow_calls)
        self._checks = Checks(bridge, inspector)
        self._site = VerifierSite(
            self._checks,
            CachedRevisions(SecurityGroupInfo(cache)),
            self._watched,
            self.troubles,
        )
        self.report_to(reporting)
        self._reconciler = Reconciler(
            self._site,
            self._runner,
            backoff=Backoff(ours.retry_initial, ours.retry_max),
            max_batch=ours.max_batch,
            troubles=self.troubles,
        )
        self._watchlist = Watchlist(self._reconciler.table, ours.verify_timeout)
        self._reconciler.start()
        self._pause = 0.0
        self._looks = Loop("agent_flows looks", self._look, self.troubles, Trouble.PORTS)
        self._looks.start()
        self._unwatch = row_events.watch(bridge, lambda _: self._watchlist.audit())
        self._bridge = bridge
        self._monitor: FlowMonitor | None = None
        if isinstance(inspector, OpenvswitchInspector):
            self._monitor = FlowMonitor(
                ours.ovs_run_dir,
                bridge.br_name,
                self._flows_changed,
                self.troubles,
                start=privileged.start,
                read=changes_of(bridge.default_cookie),
            )
            self._monitor.start()
        for event in (events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.subscribe(self._rule_changed, cached.SECURITYGROUPRULE, event)
        registry.subscribe(self._ovs_restarted, resources.AGENT, events.OVS_RESTARTED)

    def stop(self, timeout: float) -> None:
        """End all threads, within ``timeout`` seconds each."""
        for event in (events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.unsubscribe(self._rule_changed, cached.SECURITYGROUPRULE, event)
        registry.unsubscribe(self._ovs_restarted, resources.AGENT, events.OVS_RESTARTED)
        self._unwatch()
        if self._monitor is not None:
            self._monitor.stop(timeout)
        self._looks.stopping.set()
        self._watchlist.news.set()
        self._looks.stop(timeout)
        self._reconciler.stop(timeout)
        self._watchdog.stop(timeout)

    # What the extension calls.

    def report_to(self, reporting: Reporting) -> None:
        """Deliver reports there from now on."""
        self._site.reporting = reporting

    def waiting(self) -> int:
        """How many ports wait for a flow, or for its end."""
        return self._reconciler.table.waiting()

    def oldest(self) -> float | None:
        """For how many seconds the port that waits longest has waited; None without one."""
        return self._reconciler.table.oldest()

    def audit_age(self) -> float | None:
        """Seconds since every proven port was last looked at; None if they never were."""
        return self._watchlist.audit_age()

    def quarantine(self, ports: Collection[object]) -> None:
        """Nothing: the other driver decides about traffic. A port that is not proven stays DOWN in
        the server, and as open as that driver leaves it."""

    def handle(self, port: Mapping[str, Any]) -> None:
        """The agent takes up a port. Nothing is done for a proven port that needs no other wiring
        and is ACTIVE already."""
        plugged = plugged_port.PluggedPort.of(port)
        settled = plugged_port.is_active(port) or not plugged.admin_state_up
        self._watchlist.here(plugged, settled=settled)

    def gone(self, port_id: str) -> None:
        self._watchlist.gone(port_id)

    def refresh(self, groups: Collection[str], info: SecurityGroupInfo) -> None:
        """Nothing: the verifier reads changed rules itself, and the other driver needs time."""

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        """Look at ports (None: all) and report them, changed or not. Of those that the agent never
        passed, report the ones without an interface."""
        unknown = self._watchlist.again(port_ids)
        if absent := self._checks.absent(unknown):
            works = [Work(port_id, 0, {}, 1) for port_id in sorted(absent)]
            # The server asks again for what is not delivered.
            deliver = self._site.reporting.deliver
            self._runner.run(
                FlowName.UNWIRE, lambda: flows.absence(self._checks), works, {}, deliver
            )

    # Events of the agent.

    def _rule_changed(self, resource: str, event: str, trigger: object, payload: Any) -> None:
        rule = payload.states[-1]
        if rule is not None:
            self._watchlist.rules_changed(rule.security_group_id)

    def _ovs_restarted(
        self, resource: str, event: str, trigger: object, payload: object = None
    ) -> None:
        """All flows are gone; the agent does not pass the ports again."""
        self._watchlist.audit()

    def _flows_changed(self, changes: Changes) -> None:
        """The flows of the driver may not be what they were. It is not known who deletes its flows:
        itself, or another program."""
        known = getattr(self._bridge, "reserved_cookies", ())
        foreign = changes.foreign.difference(known)
        if replace(changes, foreign=foreign, added=frozenset()):
            self._watchlist.audit()

    # Looks.

    def _watched(self, port_ids: Iterable[str]) -> Mapping[str, Watched]:
        return self._watchlist.watched(port_ids)

    def _look(self) -> None:
        if self._looks.stopping.wait(self._pause):
            return
        self._watchlist.news.wait(self._watchlist.pause())
        self._watchlist.news.clear()
        if self._looks.stopping.is_set():
            return
        seen = self._watchlist.to_look_at()
        began = time.monotonic()
        good: set[str] = set()
        try:
            good = self._good(seen)
        finally:
            # Also if the look failed: the time of the awaited ports passes.
            self._watchlist.looked(seen, good)
            self._pause = max(_BETWEEN_LOOKS, (time.monotonic() - began) * (1 / _SHARE - 1))

    def _good(self, seen: Mapping[str, Watched]) -> set[str]:
        try:
            good = self._checks.good(seen) if seen else set()
        except TaskFailed as exc:
            # If it lasts, the ports' flows fail with it when their time is over.
            LOG.debug("%d ports could not be looked at: %s", len(seen), exc)
            return set()
        self._watchlist.could_look()
        return good
