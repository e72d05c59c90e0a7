"""The standalone agent: one process on every host, made of its parts here."""

import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import oslo_messaging
from oslo_config import cfg
from oslo_log import log
from oslo_service.backend.base import ServiceBase

from agent_flows import conf as options
from agent_flows import process
from agent_flows.agent.control import Control
from agent_flows.agent.reconcile import Reconciler
from agent_flows.flows.heartbeat import Heartbeat
from agent_flows.flows.outbox import Outbox
from agent_flows.flows.participant import Participant
from agent_flows.flows.reporter import Reporter
from agent_flows.flows.runner import Runner
from agent_flows.l2.bindings import Bindings
from agent_flows.l2.bridges import Bridges
from agent_flows.l2.flows import Switch
from agent_flows.l2.networks import Networks
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.l2.vlans import Vlans
from agent_flows.l2.vswitchd import SwitchWatch
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.secgroups.firewall import Firewall
from agent_flows.secgroups.ofctl import Ofctl
from agent_flows.secgroups.pipeline import Home, Pipeline
from agent_flows.supervision import Backoff

LOG = log.getLogger(__name__)

_PROG = "agent-flows-agent"

# Seconds at stop: a flow under way may end, a call to a silent server need not.
_FLOW_PATIENCE = 5.0
_CALL_PATIENCE = 1.0
_BUS_PATIENCE = 3.0


# oslo.service publishes no types, so its classes are Any to mypy.
class AgentService(ServiceBase):  # type: ignore[misc]
    """Wires the ports of this host. Stopping it leaves every flow in place.

    ``server`` stands in for the RPC client.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        transport_: oslo_messaging.Transport,
        server: Any = None,
    ) -> None:
        self._conf = conf[options.AGENT]
        self._transport = transport_
        self._server = server or ServerClient(transport_, self._conf.host, self._conf.rpc_timeout)

    def start(self) -> None:
        """Returns at once; what is not there yet is waited for in the background."""
        conf = self._conf
        state_dir = Path(conf.state_dir)
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        outbox = Outbox(state_dir / "outbox.sqlite", conf.outbox_max_reports)
        self._ovsdb = Ovsdb(conf.ovsdb_connection, conf.ovsdb_timeout)
        bridge = conf.integration_bridge
        bridges = Bridges(self._ovsdb, bridge, conf.datapath_type, conf.bridge_mappings)
        switch = Switch(
            bridge,
            self._ovsdb,
            Networks(Vlans(self._ovsdb, bridge), bridges, self._ofctl),
            Bindings(self._ovsdb),
            Firewall(
                self._ofctl(bridge),
                Pipeline(Home.OWN, frozenset(conf.permitted_ethertypes)),
            ),
        )
        reconciler = Reconciler(switch, self._server, Runner(conf.host), outbox)
        self._participant = Participant(
            reconciler.process,
            conf.max_batch,
            conf.workers,
            Backoff(conf.retry_initial, conf.retry_max),
        )
        self._control = Control(switch, bridges, self._participant, reconciler, self._server)
        self._watch = SwitchWatch(conf.ovs_run_dir, bridge, self._control.switch_restarted)
        self._reporter = Reporter(outbox, self._server)
        self._heartbeat = Heartbeat(
            self._server,
            conf.heartbeat_interval,
            lambda: {
                "bridge": bridge,
                "trouble": self._control.trouble,
                "wired": reconciler.proven(),
                "known": len(reconciler.known()),
                "waiting": self._participant.waiting(),
                "unreported": len(outbox),
            },
            outbox.raise_sequence,
            self._control.server_back,
        )
        self._rpc = oslo_messaging.get_rpc_server(
            self._transport,
            transport.agent_target(conf.host),
            [AgentEndpoint(self._control)],
        )
        # It returns only when the message bus is there; ports are not to wait for that.
        self._listening = threading.Thread(target=self._rpc.start, name="listen", daemon=True)
        self._listening.start()
        self._reporter.start()
        self._heartbeat.start()
        self._control.start(self._watch)
        LOG.info("The agent of host %s has started, bridge %s", conf.host, bridge)

    def stop(self) -> None:
        """New work is refused first, then what runs may end; flows and reports stay."""
        _briefly(self._rpc.stop)
        self._control.stop(_CALL_PATIENCE)
        self._participant.stop(_FLOW_PATIENCE)
        self._heartbeat.stop(_CALL_PATIENCE)
        self._reporter.stop(_CALL_PATIENCE)
        self._watch.stop()
        self._ovsdb.stop()

    def wait(self) -> None:
        _briefly(self._rpc.wait)
        LOG.info("The agent of host %s has ended; flows stay in place", self._conf.host)

    def reset(self) -> None:
        """Every port is wired anew."""
        self._control.resync()

    def _ofctl(self, bridge: str) -> Ofctl:
        return Ofctl(self._conf.ovs_run_dir, bridge, self._conf.openflow_timeout)


def _briefly(call: Callable[[], None]) -> None:
    """``call``, which may wait for a message bus that is not there: so not for its end."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(_BUS_PATIENCE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; 1 with one line on standard error if it cannot start."""
    conf = process.prepare(sys.argv[1:] if argv is None else argv, _PROG)
    ending = process.Ending()
    bus = transport.get_transport(conf)
    service = AgentService(conf, bus)
    try:
        service.start()
    except (OSError, sqlite3.Error) as exc:
        print(f"{_PROG}: {conf[options.AGENT].state_dir}: {exc}", file=sys.stderr)
        return 1
    process.started()
    ending.wait()
    service.stop()
    service.wait()
    _briefly(bus.cleanup)
    return 0
