"""The OVS agent's extension (``[agent] extensions = agent_flows``): closes new ports, sends reports
and heartbeats."""

import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neutron.api.rpc.callbacks import resources
from neutron.api.rpc.handlers.resources_rpc import ResourcesPullRpcApi
from neutron.conf.agent.securitygroups_rpc import register_securitygroups_opts
from neutron_lib import rpc as n_rpc
from neutron_lib.agent import l2_extension
from neutron_lib.callbacks import events, registry
from neutron_lib.plugins.ml2 import ovs_constants
from oslo_config import cfg
from oslo_log import log
from ovsdbapp import exceptions

from agent_flows import conf as options
from agent_flows import process_report, tracing
from agent_flows.engine.runner import Runner, Work, error_of
from agent_flows.engine.task import TaskFailed
from agent_flows.engine.transcript import utcnow
from agent_flows.fairness import keep_loaded
from agent_flows.neutron import privileged
from agent_flows.neutron.agent import events as port_events
from agent_flows.neutron.agent import probe, quarantine
from agent_flows.neutron.agent.cached_state import CachedState, SettledDigest
from agent_flows.neutron.agent.catch_up import CacheUpdate, CatchUpLoop
from agent_flows.neutron.agent.events import EventLoop, Firewall
from agent_flows.neutron.agent.firewall_driver import FIREWALL
from agent_flows.neutron.agent.probe import Probe
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import CachedRevisions, SecurityGroupInfo
from agent_flows.neutron.verify.verifier import Verifier
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.report import FlowName, Trouble
from agent_flows.reporting import host_key
from agent_flows.reporting.comparison import Comparison
from agent_flows.reporting.heartbeat import Heartbeat
from agent_flows.reporting.observer import UNOBSERVED, Observer
from agent_flows.reporting.outbox import Outbox
from agent_flows.reporting.reporter import Reporter
from agent_flows.reporting.state_dir import take
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.rpc.listener import Listener
from agent_flows.rpc.refusals import Refusals
from agent_flows.rpc.revisions import NOT_COMPARED
from agent_flows.rpc.signing import Signer
from agent_flows.secgroups.tasks import ApplySecurityGroups
from agent_flows.supervision import Troubles, described

if TYPE_CHECKING:
    from agent_flows.exporter import Exporter

LOG = log.getLogger(__name__)

_BETWEEN_RESYNCS = 60.0
"""Seconds between two resyncs of ports of which the server knows nothing: each compares every flow
of the bridge."""
DRIVER = "agent_flows"
"""The name of our firewall driver in Neutron's configuration."""
_VERSION = metadata.version("agent-flows")


