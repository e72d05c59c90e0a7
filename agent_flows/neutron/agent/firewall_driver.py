"""Neutron's FirewallDriver with our flows (``firewall_driver = agent_flows``)."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pydantic
from neutron.agent import firewall
from neutron.common import utils
from neutron_lib import constants
from neutron_lib.callbacks import events, registry, resources
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows.engine.drift import DriftWatch, Suspicion
from agent_flows.engine.reconciler import Reconciler
from agent_flows.engine.runner import Runner
from agent_flows.engine.task import TaskFailed
from agent_flows.fairness import give_way
from agent_flows.neutron import interfaces, parsing, privileged, row_events
from agent_flows.neutron.agent import bridge
from agent_flows.neutron.agent.auditor import DriverAuditor, suspicion_of
from agent_flows.neutron.agent.desired_state import DesiredPorts
from agent_flows.neutron.agent.flows import Switch
from agent_flows.neutron.agent.quarantine import Endpoint, Quarantine
from agent_flows.neutron.agent.site import DriverSite
from agent_flows.neutron.agent.upkeep import Upkeep
from agent_flows.neutron.agent.wiring import Wiring
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.openflow import cookie
from agent_flows.openflow.connections import Connections
from agent_flows.openflow.monitor import FlowMonitor
from agent_flows.openflow.ofctl import SLOW_CALL, Ofctl
from agent_flows.openflow.outcome import switch_errors
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.report import Trouble
from agent_flows.secgroups.firewall import Firewall
from agent_flows.supervision import Backoff, Troubles
from agent_flows.validation import Hostname, Invalid, parse
from agent_flows.watchdog import Watchdog

LOG = log.getLogger(__name__)

FIREWALL = "agent_flows_firewall"
"""Resource of Neutron's callback registry (AFTER_INIT): the extension learns there which driver the
agent has loaded."""


class AgentFlowsFirewallDriver(firewall.FirewallDriver):  # type: ignore[misc]  # untyped
    """The calls between ``filter_defer_apply_on`` and ``_off`` are one batch of one flow; every
    other call is a batch by itself.

    No method raises for a port: a failure is reported (:class:`Reporting`), and
    the port is retried until it succeeds or is gone. The agent's loop calls the
    methods, and RPC threads read :attr:`ports`.
    """

    provides_arp_spoofing_protection = True

    def __init__(self, integration_bridge: Any) -> None:
        """``integration_bridge`` is the agent's ovs_lib.OVSBridge.

        Raises ValueError for invalid permitted_ethertypes and an invalid host.
        """
        conf = options.register(cfg.CONF)
        ours = conf[options.AGENT]
        permitted = utils.parse_permitted_ethertypes(conf.SECURITYGROUP.permitted_ethertypes)
        pipeline = Pipeline(
            Home.NEUTRON,
            frozenset(int(ethertype, 16) for ethertype in permitted),
            distributed_routing=conf.AGENT.enable_distributed_routing,
        )
        self.troubles = Troubles()
        self._watchdog = Watchdog(self.troubles)
        ofctl = Ofctl(
            ours.ovs_run_dir,
            integration_bridge.br_name,
            ours.openflow_timeout,
            privileged.execute,
            watch=self._watchdog.watch(Trouble.OPENFLOW, SLOW_CALL),
        )
        host = parse(pydantic.TypeAdapter(Hostname), conf.host)
        self._desired = DesiredPorts(host)
        self._changed: set[str] = set()
        self._gone: set[str] = set()
        self._deferred = False
        self._put_back = False
        reserved = bridge.Reserved(integration_bridge)
        self._wiring = Wiring(integration_bridge)
        self._switch = Switch(
            integration_bridge,
            Firewall(ofctl, pipeline, reserved=reserved),
            Quarantine(ofctl),
            Connections(ofctl),
            self._wiring,
        )
        backoff = Backoff(ours.retry_initial, ours.retry_max)

        def note_cookies() -> None:
            with switch_errors():
                reserved.found(entry.cookie for entry in ofctl.dump(*cookie.ANY))

        self._upkeep = Upkeep(self._switch, self._desired, note_cookies, self.troubles, backoff)
        self._site = DriverSite(
            self._switch, self._desired, self._upkeep, self.troubles, unwire=self._unwire
        )
        self._reconciler = Reconciler(
            self._site,
            Runner(host, watch=self._watchdog.watch(Trouble.FLOW, ours.slow_flow)),
            backoff=backoff,
            max_batch=ours.max_batch,
            troubles=self.troubles,
        )
        auditor = DriverAuditor(self._switch, self._reconciler.table, self._upkeep.is_prepared)
        self._drift_watch = DriftWatch(
            auditor, self._reconciler.drifted, ours.audit_interval, self.troubles
        )
        name = integration_bridge.br_name
        self._monitor = FlowMonitor(
            ours.ovs_run_dir,
            name,
            lambda changes: self._drift_watch.suspect(suspicion_of(name, changes, reserved)),
            self.troubles,
            start=privileged.start,
        )
        self._watchdog.start()
        self._upkeep.start(self._reconciler.table)
        self._reconciler.start()
        self._drift_watch.start()
        self._monitor.start()
        self._unwatch = row_events.watch(integration_bridge, self._row_changed)
        bridge.watch(integration_bridge, self._before_the_bridge_opens, reserved.cleaned_up)
        registry.subscribe(self._ovs_restarted, resources.AGENT, events.OVS_RESTARTED)
        registry.publish(FIREWALL, events.AFTER_INIT, self)

    # Called by the extension.

    def report_to(self, reporting: Reporting) -> None:
        """From now on reports go there."""
        self._site.reporting = reporting

    def waiting(self) -> int:
        """How many ports wait for a flow, or for its end."""
        return self._reconciler.table.waiting()

    def oldest(self) -> float | None:
        """For how many seconds the port that waits longest has waited; None without one."""
        return self._reconciler.table.oldest()

    def audit_age(self) -> float | None:
        """Seconds since the bridge was last compared with all that was proven; None if never."""
        return self._drift_watch.audit_age()

    def refresh(self, groups: Collection[str], info: SecurityGroupInfo) -> None:
        """Apply these groups' changed rules now, as ``info`` has them: the agent does so only every
        few seconds."""
        try:
            known = info.of(sorted(self._desired.samples(groups)))
            changed = [
                *(self._desired.set_rules(*each) for each in known.security_groups.items()),
                *(self._desired.set_members(*each) for each in known.members.items()),
            ]
        except (TaskFailed, Invalid) as exc:
            LOG.warning(
                "Rules of %s could not be read; the agent's next loop applies them: %s", groups, exc
            )
        else:
            self._process(frozenset().union(*changed))

    def handle(self, details: Mapping[str, Any]) -> None:
        """Prove again a port that is proven here and not ACTIVE on the server: nothing else would
        make it ACTIVE. Everything else the agent passes in by the calls below."""
        port_id = str(details["port_id"])
        self._wiring.note_admin_state(port_id, up=bool(details.get("admin_state_up")))
        proven = self._reconciler.table.life(port_id).proven
        if proven and details.get("status") != constants.PORT_STATUS_ACTIVE:
            self._process([port_id], forced=True)

    def gone(self, port_id: str) -> None:
        """Nothing: the agent calls :meth:`remove_port_filter`, too."""

    def quarantine(self, ports: Iterable[Endpoint]) -> None:
        """Close ports until their security groups are verified, except programmed ones; one bundle.

        Raises :class:`agent_flows.engine.task.TaskFailed` if the switch refuses or does not answer.
        """
        self._switch.quarantine.close(ports)

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        """Apply and verify ports (None: all), changed or not, and compare every flow. Of the ports
        that the agent has not passed in, report those without an interface."""
        self._switch.firewall.distrust()
        known = self._desired.port_ids()
        chosen = known if port_ids is None else frozenset(port_ids)
        unknown = chosen - known - self._reconciler.table.lives().keys()
        absent = interfaces.locate(self._switch.bridge, unknown).absent
        self._process(chosen & known, absent, forced=True)

    def stop(self, timeout: float) -> None:
        """End the threads, within ``timeout`` seconds each."""
        registry.unsubscribe(self._ovs_restarted, resources.AGENT, events.OVS_RESTARTED)
        self._unwatch()
        for part in (self._monitor, self._drift_watch, self._reconciler):
            part.stop(timeout)
        self._upkeep.stop(timeout)
        self._watchdog.stop(timeout)

    # Neutron's interface.

    @property
    def ports(self) -> dict[str, Mapping[str, Any]]:
        """The dicts of filtered ports, those that failed included, by id."""
        # The agent reads it once for each port that it removes.
        give_way()
        return self._desired.filtered_ports()

    def prepare_port_filter(self, port: Mapping[str, Any]) -> None:
        port_id = port.get("device")
        if not parsing.is_port_id(port_id):
            LOG.error("%r is not a port id; it is not programmed, so it can send nothing", port_id)
            return
        self._desired.set_port(dict(port))
        give_way()
        self._change([port_id])

    apply_port_filter = update_port_filter = prepare_port_filter

    def remove_port_filter(self, port: Mapping[str, Any]) -> None:
        self._drop([port["device"]])

    def process_trusted_ports(self, port_ids: Iterable[str]) -> None:
        """Ports without filter. For the agent, an interface that the server does not know is also
        one, such as one plugged in by hand."""
        trusted = [port_id for port_id in port_ids if parsing.is_port_id(port_id)]
        for port_id in trusted:
            self._desired.set_trusted(port_id)
        self._change(trusted)

    def remove_trusted_ports(self, port_ids: Iterable[str]) -> None:
        self._drop(port_ids)

    def update_security_group_rules(self, sg_id: str, rules: Collection[Mapping[str, Any]]) -> None:
        self._learn(self._desired.set_rules, sg_id, rules)

    def update_security_group_members(self, sg_id: str, ips: Mapping[str, Any]) -> None:
        """Also for address groups."""
        self._learn(self._desired.set_members, sg_id, ips)

    def security_group_updated(
        self, action_type: str, sec_group_ids: Collection[str], device_id: object = None
    ) -> None:
        """Nothing: the agent updates the ports concerned right after."""

    def filter_defer_apply_on(self) -> None:
        self._deferred = True

    def filter_defer_apply_off(self) -> None:
        self._deferred = False
        self._apply()

    def _learn(
        self, change: Callable[[object, object], frozenset[str]], group_id: object, content: object
    ) -> None:
        try:
            self._change(change(group_id, content))
        except Invalid as exc:
            # Ports in the group fail with the same error.
            LOG.error("Security group %r is left out: %s", group_id, exc)

    def _change(self, port_ids: Iterable[str]) -> None:
        self._changed.update(port_ids)
        self._gone.difference_update(self._changed)
        self._apply()

    def _drop(self, port_ids: Iterable[str]) -> None:
        for port_id in port_ids:
            if self._desired.get(port_id) is not None:
                self._desired.remove(port_id)
                self._gone.add(port_id)
                self._wiring.forget([port_id])
                self._changed.discard(port_id)
        self._apply()

    def _apply(self) -> None:
        if not self._deferred:
            changed, self._changed = self._changed, set()
            gone, self._gone = self._gone, set()
            self._process(changed, gone)
            if gone:
                self._desired.forget_unused()

    def _process(
        self, changed: Collection[str], gone: Collection[str] = (), *, forced: bool = False
    ) -> None:
        """One batch, in the order of the submits: ports that are gone first. A port's backoff grows
        with each failed attempt, whatever asked for it."""
        self._unwire(gone)
        self._reconciler.submit(changed, forced=forced, afresh=False)
        self._reconciler.finish({*changed, *gone})
        self._upkeep.sweep_now()

    def _unwire(self, gone: Collection[str]) -> None:
        self._reconciler.submit(gone, forced=True)

    def _row_changed(self, port_id: str) -> None:
        self._drift_watch.suspect(Suspicion(port_ids=frozenset({port_id})))

    def _before_the_bridge_opens(self) -> None:
        self._put_back = True
        self._switch_restarted()

    def _ovs_restarted(
        self, resource: str, event: str, trigger: object, payload: object = None
    ) -> None:
        if not self._put_back:
            self._switch_restarted()
        self._put_back = False

    def _switch_restarted(self) -> None:
        self._upkeep.switch_restarted()
        self._reconciler.table.lose()
        self.resync()
