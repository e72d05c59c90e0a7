"""The standalone agent: one process on every host, made of its parts here."""

import sqlite3
import sys
from collections.abc import Callable, Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows import privileged, process, process_report, threads, tracing
from agent_flows.agent.auditor import AgentAuditor, suspicion_of, suspicion_outside
from agent_flows.agent.catch_up import CatchUp
from agent_flows.agent.flows import Switch
from agent_flows.agent.site import AgentSite
from agent_flows.agent.upkeep import Upkeep
from agent_flows.engine.drift import DriftWatch, Suspicion
from agent_flows.engine.reconciler import Reconciler
from agent_flows.engine.runner import Runner
from agent_flows.engine.transcript import utcnow
from agent_flows.l2.bindings import Bindings
from agent_flows.l2.bridges import Bridges
from agent_flows.l2.networks import Networks
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.l2.vlans import VlanRecords
from agent_flows.l2.vswitchd import SwitchWatch
from agent_flows.openflow.monitor import Changes, FlowMonitor
from agent_flows.openflow.ofctl import SLOW_CALL, Ofctl
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.report import Trouble
from agent_flows.reporting import host_key
from agent_flows.reporting.comparison import Comparison
from agent_flows.reporting.heartbeat import Heartbeat
from agent_flows.reporting.observer import UNOBSERVED, Observer
from agent_flows.reporting.outbox import Outbox
from agent_flows.reporting.reporter import Reporter
from agent_flows.reporting.state_dir import take
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.rpc.listener import Listener, briefly
from agent_flows.rpc.refusals import Refusals
from agent_flows.rpc.signing import Signer
from agent_flows.secgroups.firewall import Firewall
from agent_flows.supervision import Backoff, Troubles, described
from agent_flows.validation import is_port_id
from agent_flows.watchdog import Watchdog

if TYPE_CHECKING:
    from agent_flows.exporter import Exporter

LOG = log.getLogger(__name__)

_PROG = "agent-flows-agent"

# Seconds at stop: a flow under way may end, a call to a silent server need not.
_FLOW_PATIENCE = 5.0
_CALL_PATIENCE = 1.0
_VERSION = metadata.version("agent_flows")


