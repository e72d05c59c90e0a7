"""Strangers' flows, written by no owner we know: which are allowed, and what they do. Pure.

Our own bridge has none. On Neutron's, its agent and its extensions also write
flows, under cookies that they have reserved; any other flow that decides about
our ports' packets makes their security groups ineffective.
"""

import re
from collections.abc import Callable, Iterable, Set

from agent_flows.errors import ErrorType
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.pipeline import Table
from agent_flows.openflow.priorities import Transient
from agent_flows.report import TaskError
from agent_flows.secgroups.difference import shown


class Bridge:
    """The flows that a bridge may have beside ours. Here their owners are unknown, so none is
    judged."""

    removes = False
    """Whether a stranger's flow is removed; else it fails the ports it decides about."""

    def strange(self, flows: Iterable[FlowEntry], ofports: Set[int]) -> tuple[FlowEntry, ...]:
        """Those of ``flows`` without a known owner that decide about packets of ``ofports``."""
        return ()

    def decides(self, flow: FlowEntry, ofport: int, ofports: Set[int]) -> bool:
        """Whether a strange flow decides about packets of ``ofport``, one of ours."""
        return False


class OwnBridge(Bridge):
    """Ours as a whole. ``uplinks`` gives the ofports that lead to the physical networks."""

    def __init__(
        self, uplinks: Callable[[], Set[int]] = frozenset, *, removes: bool = True
    ) -> None:
        self._uplinks = uplinks
        self.removes = removes

    def strange(self, flows: Iterable[FlowEntry], ofports: Set[int]) -> tuple[FlowEntry, ...]:
        """Every one, if it is removed."""
        return tuple(flow for flow in flows if self.removes or self._decided(flow, ofports))

    def decides(self, flow: FlowEntry, ofport: int, ofports: Set[int]) -> bool:
        return ofport in self._decided(flow, ofports)

    def _decided(self, flow: FlowEntry, ofports: Set[int]) -> Set[int]:
        """No flow of ours leads to a table that is not in the pipeline."""
        if flow.table not in _PIPELINE:
            return frozenset()
        if flow.matched_ports & self._uplinks():
            return ofports
        return ((flow.matched_ports | flow.receivers) & ofports) | _rest(flow, ofports)


class NeutronsBridge(Bridge):
    """Neutron's. ``reserved`` is true for the cookies of those who may write there."""

    def __init__(self, reserved: Callable[[int], bool]) -> None:
        self._reserved = reserved

    def strange(self, flows: Iterable[FlowEntry], ofports: Set[int]) -> tuple[FlowEntry, ...]:
        unknown = (each for each in flows if not self._reserved(each.cookie))
        return tuple(each for each in unknown if overruled(each, ofports))

    def decides(self, flow: FlowEntry, ofport: int, ofports: Set[int]) -> bool:
        return ofport in overruled(flow, ofports)


_PIPELINE = frozenset(Table)
_OURS = frozenset(
    {
        Table.BASE_EGRESS,
        Table.RULES_EGRESS,
        Table.ACCEPT_OR_INGRESS,
        Table.BASE_INGRESS,
        Table.RULES_INGRESS,
        Table.ACCEPT_INGRESS,
        Table.LAST_DOOR,
        Table.ACCEPTED_EGRESS,
        Table.ACCEPTED_INGRESS,
        Table.DROPPED,
        Table.UPLINK,
        Table.NO_LOCAL_PORT,
    }
)
"""Of Neutron's bridge: tables in which Neutron's own flows decide nothing."""
_NEUTRONS_FOR_PORTS = 10
"""The highest priority of Neutron's in table 0 for what ports send (ARP and neighbour discovery,
its br_int.py)."""
_ANYWHERE = re.compile(
    r"\b(?:NORMAL|FLOOD|ALL|TABLE)\b|\b(?:group:|learn\(|bundle|enqueue|output\(|output:[A-Z])"
)
"""Actions that may send to any port."""


def overruled(flow: FlowEntry, ofports: Set[int]) -> Set[int]:
    """Those of ``ofports``, all of ours, for which a stranger's flow on Neutron's bridge overrules
    our flows: it keeps packets from them, decides about them, or delivers past the port's
    rules."""
    receiving, matched = flow.receivers & ofports, flow.matched_ports & ofports
    if flow.table in _OURS:
        return receiving | (matched or _rest(flow, ofports))
    if flow.table == Table.TRANSIENT:
        # What a port sends matches its own flows: SENDER (100), or TAGGED (95), which drops.
        if matched:
            return receiving | (matched if flow.priority >= Transient.TAGGED else frozenset())
        above = flow.priority >= Transient.DELIVERY
    elif matched:
        return receiving | matched
    else:
        # Neutron's own drop there (the dead VLAN) lets nothing past our tables.
        first = flow.table == Table.LOCAL_SWITCHING and flow.actions != "drop"
        above = first and flow.priority > _NEUTRONS_FOR_PORTS
    return receiving | (_rest(flow, ofports) if above else frozenset())


def _rest(flow: FlowEntry, ofports: Set[int]) -> Set[int]:
    """Ports that a flow may concern without naming them."""
    named = flow.matched_ports | flow.receivers
    return ofports if not named or _ANYWHERE.search(flow.actions) else frozenset()


def error(flows: Iterable[FlowEntry]) -> TaskError:
    """The error of a port about whose packets these flows decide."""
    found = list(flows)
    return TaskError(
        ErrorType.STRANGERS_FLOW,
        f"{len(found)} flows decide about the port's packets that neither agent_flows nor a known "
        "owner wrote",
        shown(("of another program", entry) for entry in found),
    )