class AgentFlowsAgentExtension(l2_extension.L2AgentExtension):  # type: ignore[misc]  # untyped
    """Runs inside the agent's process.

    The agent's only loop calls ``handle_port`` and ``delete_port``: they queue an
    event and return. A thread handles the events in order, many ports at once.
    """

    def __init__(self) -> None:
        """Called before the agent sets up its bridge, where NORMAL then passes everything that is
        plugged until the firewall driver is loaded: on a switch without flows, as after a boot of
        the host, our floor has to be there first."""
        super().__init__()
        register_securitygroups_opts(cfg.CONF)
        self.troubles = Troubles()
        self._lay_floor()

    def consume_api(self, agent_api: Any) -> None:
        self._agent_api = agent_api

    def initialize(self, connection: object, driver_type: str) -> None:
        """Called before the agent loads its firewall driver.

        Raises ValueError, which ends the agent with one line in its log, in an agent that is not
        Open vSwitch's, and for options that contradict each other or a state directory that
        cannot be used.
        """
        if driver_type != ovs_constants.EXTENSION_DRIVER_TYPE:
            raise ValueError(f"agent_flows works in the Open vSwitch agent, not in {driver_type}")
        conf = options.register(cfg.CONF)
        options.check(conf)
        ours = conf[options.AGENT]
        # The agent's user, which may not be root, has a directory there.
        conf.set_default("state_dir", "$state_path/agent-flows", options.AGENT)
        state_dir = Path(ours.state_dir)
        # With drop_flows_on_start, the agent's set-up of the bridge has deleted every flow.
        self._lay_floor()
        try:
            self._lock = take(state_dir)
            self._outbox = Outbox(
                state_dir / "outbox.sqlite", ours.outbox_max_reports, self.troubles
            )
            keys = host_key.load(state_dir, ours.host_key_lifetime)
        except (OSError, sqlite3.Error) as exc:
            raise ValueError(
                f"[{options.AGENT}] state_dir {state_dir} cannot be used: {described(exc)}"
            ) from exc
        self._exporter: Exporter | None = None
        observer = self._observed(ours.metrics_port)
        traces = tracing.of(conf, "neutron-openvswitch-agent")
        self._outbox.stored = (observer.stored, traces.stored)
        signer = Signer(self._outbox.identity, conf.host, keys)
        client = ServerClient(
            n_rpc.TRANSPORT,
            conf.host,
            ours.rpc_timeout,
            signer,
            observe=observer.called,
            traces=traces,
        )
        cache = self._agent_api.plugin_rpc.remote_resource_cache
        self._bridge = self._agent_api.br_int
        self._runner = Runner(conf.host)
        self._reporting = Reporting(
            deliver=self._outbox.put,
            revision=CachedRevisions(SecurityGroupInfo(cache)).of_details,
        )
        self._firewall: Firewall | None = None
        self._next_resync = 0.0
        cached = CachedState(cache, conf.host)
        self._desired = SettledDigest(cached.revisions)
        update = CacheUpdate(cache, ResourcesPullRpcApi(), cached, client, self._awaited)
        self._catch_up = CatchUpLoop(update.run, self.troubles)
        self._events = EventLoop(
            self._firewall_for, SecurityGroupInfo(cache), self.troubles, self._failed
        )
        self._started_at = utcnow()
        self._last_state: dict[str, Any] = {}
        # Neutron's agent writes the report itself.
        process_report.add_to_others("agent_flows, at its last heartbeat", lambda: self._last_state)
        self._reporter = Reporter(
            self._outbox, client, self.troubles, lost=self._lost, observer=observer
        )
        self._heartbeat = Heartbeat(
            client,
            ours.heartbeat_interval,
            self.state,
            self._reporter.heard,
            troubles=self.troubles,
            comparison=Comparison(
                self._digest, lambda: self._catch_up.request(None), ours.heartbeat_interval
            ),
        )
        self.troubles.changed = self._heartbeat.soon
        self._listener = Listener(
            n_rpc.TRANSPORT,
            transport.agent_target(conf.host),
            AgentEndpoint(self, Refusals(observer.cast_refused)),
            self.troubles,
        )
        self._probe = Probe(
            _ofctl(conf),
            self._bridge.br_name,
            self._bridge_exists,
            self.troubles,
            answered=self._lay_missing_floor,
        )
        registry.subscribe(self._firewall_loaded, FIREWALL, events.AFTER_INIT)
        for event in (events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.subscribe(self._rule_changed, resources.SECURITYGROUPRULE, event)
        for part in (self._events, self._reporter, self._listener, self._heartbeat, self._probe):
            part.start()
        if self._exporter is not None:
            self._exporter.start()
        keep_loaded()

    def _observed(self, port: int) -> Observer:
        """The metrics, if there is a ``port`` for them."""
        if not port:
            return UNOBSERVED
        # Prometheus' client takes some MiB, which only hosts that serve metrics need.
        from agent_flows.exporter import Exporter
        from agent_flows.reporting.metrics import AgentMetrics, Gauges

        metrics = AgentMetrics(
            Gauges(self._outbox.backlog, self._waiting, self._oldest, self._all_troubles)
        )
        ports = range(port, port + 1)
        self._exporter = Exporter(lambda: metrics.registry, ports, self.troubles, Trouble.METRICS)
        return metrics

    def stop(self, timeout: float) -> None:
        """End the threads, within ``timeout`` seconds each. Neutron's agent never calls it."""
        registry.unsubscribe(self._firewall_loaded, FIREWALL, events.AFTER_INIT)
        for event in (events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.unsubscribe(self._rule_changed, resources.SECURITYGROUPRULE, event)
        self._listener.stop()
        for part in (self._events, self._catch_up, self._probe, self._heartbeat, self._reporter):
            part.stop(timeout)
        if self._exporter is not None:
            self._exporter.stop(timeout)
        self._outbox.close()
        self._lock.close()

    # Called by the agent.

    def handle_port(self, context: object, data: Mapping[str, Any]) -> None:
        self._events.put(port_events.PortUpdated(dict(data)))

    def delete_port(self, context: object, data: Mapping[str, Any]) -> None:
        self._events.put(port_events.PortDeleted(str(data["port_id"])))

    # Called by the server.

    def ports_changed(self, port_ids: Collection[str]) -> None:
        """Reports of these ports were about an older desired state: a notification of Neutron's
        may have been lost."""
        self._catch_up.request(port_ids)

    def security_groups_changed(self, ids: Collection[str], change: object = None) -> None:
        """Nothing: Neutron notifies its agents itself."""

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        self._catch_up.request(port_ids, lambda: self._events.put(port_events.Resync(port_ids)))

    # State of the host.

    def state(self) -> dict[str, Any]:
        """The contents of a heartbeat."""
        troubles = self._all_troubles()
        age = None if self._firewall is None else self._firewall.audit_age()
        self._last_state = {
            "bridge": self._bridge.br_name,
            "troubles": troubles,
            "trouble": next(iter(troubles.values()), None),
            "waiting": self._waiting(),
            "unreported": self._unreported(),
            "audit_age": None if age is None else round(age, 1),
            "version": _VERSION,
            "boot_id": self._outbox.identity.boot_id,
            "started_at": self._started_at.isoformat(),
        }
        return self._last_state

    def _all_troubles(self) -> dict[str, str]:
        troubles = dict(self.troubles.current())
        firewall = self._firewall
        return troubles if firewall is None else {**firewall.troubles.current(), **troubles}

    def _waiting(self) -> int:
        return 0 if self._firewall is None else self._firewall.waiting()

    def _oldest(self) -> float | None:
        return None if self._firewall is None else self._firewall.oldest()

    def _unreported(self) -> int | None:
        try:
            return len(self._outbox)
        except sqlite3.Error as exc:
            self.troubles.report(Trouble.OUTBOX, described(exc))
            return None

    def _digest(self) -> str:
        """Of the desired state that the agent has (:mod:`agent_flows.rpc.revisions`)."""
        try:
            digest = self._desired()
        # The one door of Neutron's objects: heartbeats go on without a digest.
        except Exception as exc:
            LOG.exception("Could not read the desired state")
            reason = f"the desired state could not be compared: {described(exc)}"
            self.troubles.report(Trouble.RESYNC, reason)
            return NOT_COMPARED
        self.troubles.clear(Trouble.RESYNC)
        return digest

    def _lay_floor(self) -> None:
        """If it cannot be laid the host is in trouble, until the switch answers the probe."""
        if cfg.CONF.SECURITYGROUP.firewall_driver != DRIVER:
            return
        conf = options.register(cfg.CONF)
        try:
            quarantine.lay_floor(_ofctl(conf))
        except TaskFailed as exc:
            bridge = conf.OVS.integration_bridge
            reason = f"packets may pass {bridge} without security groups: {exc}"
            if Trouble.FLOOR not in self.troubles.current():
                LOG.warning("%s", reason)
            self.troubles.report(Trouble.FLOOR, reason)
        else:
            self.troubles.clear(Trouble.FLOOR)

    def _lay_missing_floor(self) -> None:
        if Trouble.FLOOR in self.troubles.current():
            self._lay_floor()

    def _bridge_exists(self) -> bool:
        try:
            return bool(self._bridge.bridge_exists(self._bridge.br_name))
        except (exceptions.OvsdbAppException, RuntimeError):
            # OVSDB does not answer, so this is unknown; the switch is unreachable in any case.
            return True

    # Reactions.

    def _lost(self, port_ids: Collection[str]) -> None:
        """The stored reports of these ports are unreadable."""
        self._events.put(port_events.Resync(port_ids))

    def _awaited(self, port_ids: Collection[str]) -> None:
        """The server knows nothing of these ports. Their reports may be on their way."""
        now = time.monotonic()
        if self._unreported() == 0 and now >= self._next_resync:
            self._next_resync = now + _BETWEEN_RESYNCS
            self._events.put(port_events.Resync(port_ids))

    def _firewall_loaded(
        self, resource: str, event: str, trigger: Firewall, payload: object = None
    ) -> None:
        self._adopt(trigger)

    def _firewall_for(self, waiting: Sequence[port_events.Event]) -> Firewall | None:
        # The agent has loaded its driver before its first update of a port. Earlier events may be
        # dropped: every port is processed after the start.
        if self._firewall is None and any(
            isinstance(event, port_events.PortUpdated) for event in waiting
        ):
            self._adopt(Verifier(self._agent_api, self._reporting))
        return self._firewall

    def _adopt(self, firewall: Firewall) -> None:
        firewall.report_to(self._reporting)
        firewall.troubles.changed = self._heartbeat.soon
        self._firewall = firewall
        self._heartbeat.soon()

    def _rule_changed(self, resource: str, event: str, trigger: object, payload: Any) -> None:
        rule = payload.states[-1]
        if rule is not None:
            self._events.put(port_events.RulesChanged(rule.security_group_id))

    def _failed(self, update: port_events.PortUpdated, exc: Exception) -> None:
        """Report the port as failed: its update could not be handled."""
        try:
            revision = self._reporting.revision(update.port_id, update.details)
            work = Work(update.port_id, revision, {}, 1)
            error = error_of(exc)
            report = self._runner.never_ran(FlowName.WIRE, work, ApplySecurityGroups, error)
            self._reporting.deliver([report])
        # It stays the host's trouble, which names the port.
        except Exception:
            LOG.exception(
                "Could not report port %s", update.port_id, extra={"port": update.port_id}
            )


def _ofctl(conf: Any) -> Ofctl:
    """Of the integration bridge."""
    run_dir = conf[options.AGENT].ovs_run_dir
    return Ofctl(run_dir, conf.OVS.integration_bridge, probe.SECONDS, privileged.execute)