class AgentService:
    """Wires the ports of this host. Stopping it leaves every flow in place.

    ``server`` replaces the RPC client.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        transport_: oslo_messaging.Transport,
        server: Any = None,
    ) -> None:
        self._all = conf
        self._conf = conf[options.AGENT]
        self._transport = transport_
        self._server = server
        self._started_at = utcnow()
        self.troubles = Troubles()
        self._unreadable = False
        self._last_state: dict[str, Any] = {}
        self._exporter: Exporter | None = None

        process_report.add_section("Agent, at its last heartbeat", self.last_state)

    def start(self) -> None:
        """Returns at once; what is not there yet is waited for in the background.

        Raises :class:`agent_flows.reporting.state_dir.StateDirTaken`, OSError or
        sqlite3.Error if the state directory cannot be used.
        """
        conf = self._conf
        state_dir = Path(conf.state_dir)
        self._lock = take(state_dir)
        self._outbox = Outbox(state_dir / "outbox.sqlite", conf.outbox_max_reports, self.troubles)
        observer = self._observed()
        traces = tracing.of(self._all, _PROG)
        self._outbox.stored = (observer.stored, traces.stored)
        if self._server is None:
            keys = host_key.load(state_dir, conf.host_key_lifetime)
            signer = Signer(self._outbox.identity, conf.host, keys)
            self._server = ServerClient(
                self._transport,
                conf.host,
                conf.rpc_timeout,
                signer,
                observe=observer.called,
                traces=traces,
            )
        self._watchdog = Watchdog(self.troubles)
        self._ovsdb = Ovsdb(conf.ovsdb_connection, conf.ovsdb_timeout, options.ovsdb_tls(conf))
        bridge = conf.integration_bridge
        bridges = self._bridges = Bridges(
            self._ovsdb, bridge, conf.datapath_type, conf.bridge_mappings
        )
        networks = Networks(VlanRecords(self._ovsdb, bridge), bridges, self._ofctl)
        pipeline = Pipeline(Home.OWN, frozenset(conf.permitted_ethertypes))
        switch = Switch(
            bridge,
            self._ovsdb,
            networks,
            Bindings(self._ovsdb),
            Firewall(
                self._ofctl(bridge),
                pipeline,
                networks=networks,
                remove_strange=conf.remove_strange_flows,
            ),
            self._ofctl(bridge),
        )
        runner = Runner(conf.host, watch=self._watchdog.watch(Trouble.FLOW, conf.slow_flow))
        site = AgentSite(switch, self._server, self._outbox, self._groups_changed)
        self._reconciler = Reconciler(
            site,
            runner,
            backoff=Backoff(conf.retry_initial, conf.retry_max),
            max_batch=conf.max_batch,
            workers=conf.workers,
            troubles=self.troubles,
        )
        self._drift_watch = DriftWatch(
            AgentAuditor(switch, self._reconciler.table, self._ofctl, self._is_intact),
            self._reconciler.drifted,
            conf.audit_interval,
            self.troubles,
        )
        self._upkeep = Upkeep(
            switch,
            bridges,
            self._reconciler,
            self._drift_watch.suspect,
            troubles=self.troubles,
        )
        self._catch_up = CatchUp(
            self._server,
            site,
            self._reconciler,
            self._upkeep,
            unreported=lambda: self._unreported() != 0,
            troubles=self.troubles,
        )
        self._watch = SwitchWatch(
            conf.ovs_run_dir,
            bridge,
            self._upkeep.switch_restarted,
            on_gone=self._upkeep.switch_gone,
            on_answer=self._upkeep.switch_answers,
            troubles=self.troubles,
        )
        self._monitors = [
            self._monitor(bridge, suspicion_of),
            *(
                self._monitor(physical, suspicion_outside)
                for physical in sorted(set(conf.bridge_mappings.values()))
            ),
        ]
        self._reporter = Reporter(
            self._outbox,
            self._server,
            self.troubles,
            lost=lambda port_ids: self._reconciler.submit(
                filter(is_port_id, port_ids), forced=True
            ),
            observer=observer,
        )
        self._heartbeat = Heartbeat(
            self._server,
            conf.heartbeat_interval,
            self.state,
            self._reporter.heard,
            self._catch_up.server_back,
            troubles=self.troubles,
            comparison=Comparison(
                site.knowledge.digest, self._catch_up.digests_differ, conf.heartbeat_interval
            ),
        )
        self.troubles.changed = self._heartbeat.soon
        # Its start waits for the message bus; ports are not to wait for that.
        self._listener = Listener(
            self._transport,
            transport.agent_target(conf.host),
            AgentEndpoint(self._catch_up, Refusals(observer.cast_refused)),
            self.troubles,
        )
        self._watchdog.start()
        self._drift_watch.start()
        self._listener.start()
        self._reporter.start()
        self._heartbeat.start()
        self._upkeep.start(self._watch, self._monitors, self._catch_up.resync)
        self._catch_up.start()
        if self._exporter is not None:
            self._exporter.start()
        LOG.info("The agent of host %s has started, bridge %s", conf.host, bridge)

    def stop(self) -> None:
        """New work is refused first, then what runs may end; flows and reports stay."""
        self._listener.stop()
        self._drift_watch.stop(_CALL_PATIENCE)
        self._upkeep.stop(_CALL_PATIENCE)
        self._catch_up.stop(_CALL_PATIENCE)
        self._reconciler.stop(_FLOW_PATIENCE)
        self._heartbeat.stop(_CALL_PATIENCE)
        self._reporter.stop(_CALL_PATIENCE)
        self._watchdog.stop(_CALL_PATIENCE)
        self._watch.stop()
        for monitor in self._monitors:
            monitor.stop(_CALL_PATIENCE)
        if self._exporter is not None:
            self._exporter.stop(_CALL_PATIENCE)
        self._ovsdb.stop()

    def wait(self) -> None:
        self._listener.wait()
        self._lock.close()
        LOG.info("The agent of host %s has ended; flows stay in place", self._conf.host)

    def state(self) -> dict[str, Any]:
        """The state of the agent that its heartbeats report.

        Times are in seconds: ``oldest`` is for how long the port that waits
        longest has waited, ``oldest_flow`` for how long the oldest flow runs,
        ``audit_age`` since the switch was last compared with all that was proven.
        """
        # Before the troubles are read: it may add one.
        unreported = self._unreported()
        troubles = dict(self.troubles.current())
        table = self._reconciler.table
        self._last_state = {
            "bridge": self._conf.integration_bridge,
            "troubles": troubles,
            "trouble": next(iter(troubles.values()), None),
            "wired": sum(life.proven for life in table.lives().values()),
            "known": len(table.known()),
            "waiting": table.waiting(),
            "oldest": _tenths(table.oldest()),
            "oldest_flow": _tenths(self._watchdog.oldest(Trouble.FLOW)),
            "unreported": unreported,
            "audit_age": _tenths(self._drift_watch.audit_age()),
            "version": _VERSION,
            "boot_id": self._outbox.identity.boot_id,
            "started_at": self._started_at.isoformat(),
        }
        return self._last_state

    def last_state(self) -> dict[str, Any]:
        """The contents of the last heartbeat; empty before the first. Takes no lock."""
        return self._last_state

    def _observed(self) -> Observer:
        """The metrics, if a port is set for them."""
        if not self._conf.metrics_port:
            return UNOBSERVED
        # Prometheus' client takes some MiB, which only hosts that serve metrics need.
        from agent_flows.exporter import Exporter
        from agent_flows.reporting.metrics import AgentMetrics, Gauges

        metrics = AgentMetrics(
            Gauges(
                self._outbox.backlog,
                self._waiting,
                self._oldest,
                self.troubles.current,
            )
        )
        port = self._conf.metrics_port
        self._exporter = Exporter(
            lambda: metrics.registry, range(port, port + 1), self.troubles, Trouble.METRICS
        )
        return metrics

    def _waiting(self) -> int:
        return self._reconciler.table.waiting()

    def _oldest(self) -> float | None:
        return self._reconciler.table.oldest()

    def _groups_changed(self, port_ids: Collection[str]) -> None:
        self._catch_up.ports_of_groups_changed(port_ids)

    def _is_intact(self) -> bool:
        return self._upkeep.is_intact()

    def _unreported(self) -> int | None:
        try:
            unreported = len(self._outbox)
        except sqlite3.Error as exc:
            self._unreadable = True
            self.troubles.report(Trouble.OUTBOX, described(exc))
            return None
        if self._unreadable:
            self._unreadable = False
            self.troubles.clear(Trouble.OUTBOX)
        return unreported

    def _monitor(self, bridge: str, suspicion: Callable[[str, Changes], Suspicion]) -> FlowMonitor:
        return FlowMonitor(
            self._conf.ovs_run_dir,
            bridge,
            lambda changes: self._drift_watch.suspect(suspicion(bridge, changes)),
            self.troubles,
            is_missing=lambda: self._bridges.is_missing(bridge),
        )

    def _ofctl(self, bridge: str) -> Ofctl:
        return Ofctl(
            self._conf.ovs_run_dir,
            bridge,
            self._conf.openflow_timeout,
            is_missing=lambda: self._bridges.is_missing(bridge),
            watch=self._watchdog.watch(Trouble.OPENFLOW, SLOW_CALL),
        )


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; 1 with one line on standard error if it cannot start."""
    threads.use(_PROG)
    conf = process.prepare(sys.argv[1:] if argv is None else argv, _PROG)
    ending = process.Ending()
    try:
        privileged.start(ending.fail)
    except privileged.NotPermitted as exc:
        print(f"{_PROG}: {exc}", file=sys.stderr)
        return 1
    bus = transport.get_transport(conf)
    service = AgentService(conf, bus)
    try:
        service.start()
    except (OSError, sqlite3.Error) as exc:
        print(f"{_PROG}: {conf[options.AGENT].state_dir}: {exc}", file=sys.stderr)
        return 1
    except ValueError as exc:
        print(f"{_PROG}: {exc}", file=sys.stderr)
        return 1
    process.started()
    ending.wait()
    service.stop()
    service.wait()
    briefly(bus.cleanup)
    return process.bounded_end(1 if ending.failed else 0)
