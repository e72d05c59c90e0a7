"""Compares our flows on the physical networks' bridges with those that were installed."""

import dataclasses
from collections.abc import Callable, Collection, Mapping

from oslo_log import log

from agent_flows.engine.drift import Drift
from agent_flows.engine.port_table import PortTable
from agent_flows.l2.networks import Networks, Outside
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.outcome import switch_errors
from agent_flows.report import Step
from agent_flows.secgroups import difference
from agent_flows.secgroups.difference import Difference

LOG = log.getLogger(__name__)


class NetworkAudit:
    """Such a bridge is not ours: flows of others are left there, and not judged.

    ``table`` has the lives of the host's ports.
    """

    def __init__(self, networks: Networks, table: PortTable, ofctl: Callable[[str], Ofctl]) -> None:
        self._networks, self._table, self._ofctl = networks, table, ofctl

    def compare(self, bridges: Collection[str] | None) -> Mapping[str, Drift]:
        """What differs on these bridges, or on all, by port whose network it concerns.

        What concerns no proven port is corrected at once. Raises
        :class:`agent_flows.engine.task.TaskFailed`.
        """
        found: dict[str, Drift] = {}
        with switch_errors():
            for bridge, outside in self._networks.outside().items():
                suspected = bridges is None or bridge in bridges
                if suspected and self._difference(bridge, outside):
                    found |= self._confirmed(bridge)
        return found

    def _confirmed(self, bridge: str) -> Mapping[str, Drift]:
        """Looks again while none of our flows there changes."""
        with self._networks.held_outside() as held:
            outside = held.get(bridge)
            if outside is None:
                return {}
            differing = self._difference(bridge, outside)
        if not differing:
            return {}
        drifts = self._drifts(bridge, outside, differing)
        if not drifts:
            LOG.warning("Flows on bridge %s were changed; no proven port needs them", bridge)
            self._networks.rewrite_outside(bridge)
        if _vlans_without_network(outside, differing):
            # The repair of a port rewrites the flows of its own network only.
            self._networks.sweep()
        return drifts

    def _difference(self, bridge: str, outside: Outside) -> Difference:
        expected = [
            flow.with_cookie(str(each), value)
            for value, flows in outside.flows.items()
            for each in flows
        ]
        found = difference.of(self._ofctl(bridge).differences(expected))
        surplus = (e for e in found.surplus if cookie.kind(e.cookie) == Kind.NETWORK)
        return dataclasses.replace(
            found, surplus=tuple(surplus) if outside.swept else (), strange=()
        )

    def _drifts(self, bridge: str, outside: Outside, found: Difference) -> dict[str, Drift]:
        vlans = {network: vlan for vlan, network in outside.networks.items()}
        # These concern every network of the bridge, as do the flows of cookie 0.
        everyone = (0, *_vlans_without_network(outside, found))
        drifts = {}
        for port_id, life in self._table.lives().items():
            if not life.proven or life.applied is None:
                continue
            vlan = vlans.get(life.applied.wiring.network.id)
            if vlan is None:
                continue
            lines = [line for each in (vlan, *everyone) for line in found.of_vlan(each)]
            if lines:
                drifts[port_id] = Drift(Step.L2, difference.drift(lines, f"on bridge {bridge} "))
        return drifts


def _vlans_without_network(outside: Outside, found: Difference) -> list[int]:
    vlans = {cookie.serial(entry.cookie) for entry in found.surplus}
    return sorted(vlans - outside.networks.keys() - {0})
