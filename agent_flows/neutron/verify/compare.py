"""Compares the flows of the integration bridge with those expected for a port. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from agent_flows.errors import ErrorType
from agent_flows.neutron.verify import canonical_flow
from agent_flows.neutron.verify.canonical_flow import Effect, InstalledFlow, Key, texts
from agent_flows.neutron.verify.inspector import Finding
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.pipeline import Register, Table
from agent_flows.report import TaskError

_TABLES = frozenset(
    {
        Table.TRANSIENT,
        Table.BASE_EGRESS,
        Table.RULES_EGRESS,
        Table.ACCEPT_OR_INGRESS,
        Table.BASE_INGRESS,
        Table.RULES_INGRESS,
        Table.UPLINK,
    }
)
"""Where Neutron's firewall driver installs flows of ports."""
_FIREWALL_ONLY = frozenset(
    {Table.BASE_EGRESS, Table.RULES_EGRESS, Table.BASE_INGRESS, Table.RULES_INGRESS}
)
"""Where it alone installs flows that match a port's number."""

_PORT = f"reg{Register.PORT:d}"
_WRITTEN = frozenset({_PORT, f"reg{Register.NETWORK:d}"})
_SHOWN = 20


@dataclass(frozen=True, eq=False)
class SharedFlows:
    """The flows of a remote group's addresses, which the ports of a group on one network share.
    Installed ones may do more than ``flows``, and may have a temporary cookie (firewall.py,
    update_cookie_context)."""

    flows: Mapping[Key, Effect]


@dataclass(frozen=True)
class ExpectedFlows:
    """What must be installed for one port.

    ``own`` are the flows that the driver writes again at each change, under the
    agent's cookie, each with all effects it may have: where two rules make
    flows with one key, the switch keeps the last one.
    """

    own: Mapping[Key, frozenset[Effect]]
    shared: Sequence[SharedFlows] = ()


class InstalledFlows:
    """The flows of a bridge, each put into canonical form only if it is needed."""

    def __init__(self, bridge: str, flows: Iterable[FlowEntry]) -> None:
        self.bridge = bridge
        self._of_ports: defaultdict[int, list[FlowEntry]] = defaultdict(list)
        self._of_no_port: list[FlowEntry] = []
        self._entries: defaultdict[int, set[int]] = defaultdict(set)
        self._missing: dict[SharedFlows, tuple[Key, ...]] = {}
        for flow in flows:
            if flow.table not in _TABLES:
                continue
            if not flow.matched_ports:
                self._of_no_port.append(flow)
            for ofport in flow.matched_ports:
                self._of_ports[ofport].append(flow)
                if flow.table == Table.TRANSIENT:
                    self._entries[flow.cookie].add(ofport)

    def of_port(self, ofport: int) -> dict[Key, InstalledFlow]:
        """The flows that match by this port's number."""
        return _by_key(self._of_ports.get(ofport, ()))

    @cached_property
    def of_no_port(self) -> dict[Key, InstalledFlow]:
        """The flows that match no port's number, but MAC addresses or members of groups."""
        return _by_key(self._of_no_port)

    def missing(self, shared: SharedFlows) -> tuple[Key, ...]:
        """The flows of ``shared`` that are not installed; looked up once for all ports."""
        if shared not in self._missing:
            self._missing[shared] = tuple(
                key
                for key, effect in shared.flows.items()
                if key not in self.of_no_port or not effect <= self.of_no_port[key].effect
            )
        return self._missing[shared]

    def entries(self, cookie: int) -> frozenset[int]:
        """The ports whose packets enter the firewall in table 60, by flows with ``cookie``."""
        return frozenset(self._entries.get(cookie, ()))


def _by_key(flows: Iterable[FlowEntry]) -> dict[Key, InstalledFlow]:
    return {flow.key: flow for flow in map(canonical_flow.installed, flows)}


def not_programmed(installed: InstalledFlows, ofport: int, cookie: int) -> Finding:
    """What is wrong with a port that the driver has not programmed."""
    message = (
        f"table {Table.TRANSIENT:d} of {installed.bridge} has no flow for packets from ofport "
        f"{ofport} under the agent's cookie {cookie:#x}: its security groups do not filter it"
    )
    return Finding(missing=TaskError(ErrorType.FLOWS_MISSING, message))


