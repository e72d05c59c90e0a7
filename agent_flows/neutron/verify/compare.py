"""What stands in the integration bridge, and what of it is wrong for a port. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from agent_flows.neutron.verify import canonical_flow
from agent_flows.neutron.verify.canonical_flow import Effect, Key, Standing, texts
from agent_flows.neutron.verify.driver import Finding
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
"""Those that Neutron's firewall driver writes flows of ports to."""
_FIREWALL_ONLY = frozenset(
    {Table.BASE_EGRESS, Table.RULES_EGRESS, Table.BASE_INGRESS, Table.RULES_INGRESS}
)
"""Those that nobody else writes to by a port's number."""

_PORT = f"reg{Register.PORT:d}"
_WRITTEN = frozenset({_PORT, f"reg{Register.NETWORK:d}"})
_TABLE = re.compile(r"\btable=(\d+)")
_OF_A_PORT = re.compile(rf"[ ,](?:in_port|{_PORT})=(0x[0-9a-f]+|\d+)\b")
_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Members:
    """The addresses of a remote group as one network's ports of a group know them: flows that
    ports share. They do at least what is said, and may bear a cookie of the moment (firewall.py,
    update_cookie_context)."""

    flows: Mapping[Key, Effect]


@dataclass(frozen=True)
class Demand:
    """What must stand for one port.

    ``own`` are flows the driver writes each time anew, under the agent's
    cookie, each with everything it may do: where two rules make flows of one
    key, the one written last stands.
    """

    own: Mapping[Key, frozenset[Effect]]
    members: Sequence[Members] = ()


class Dump:
    """Lines of ``ovs-ofctl --no-stats dump-flows``, understood only as far as somebody asks."""

    def __init__(self, bridge: str, lines: Iterable[str]) -> None:
        self.bridge = bridge
        self._of_ports: defaultdict[int, list[str]] = defaultdict(list)
        self._of_all: list[str] = []
        self._entries: defaultdict[int, set[int]] = defaultdict(set)
        self._lacking: dict[Members, tuple[Key, ...]] = {}
        for line in lines:
            table = _TABLE.search(line)
            if table is None or int(table[1]) not in _TABLES:
                continue
            port = _OF_A_PORT.search(line.partition(" actions=")[0])
            if port is None:
                self._of_all.append(line)
                continue
            ofport = int(port[1], 0)
            self._of_ports[ofport].append(line)
            if int(table[1]) == Table.TRANSIENT:
                self._entries[canonical_flow.read(line).cookie].add(ofport)

    def of_port(self, ofport: int) -> dict[Key, Standing]:
        """The flows that match by this port's number."""
        return _by_key(self._of_ports.get(ofport, ()))

    @cached_property
    def of_all(self) -> dict[Key, Standing]:
        """The flows that match by no port: MAC addresses, members of groups."""
        return _by_key(self._of_all)

    def lacking(self, members: Members) -> tuple[Key, ...]:
        """Those of ``members`` that are not known; the same for every port, so looked up once."""
        if members not in self._lacking:
            self._lacking[members] = tuple(
                key
                for key, effect in members.flows.items()
                if key not in self.of_all or not effect <= self.of_all[key].effect
            )
        return self._lacking[members]

    def entries(self, cookie: int) -> frozenset[int]:
        """The ports whose packets the firewall takes up in table 60, by flows with ``cookie``."""
        return frozenset(self._entries.get(cookie, ()))


def _by_key(lines: Iterable[str]) -> dict[Key, Standing]:
    return {flow.key: flow for flow in map(canonical_flow.read, lines)}


def no_entry(dump: Dump, ofport: int, cookie: int) -> Finding:
    """What is wrong with a port that the driver has not programmed."""
    message = (
        f"table {Table.TRANSIENT:d} of {dump.bridge} has no flow for what ofport {ofport} sends, "
        f"under the agent's cookie {cookie:#x}: its security groups do not filter it"
    )
    return Finding(missing=TaskError("FlowsMissing", message))


