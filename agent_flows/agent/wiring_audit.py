"""Compares the wiring of proven ports with what OVSDB and the kernel have of them now."""

import time
from collections.abc import Callable, Collection, Mapping

from agent_flows.agent.flows import Switch
from agent_flows.engine.drift import Drift
from agent_flows.engine.port_life import Applied, Life, Phase
from agent_flows.engine.port_table import PortTable
from agent_flows.errors import ErrorType
from agent_flows.l2 import drift, interfaces, links
from agent_flows.l2.bindings import Binding
from agent_flows.l2.drift import Seen
from agent_flows.l2.interfaces import Interface
from agent_flows.l2.links import Link
from agent_flows.l2.tasks import linkless
from agent_flows.openflow.outcome import switch_errors
from agent_flows.report import TaskError

# Seconds. When a VM ends, its link is removed first and then its interface in OVSDB, which
# unwires the port; what differs of a port without its link counts only after so long.
_UNPLUGGING = 5.0


class WiringAudit:
    """``table`` has the lives of the host's ports; ``clock`` gives seconds."""

    def __init__(
        self, switch: Switch, table: PortTable, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._switch, self._table, self._clock = switch, table, clock
        # Ports whose link is missing, and since when.
        self._gone: dict[str, float] = {}

    def compare(
        self, port_ids: Collection[str] | None, *, ask_switch: bool = False
    ) -> Mapping[str, Drift]:
        """What differs of these ports, or of all; of those only that were proven all the time.

        ``ask_switch`` for what neither OVSDB nor the kernel shows. Raises
        :class:`agent_flows.engine.task.TaskFailed` if the switch cannot be asked, or OVSDB
        is busy for too long.
        """
        lives = self._proven(port_ids)
        if port_ids is None:
            self._gone = {id_: since for id_, since in self._gone.items() if id_ in lives}
        vlans = self._switch.networks.vlans()
        applied = {port_id: life.applied for port_id, life in lives.items() if life.applied}
        seen = self._look(applied, self._blocked() if ask_switch else {})
        found: dict[str, Drift] = {}
        for port_id, each in applied.items():
            network = each.wiring.network
            if network.id not in vlans:
                continue
            binding = Binding(each.interface.name, vlans[network.id], network)
            difference = drift.of_port(each.interface, binding, seen.get(port_id))
            if difference is not None:
                found[port_id] = difference
        if not found:
            return {}
        # A port whose flow began meanwhile was seen half wired: its life is another value now.
        still = self._proven(found)
        return {id_: each for id_, each in found.items() if still.get(id_) is lives[id_]}

    def _proven(self, port_ids: Collection[str] | None) -> dict[str, Life]:
        lives = self._table.lives()
        return {
            port_id: lives[port_id]
            for port_id in (lives if port_ids is None else port_ids)
            if port_id in lives and lives[port_id].proven and lives[port_id].phase is Phase.PROVEN
        }

    def _blocked(self) -> Mapping[int, Collection[str]]:
        with switch_errors():
            return self._switch.ofctl.blocked()

    def _look(
        self, applied: Mapping[str, Applied], blocked: Mapping[int, Collection[str]]
    ) -> dict[str, Seen]:
        switch = self._switch
        with switch.ovsdb.reading():
            found = interfaces.find(switch.ovsdb, switch.bridge, applied)
            carried = switch.bindings.carried({each.name for each in found.values()})
        errors = self._wrong_links(applied, found)
        leaving = self._leaving(applied, errors)
        return {
            port_id: Seen(
                interface,
                row.tag,
                row.other_config,
                errors.get(port_id),
                blocked.get(interface.ofport or 0, ()),
            )
            for port_id, interface in found.items()
            if port_id not in leaving and (row := carried.get(interface.name)) is not None
        }

    @staticmethod
    def _wrong_links(
        applied: Mapping[str, Applied], found: Mapping[str, Interface]
    ) -> dict[str, TaskError]:
        """The kernel is asked: ovs-vswitchd may be late to write what it has of the links."""
        absent = linkless(found.values())
        wanted = {
            port_id: Link(interface.name, applied[port_id].wiring.network.mtu)
            for port_id, interface in found.items()
            if port_id not in absent
        }
        by_name = links.verify_links(wanted.values())
        return {id_: by_name[link.name] for id_, link in wanted.items() if link.name in by_name}

    def _leaving(
        self, applied: Collection[str], errors: Mapping[str, TaskError]
    ) -> Collection[str]:
        """The ports that are about to be unplugged, it seems: their link is gone."""
        now, leaving = self._clock(), set()
        for port_id in applied:
            error = errors.get(port_id)
            if error is None or error.type != ErrorType.LINK_NOT_FOUND:
                self._gone.pop(port_id, None)
            elif now - self._gone.setdefault(port_id, now) < _UNPLUGGING:
                leaving.add(port_id)
        return leaving
