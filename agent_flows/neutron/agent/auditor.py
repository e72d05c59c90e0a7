"""Compares Neutron's bridge with what was proven of the ports of its agent."""

import time
from collections.abc import Callable, Collection, Mapping

from agent_flows.engine.drift import Drift, Suspicion
from agent_flows.engine.port_life import Life, Phase
from agent_flows.engine.port_table import PortTable
from agent_flows.errors import ErrorType
from agent_flows.neutron.agent.flows import Switch
from agent_flows.neutron.interfaces import Interface
from agent_flows.openflow.monitor import Changes
from agent_flows.report import Step, TaskError
from agent_flows.secgroups.flow_audit import FlowAudit

_BEFORE_SECOND_LOOK = 0.3
"""Seconds. Neutron's agent changes a port in several transactions, and is not asked: what is still
so after this time counts."""
_FOR_THE_AGENT = 20.0
"""Seconds until Neutron's agent, which looks every other second, has passed in a port that was
plugged in again, or noticed one that was unplugged."""


class DriverAuditor:
    """A :class:`agent_flows.engine.drift.Auditor`. ``table`` has the lives of the host's ports.

    Not ``is_intact``: the bridge has lost its flows, with which every port is wired again.
    """

    def __init__(
        self,
        switch: Switch,
        table: PortTable,
        is_intact: Callable[[], bool],
        *,
        pause: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._switch, self._table, self._is_intact = switch, table, is_intact
        self._flows = FlowAudit(switch.firewall, table)
        self._pause, self._clock = pause, clock
        # The ports that were elsewhere when they were last looked at, and since when.
        self._elsewhere: dict[str, tuple[Life, float]] = {}

    def compare(self, suspicion: Suspicion) -> Mapping[str, Drift]:
        found: dict[str, Drift] = {}
        if suspicion.everything or suspicion.port_ids:
            found |= self._wiring(None if suspicion.everything else suspicion.port_ids)
        if not self._is_intact():
            return found
        if self._flows.concerns(self._switch.bridge.br_name, suspicion):
            flows = self._flows.compare()
            if flows or suspicion.everything:
                self._switch.quarantine.restore()
            # A port's wiring explains more than its flows.
            found = {**flows, **found}
        return found

    def _wiring(self, port_ids: Collection[str] | None) -> dict[str, Drift]:
        """Of ports that were proven all the time. One that was unplugged, or plugged in again, is
        for Neutron's agent to wire again: only what that leaves undone is drift."""
        lives = self._proven(port_ids)
        first = self._wrong(lives)
        if not first:
            return {}
        self._pause(_BEFORE_SECOND_LOOK)
        second = self._wrong({port_id: lives[port_id] for port_id in first})
        still = self._proven(second)
        return {
            port_id: Drift(Step.L2, TaskError(ErrorType.DRIFT, error.message, error.detail))
            for port_id, error in second.items()
            if still.get(port_id) is lives[port_id]
        }

    def _proven(self, port_ids: Collection[str] | None) -> dict[str, Life]:
        lives = self._table.lives()
        return {
            port_id: lives[port_id]
            for port_id in (lives if port_ids is None else port_ids)
            if port_id in lives and lives[port_id].proven and lives[port_id].phase is Phase.PROVEN
        }

    def _wrong(self, lives: Mapping[str, Life]) -> dict[str, TaskError]:
        applied = {
            port_id: life.applied.interface
            for port_id, life in lives.items()
            if life.applied is not None and isinstance(life.applied.interface, Interface)
        }
        look = self._switch.wiring.look(applied)
        wrong = {id_: error for id_, error in look.errors.items() if id_ not in look.replugged}
        return wrong | self._left_undone(lives, look.elsewhere)

    def _left_undone(
        self, lives: Mapping[str, Life], elsewhere: Collection[str]
    ) -> dict[str, TaskError]:
        """Neutron's agent may not look at its ports at all: it waits for an answer, or by a clock
        that was set back (``loop_count_and_wait`` of
        neutron/plugins/ml2/drivers/openvswitch/agent/ovs_neutron_agent.py)."""
        now, before, all_lives = self._clock(), self._elsewhere, self._table.lives()
        others = {
            id_: known
            for id_, known in before.items()
            if id_ not in lives and all_lives.get(id_) is known[0]
        }
        self._elsewhere = others | {
            id_: before[id_] if before.get(id_, (None,))[0] is lives[id_] else (lives[id_], now)
            for id_ in elsewhere
        }
        left: dict[str, TaskError] = {}
        for port_id in elsewhere:
            seconds = now - self._elsewhere[port_id][1]
            if seconds >= _FOR_THE_AGENT:
                message = (
                    "its interface was unplugged, or plugged in again, more than "
                    f"{seconds:.0f} s ago, and Neutron's agent has done nothing about it"
                )
                left[port_id] = TaskError(ErrorType.DRIFT, message)
        return left


def suspicion_of(bridge: str, changes: Changes, is_known: Callable[[int], bool]) -> Suspicion:
    """What changes of Neutron's bridge's flows give reason to compare.

    A bundle of ours may have added or deleted the flows with cookies of ours. Those with a cookie
    that ``is_known`` are of Neutron's agent, its extensions, or the quarantine.
    """
    if changes.missed:
        return Suspicion(bridges=frozenset({bridge}))
    written = changes.modified or not all(map(is_known, changes.foreign))
    return Suspicion(
        changes.deleted,
        frozenset({bridge}) if written else frozenset(),
        counted=changes.paused,
        added=changes.added,
    )
