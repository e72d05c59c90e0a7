"""The OVS agent's extension (``[agent] extensions = agent_flows``): closes new ports, reports."""

import queue
import random
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import oslo_messaging
from neutron.api.rpc.callbacks import resources
from neutron.api.rpc.handlers.resources_rpc import ResourcesPullRpcApi
from neutron_lib import rpc as n_rpc
from neutron_lib.agent import l2_extension
from neutron_lib.callbacks import events, registry
from neutron_lib.plugins.ml2 import ovs_constants
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows.flows.outbox import Outbox
from agent_flows.flows.reporter import Reporter
from agent_flows.flows.task import TaskFailed
from agent_flows.neutron import newcomers
from agent_flows.neutron.cached import CachedRevisions, SecurityGroupInfo
from agent_flows.neutron.firewall import FIREWALL
from agent_flows.neutron.missed import CatchingUp, Missed
from agent_flows.neutron.quarantine import Closed
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.verification import OtherFirewall
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient

LOG = log.getLogger(__name__)

_AFTER_RETURN = (30.0, 60.0)
"""Seconds after the message bus came back until the server is asked what was missed: what is
pushed is heard again only when the agent's own connections are back, too, which oslo.messaging
tries every 30 s (``rabbit_interval_max``); and not all agents are to ask at once."""


class Firewall(Protocol):
    """Our firewall driver, or what watches another one's work."""

    def report_to(self, reporting: Reporting) -> None: ...

    def quarantine(self, ports: Collection[Closed]) -> None: ...

    def handle(self, details: Mapping[str, Any]) -> None: ...

    def gone(self, port_id: str) -> None: ...

    def refresh(self, groups: Collection[str], info: SecurityGroupInfo) -> None: ...

    def resync(self, port_ids: Collection[str] | None = None) -> None: ...


class AgentFlowsAgentExtension(l2_extension.L2AgentExtension):  # type: ignore[misc]  # untyped
    """Runs inside the agent's process.

    ``handle_port`` and ``delete_port`` are called in the agent's only loop:
    they note what was said and return. One thread of ours acts on it, in
    order and for many ports at once.
    """

    def consume_api(self, agent_api: Any) -> None:
        self._agent_api = agent_api

    def initialize(self, connection: object, driver_type: str) -> None:
        """Called before the agent loads its firewall driver.

        Raises ValueError in an agent that is not Open vSwitch's, OSError or
        sqlite3.Error if the state directory cannot be used.
        """
        if driver_type != ovs_constants.EXTENSION_DRIVER_TYPE:
            raise ValueError(f"agent_flows works in the Open vSwitch agent, not in {driver_type}")
        conf = options.register(cfg.CONF)
        ours = conf[options.AGENT]
        state_dir = Path(ours.state_dir)
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        outbox = Outbox(state_dir / "outbox.sqlite", ours.outbox_max_reports)
        client = ServerClient(n_rpc.TRANSPORT, conf.host, ours.rpc_timeout)
        cache = self._agent_api.plugin_rpc.remote_resource_cache
        self._info = SecurityGroupInfo(cache)
        self._reporting = Reporting(
            deliver=outbox.put,
            revision=CachedRevisions(self._info).port_as_told,
        )
        self._firewall: Firewall | None = None
        self._catching_up = CatchingUp(Missed(cache, ResourcesPullRpcApi(), conf.host).catch_up)
        self._heard: queue.SimpleQueue[newcomers.Said] = queue.SimpleQueue()
        registry.subscribe(self._firewall_loaded, FIREWALL, events.AFTER_INIT)
        for event in (events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.subscribe(self._rule_changed, resources.SECURITYGROUPRULE, event)
        Reporter(outbox, client, on_return=self._bus_returned).start()
        threading.Thread(target=self._listen, name="agent_flows casts", daemon=True).start()
        threading.Thread(target=self._act, name="agent_flows ports", daemon=True).start()

    # What the agent says.

    def handle_port(self, context: object, data: Mapping[str, Any]) -> None:
        self._heard.put(newcomers.Here(dict(data)))

    def delete_port(self, context: object, data: Mapping[str, Any]) -> None:
        self._heard.put(newcomers.Gone(str(data["port_id"])))

    # What the server says.

    def ports_changed(self, port_ids: Collection[str]) -> None:
        """What was reported of these ports is old: Neutron's own word of what changed may have
        been lost."""
        self._catching_up.soon(port_ids)

    def security_groups_changed(self, ids: Collection[str]) -> None:
        """Nothing: what changed, Neutron tells its agent itself."""

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        self._catching_up.soon(port_ids, lambda: self._heard.put(newcomers.Resync(port_ids)))

    def _bus_returned(self) -> None:
        wait = random.uniform(*_AFTER_RETURN)  # noqa: S311  # spreads load, guards nothing
        timer = threading.Timer(wait, self._catching_up.soon, [None])
        timer.daemon = True
        timer.start()

    def _firewall_loaded(
        self, resource: str, event: str, trigger: Firewall, payload: object = None
    ) -> None:
        trigger.report_to(self._reporting)
        self._firewall = trigger

    def _rule_changed(self, resource: str, event: str, trigger: object, payload: Any) -> None:
        rule = payload.states[-1]
        if rule is not None:
            self._heard.put(newcomers.Rules(rule.security_group_id))

    def _listen(self) -> None:
        # It returns only when the message bus is there.
        target = transport.agent_target(cfg.CONF.host)
        oslo_messaging.get_rpc_server(n_rpc.TRANSPORT, target, [AgentEndpoint(self)]).start()

    def _act(self) -> None:
        while True:
            said = [self._heard.get()]
            while not self._heard.empty():
                said.append(self._heard.get())
            # The agent's driver is loaded by the time it speaks of ports; what comes before that
            # is about ports that are all looked at anyway.
            if self._firewall is None and any(isinstance(each, newcomers.Here) for each in said):
                self._firewall = OtherFirewall(self._agent_api, self._reporting)
            if self._firewall is not None:
                self._heed(self._firewall, said)

    def _heed(self, firewall: Firewall, said: list[newcomers.Said]) -> None:
        try:
            firewall.quarantine(newcomers.to_close(said))
        except TaskFailed as exc:
            # The firewall closes what it could not prove, too, and its outcome tells why.
            LOG.error("New ports could not be closed: %s (%s)", exc, exc.error.detail)
        for each in said:
            match each:
                case newcomers.Here(details):
                    firewall.handle(details)
                case newcomers.Gone(port_id):
                    firewall.gone(port_id)
                case newcomers.Resync(port_ids):
                    firewall.resync(port_ids)
        groups = {each.group_id for each in said if isinstance(each, newcomers.Rules)}
        if groups:
            firewall.refresh(groups, self._info)
