"""The mechanism driver ``agent_flows``: writes our block and row in Neutron's own transactions.

It binds nothing: ``mechanism_drivers = openvswitch,agent_flows``. Only a
mechanism driver's precommit is called for every change that matters: the
registry's PRECOMMIT_UPDATE is not published for a change of status, and its
AFTER_UPDATE comes when a port may already be ACTIVE.
"""

from collections.abc import Mapping
from typing import Any

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api

from agent_flows.neutron.server import block_policy, blocks, gated_ports, live_migration
from agent_flows.neutron.server.api_definition import PLUGIN_TYPE, SYNC_STATE
from agent_flows.neutron.server.block_policy import PortFacts
from agent_flows.report import SyncState
from agent_flows.server.core import clock
from agent_flows.server.core.gating import RecentGating

_REPORTED = frozenset(SyncState) - {SyncState.ABSENT}


class AgentFlowsMechanismDriver(api.MechanismDriver):  # type: ignore[misc]
    """Called by ML2 inside the transaction that changes a port."""

    def initialize(self) -> None:
        self._gating = RecentGating()

    def update_port_precommit(self, context: Any) -> None:
        """Also called when a binding is committed, which is when a new port gets its row."""
        if context.current["device_owner"] == constants.DEVICE_OWNER_DVR_INTERFACE:
            return  # bound to many hosts at once, and never gated
        before, after = PortFacts.of(context.original), PortFacts.of(context.current)
        if not block_policy.matters(before, after):
            return
        port_id = context.current["id"]
        session = context.plugin_context.session
        now = clock.now()
        change = block_policy.decide(
            before,
            after,
            gated_ports.host_of(session, port_id),
            lambda: _has_extension(context),
            lambda: self._gating.current(session, now).off(after.host, now) is not None,
        )
        if change.drop:
            gated_ports.drop(session, port_id)
        if change.take:
            gated_ports.take(session, port_id, before, after, now)
        if change.fall:
            gated_ports.fall(session, port_id, now)
        if change.revise:
            gated_ports.revise(session, port_id, before, after, now)
        if change.ungated:
            gated_ports.ungate(session, port_id)
        if change.rise:
            gated_ports.rise(session, port_id, now)
        if (change.fall or change.revise) and context.current.get(SYNC_STATE) in _REPORTED:
            # The answer to the request that changes the port.
            context.current[SYNC_STATE] = SyncState.SYNCING.value
        if change.block is not None:
            attached_to = blocks.attached_to(session, port_id)
            write = blocks.add if change.block else blocks.lift
            write(session, [] if attached_to is None else [attached_to])

    def update_port_postcommit(self, context: Any) -> None:
        """Before a live migration Neutron unbinds the port and binds it again on the same host,
        where the agent no longer touches it: ask for a report of what is installed."""
        before, after = PortFacts.of(context.original), PortFacts.of(context.current)
        rebound = after.bound and not before.bound
        if rebound and _leaves(context.current) and context.current.get(SYNC_STATE) is not None:
            directory.get_plugin(PLUGIN_TYPE).ask(after.host, [context.current["id"]])

    def delete_port_precommit(self, context: Any) -> None:
        session = context.plugin_context.session
        port = context.current
        if gated_ports.host_of(session, port["id"]) is not None:
            gated_ports.deleted(session, port["id"], port.get("revision_number") or 0, clock.now())


def _leaves(port: Mapping[str, Any]) -> bool:
    destination = (port.get(portbindings.PROFILE) or {}).get(live_migration.MIGRATING_TO)
    return bool(destination) and destination != port[portbindings.HOST_ID]


def _has_extension(context: Any) -> bool:
    return any(
        block_policy.has_extension(agent["configurations"])
        for agent in context.host_agents(constants.AGENT_TYPE_OVS)
    )