def compare(
    expected: ExpectedFlows, installed: InstalledFlows, ofport: int, cookie: int
) -> Finding:
    """Whether exactly the expected flows of the port are installed under the agent's ``cookie``.

    A flow with another cookie is of an earlier agent: it counts as missing, and
    as surplus if it lets packets pass that no rule allows.
    """
    own, entries = installed.of_port(ofport), installed.entries(cookie)

    def is_installed(key: Key, effects: frozenset[Effect]) -> bool:
        flow = own.get(key)
        if flow is not None:
            return flow.cookie == cookie and flow.effect in effects
        flow = installed.of_no_port.get(key)
        if flow is None or flow.cookie != cookie:
            return False
        return flow.effect in effects or _leads_elsewhere(flow.effect, effects, entries)

    missing = [key for key, effects in expected.own.items() if not is_installed(key, effects)]
    missing += [key for shared in expected.shared for key in installed.missing(shared)]
    surplus = [
        flow
        for key, flow in own.items()
        if key.table in _FIREWALL_ONLY
        and key not in expected.own
        and (flow.cookie == cookie or not _ends_conjunction(key))
    ]
    return Finding(
        _missing(expected, missing, installed, own, cookie) if missing else None,
        _surplus(surplus, installed.bridge, "no rule demands") if surplus else None,
    )


def leftovers(installed: InstalledFlows, ofport: int, cookie: int) -> TaskError | None:
    """The flows that are still installed for a port that is gone."""
    stale = [flow for flow in installed.of_port(ofport).values() if flow.cookie == cookie]
    return _surplus(stale, installed.bridge, "belong to a port that is gone") if stale else None


def _leads_elsewhere(effect: Effect, effects: frozenset[Effect], entries: frozenset[int]) -> bool:
    """Whether the flow of a MAC leads to another port: several ports of a host may use a MAC, and
    its flow leads to one of them."""
    leads_to = {value for name, value, *_ in effect if name == _PORT}
    return leads_to <= entries and _without_registers(effect) in map(_without_registers, effects)


def _without_registers(effect: Effect) -> Effect:
    return frozenset(part for part in effect if part[0] not in _WRITTEN)


def _ends_conjunction(key: Key) -> bool:
    """Whether the flow lets packets pass only together with both dimensions of a conjunction."""
    return any(name == "conj_id" for name, _ in key.match)


def _missing(
    expected: ExpectedFlows,
    missing: list[Key],
    installed: InstalledFlows,
    own: Mapping[Key, InstalledFlow],
    cookie: int,
) -> TaskError:
    totals = Counter(key.table for key in expected.own)
    totals.update(key.table for shared in expected.shared for key in shared.flows)
    counts = [
        f"table {table:d} of {installed.bridge} has {totals[table] - number or 'none'} of the "
        f"{totals[table]} flows that the port's rules demand"
        for table, number in sorted(Counter(key.table for key in missing).items())
    ]
    message = f"{', '.join(counts)}, under the agent's cookie {cookie:#x}"
    return TaskError(ErrorType.FLOWS_MISSING, message, "\n".join(_listed(missing, installed, own)))


def _listed(
    missing: list[Key], installed: InstalledFlows, own: Mapping[Key, InstalledFlow]
) -> Iterator[str]:
    for key, text in zip(missing[:_SHOWN], texts(missing), strict=False):
        flow = own.get(key) or installed.of_no_port.get(key)
        if flow is None:
            yield f"{text}: not installed"
        else:
            yield f"{text}: installed with cookie {flow.cookie:#x}, {sorted(flow.effect, key=repr)}"
    if len(missing) > _SHOWN:
        yield f"and {len(missing) - _SHOWN} more"


def _surplus(flows: list[InstalledFlow], bridge: str, why: str) -> TaskError:
    counts = [
        f"table {table:d} of {bridge} has {number} flows that {why}"
        for table, number in sorted(Counter(flow.key.table for flow in flows).items())
    ]
    shown = zip(flows[:_SHOWN], texts(flow.key for flow in flows), strict=False)
    detail = "\n".join(f"cookie={flow.cookie:#x},{text}" for flow, text in shown)
    return TaskError(ErrorType.FLOWS_SURPLUS, ", ".join(counts), detail)