def judge(demand: Demand, dump: Dump, ofport: int, cookie: int) -> Finding:
    """Whether for the port exactly what is demanded stands under the agent's ``cookie``.

    A flow of another cookie was left by an earlier agent: it fulfils nothing,
    and if it lets something pass that no rule allows, it is one too many.
    """
    own, entries = dump.of_port(ofport), dump.entries(cookie)

    def stands(key: Key, effects: frozenset[Effect]) -> bool:
        flow = own.get(key)
        if flow is not None:
            return flow.cookie == cookie and flow.effect in effects
        flow = dump.of_all.get(key)
        if flow is None or flow.cookie != cookie:
            return False
        return flow.effect in effects or _leads_elsewhere(flow.effect, effects, entries)

    lacking = [key for key, effects in demand.own.items() if not stands(key, effects)]
    lacking += [key for members in demand.members for key in dump.lacking(members)]
    surplus = [
        flow
        for key, flow in own.items()
        if key.table in _FIREWALL_ONLY
        and key not in demand.own
        and (flow.cookie == cookie or not _waits_for_others(key))
    ]
    return Finding(
        _missing(demand, lacking, dump, own, cookie) if lacking else None,
        _surplus(surplus, dump.bridge, "no rule demands") if surplus else None,
    )


def left_over(dump: Dump, ofport: int, cookie: int) -> TaskError | None:
    """What stands for a port that is gone."""
    stale = [flow for flow in dump.of_port(ofport).values() if flow.cookie == cookie]
    return _surplus(stale, dump.bridge, "belong to a port that is gone") if stale else None


def _leads_elsewhere(effect: Effect, effects: frozenset[Effect], entries: frozenset[int]) -> bool:
    """A MAC that several ports of the host may use leads to one of them."""
    leads_to = {value for name, value, *_ in effect if name == _PORT}
    return leads_to <= entries and _without_registers(effect) in map(_without_registers, effects)


def _without_registers(effect: Effect) -> Effect:
    return frozenset(each for each in effect if each[0] not in _WRITTEN)


def _waits_for_others(key: Key) -> bool:
    """The end of a conjunction lets nothing pass without both of its sides."""
    return any(name == "conj_id" for name, _ in key.match)


def _missing(
    demand: Demand,
    lacking: list[Key],
    dump: Dump,
    own: Mapping[Key, Standing],
    cookie: int,
) -> TaskError:
    demanded = Counter(key.table for key in demand.own)
    demanded.update(key.table for members in demand.members for key in members.flows)
    gone = Counter(key.table for key in lacking)
    counts = [
        f"table {table:d} of {dump.bridge} has {demanded[table] - number or 'none'} of the "
        f"{demanded[table]} flows that the port's rules demand"
        for table, number in sorted(gone.items())
    ]
    message = f"{', '.join(counts)}, under the agent's cookie {cookie:#x}"
    return TaskError("FlowsMissing", message, "\n".join(_told(lacking, dump, own)))


def _told(lacking: list[Key], dump: Dump, own: Mapping[Key, Standing]) -> Iterator[str]:
    for key, text in zip(lacking[:_SHOWN], texts(lacking), strict=False):
        flow = own.get(key) or dump.of_all.get(key)
        if flow is None:
            yield f"{text}: not there"
        else:
            yield f"{text}: there with cookie {flow.cookie:#x}, {sorted(flow.effect, key=repr)}"
    if len(lacking) > _SHOWN:
        yield f"and {len(lacking) - _SHOWN} more"


def _surplus(flows: list[Standing], bridge: str, why: str) -> TaskError:
    counts = [
        f"table {table:d} of {bridge} has {number} flows that {why}"
        for table, number in sorted(Counter(flow.key.table for flow in flows).items())
    ]
    shown = zip(flows[:_SHOWN], texts(flow.key for flow in flows), strict=False)
    detail = "\n".join(f"cookie={flow.cookie:#x},{text}" for flow, text in shown)
    return TaskError("FlowsSurplus", ", ".join(counts), detail)
