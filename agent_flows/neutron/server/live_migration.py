"""Live migration: when Nova is notified that a port is plugged on the host it is being moved to.

During a live migration a port has two bindings: the source's is ACTIVE and
names the destination (``migrating_to`` in its profile), the destination's is
INACTIVE. Nova waits for ``network-vif-plugged`` before the machine moves.
Neutron sends it as soon as the destination's agent reports "up"
(neutron/plugins/ml2/rpc.py, ``update_device_up``), even if the security groups
could not be installed. Where the destination's agent has our extension, that
message is held back until a report proves the port, or gating is turned off
for the destination.
"""

import enum
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from neutron.agent import rpc as agent_rpc
from neutron.plugins.ml2 import db as ml2_db
from neutron.plugins.ml2.models import PortBinding
from neutron_lib import constants, context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory
from oslo_config import cfg
from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.neutron.server import block_policy
from agent_flows.server.core import clock
from agent_flows.server.core.gating import RecentGating

LOG = log.getLogger(__name__)

MIGRATING_TO = "migrating_to"
"""In the profile of the source's binding: the destination's name, by Nova."""


def moving_to(session: Session, host: str, port_ids: Collection[str]) -> set[str]:
    """The ports with an INACTIVE binding on ``host``, to be wired by its agent."""
    if not port_ids:
        return set()
    query = sa.select(PortBinding.port_id, PortBinding.vif_type).where(
        PortBinding.port_id.in_(list(port_ids)),
        PortBinding.host == host,
        PortBinding.status == constants.INACTIVE,
    )
    found = session.execute(query)
    return {row.port_id for row in found if block_policy.is_bound(host, row.vif_type)}


def notify_nova(port_ids: Collection[str]) -> None:
    """These ports are proven on the host they are being moved to."""
    notifier = getattr(directory.get_plugin(), "nova_notifier", None)
    if notifier is None or not cfg.CONF.notify_nova_on_port_status_changes:
        return
    for port_id in port_ids:
        port = ml2_db.get_port(context.get_admin_context(), port_id)
        if port is not None and _destination(port) is not None:
            LOG.info(
                "Port %s is proven on its destination host: notifying Nova",
                port_id,
                extra={"port": port_id},
            )
            notifier.proven(port)


class Move(enum.Enum):
    """Where a port is that is being moved, by the binding that counts."""

    LEAVES = "bound to its source"
    ARRIVED = "bound to its destination"


def move_of(port_id: str) -> Move | None:
    """None if the port is not being moved."""
    port = ml2_db.get_port(context.get_admin_context(), port_id)
    bindings = port.port_bindings if port is not None else ()
    for binding in bindings:
        destination = agent_rpc.migrating_to_host([binding])
        if binding.status == constants.ACTIVE and destination:
            return Move.ARRIVED if destination == binding.host else Move.LEAVES
    return None


def hold_back_unproven() -> None:
    """From now on Nova is notified of a port on its destination when it is proven there.

    Called after Neutron's core plugin was made; without its notifier
    (``notify_nova_on_port_status_changes``) there is nothing to hold back.
    """
    core = directory.get_plugin()
    notifier = getattr(core, "nova_notifier", None)
    if notifier is not None and not isinstance(notifier, ProvenOnly):
        core.nova_notifier = ProvenOnly(notifier)


def notify_of_ungated() -> None:
    """Where gating was turned off, Nova is notified of the ports that this process held back."""
    notifier = getattr(directory.get_plugin(), "nova_notifier", None)
    if isinstance(notifier, ProvenOnly):
        notifier.notify_of_ungated()


class ProvenOnly:
    """Neutron's notifier of Nova, except for ports that are being moved.

    Neutron has no event for those: ``update_device_up`` calls the notifier itself.
    """

    def __init__(self, notifier: Any) -> None:
        self._notifier = notifier
        self._gating = RecentGating()
        # The destination of each port that an agent reported "up" to this process.
        self._held_back: dict[str, str] = {}

    def _is_gated(self, host: str) -> bool:
        admin, now = context.get_admin_context(), clock.now()
        with db_api.CONTEXT_READER.using(admin) as session:
            return self._gating.current(session, now).off(host, now) is None

    def notify_port_active_direct(self, port: Any) -> None:
        """An agent reported "up" for a port that is bound to another host."""
        destination = _destination(port)
        if destination is not None and has_extension(destination) and self._is_gated(destination):
            LOG.debug(
                "Port %s: Nova is notified when host %s has proven it",
                port.id,
                destination,
                extra={"port": port.id, "host": destination},
            )
            self._held_back[port.id] = destination
            return
        self._notifier.notify_port_active_direct(port)

    def proven(self, port: Any) -> None:
        """The destination's agent has proven the port."""
        self._held_back.pop(port.id, None)
        self._notifier.notify_port_active_direct(port)

    def notify_of_ungated(self) -> None:
        """Notify Nova of ports that need a proof no longer; forget those whose move has ended."""
        for port_id, destination in list(self._held_back.items()):
            port = ml2_db.get_port(context.get_admin_context(), port_id)
            moves = port is not None and _destination(port) == destination
            if moves and self._is_gated(destination):
                continue
            self._held_back.pop(port_id, None)
            if moves:
                LOG.warning("Port %s: notifying Nova without a proof, gating is off", port_id)
                self._notifier.notify_port_active_direct(port)

    # Everything else is as in Neutron's.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._notifier, name)


def _destination(port: Any) -> str | None:
    """The host the port is being moved to; None if it is not being moved."""
    bindings = port.port_bindings
    named: str | None = agent_rpc.migrating_to_host(bindings)
    if named:
        return named
    # Nova may not have written it yet.
    inactive = (binding.host for binding in bindings if binding.status == constants.INACTIVE)
    return next(inactive, None)


def has_extension(host: str) -> bool:
    """Whether the OVS agent of ``host`` has our extension."""
    admin = context.get_admin_context()
    filters = {"host": [host], "agent_type": [constants.AGENT_TYPE_OVS]}
    agents = directory.get_plugin().get_agents(admin, filters=filters)
    return any(block_policy.has_extension(agent["configurations"]) for agent in agents)
