"""The flows of one port: everything that is installed for it, compiled from its spec.

Pure. Its entry and exit are compiled here, the addresses it may send from in
:mod:`agent_flows.secgroups.antispoofing`, and the rules once for all ports with
the same groups (:mod:`agent_flows.secgroups.rules`). Rules change far more often than
what is the port's own, which is taken from what was compiled before.
"""

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from agent_flows.errors import ErrorType
from agent_flows.fairness import fair
from agent_flows.openflow import flow
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.flow import Flow
from agent_flows.openflow.pipeline import Home, Pipeline, Register, Table
from agent_flows.openflow.priorities import BaseIngress, LastDoor, Transient
from agent_flows.report import TaskError
from agent_flows.secgroups.antispoofing import Pair, Ways, pairs_of
from agent_flows.secgroups.antispoofing import template as antispoofing
from agent_flows.secgroups.conjunction import Conjunctions, Remote, Use
from agent_flows.secgroups.delivery import Destination, Everyone
from agent_flows.secgroups.rules import RuleFlows, Uncompilable, compile_groups
from agent_flows.spec import DesiredState, Ethertype, PortSpec


@dataclass(frozen=True, slots=True)
class OwnFlows:
    """What is installed for one port alone, whatever its rules: ``text``, one flow a line.

    ``destinations`` are those it receives for, and whether the MAC is its own.
    Compiled from ``port`` at ``attachment``, and for ``stateless`` rules or others.
    """

    text: str
    destinations: Mapping[Destination, bool]
    attachment: Attachment
    port: PortSpec = field(compare=False)
    stateless: bool = field(compare=False)

    def are_of(self, port: PortSpec, attachment: Attachment, *, stateless: bool) -> bool:
        """Whether compiling from these values would give the same."""
        of = (self.port, self.attachment, self.stateless)
        return of == (port, attachment, stateless)


@dataclass(frozen=True, slots=True)
class PortFlows:
    """Equal ports need no switch operation to get from one to the other.

    ``rules`` are the flows of its groups for any port (:func:`flow.of_port`), one text
    for all ports that have the same. ``uses`` are the remote groups' addresses they need,
    ``groups`` every security and address group the port depends on.
    """

    own: OwnFlows
    rules: str = ""
    uses: frozenset[Use] = frozenset()
    groups: frozenset[str] = frozenset()

    @property
    def port_id(self) -> str:
        return self.own.port.id

    @property
    def ofport(self) -> int:
        return self.own.attachment.ofport

    @property
    def vlan(self) -> int:
        return self.own.attachment.vlan

    @property
    def destinations(self) -> Mapping[Destination, bool]:
        return self.own.destinations

    @property
    def text(self) -> str:
        """All flows of the port, one a line."""
        return "\n".join(filter(None, (self.own.text, flow.of_port(self.rules, self.ofport))))

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @property
    def count(self) -> int:
        return _count(self.own.text) + _count(self.rules)

    def gone_and_new(self, after: "PortFlows") -> tuple[list[str], list[str]]:
        """The flows of a port at one ofport that it has no more ``after``, and those it has
        only then."""
        gone, new = _gone_and_new(self.own.text, after.own.text)
        gone_rules, new_rules = _of_rules(self.rules, after.rules)
        of_port = functools.partial(flow.of_port, ofport=self.ofport)
        return [*gone, *map(of_port, gone_rules)], [*new, *map(of_port, new_rules)]


def _count(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _gone_and_new(before: str, after: str) -> tuple[Sequence[str], Sequence[str]]:
    if before == after:
        return (), ()
    had = dict.fromkeys(before.split("\n") if before else ())
    has = dict.fromkeys(after.split("\n") if after else ())
    return [line for line in had if line not in has], [line for line in has if line not in had]


# The rules of all ports with the same groups change from one text to one other.
_of_rules = functools.lru_cache(maxsize=16)(_gone_and_new)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The result of compiling a batch.

    ``remotes`` names, for each remote group used, the groups that refer to it.
    """

    ports: Mapping[str, PortFlows]
    errors: Mapping[str, TaskError]
    remotes: Mapping[Remote, frozenset[str]]


def compile_ports(
    desired: DesiredState,
    attachments: Mapping[str, Attachment],
    conjunctions: Conjunctions,
    pipeline: Pipeline,
    before: Mapping[str, OwnFlows] = MappingProxyType({}),
) -> Compiled:
    """Compile every port of ``attachments``; one that cannot be compiled does not affect the
    others. ``before`` is what was compiled earlier, by port."""
    ports: dict[str, PortFlows] = {}
    errors: dict[str, TaskError] = {}
    remotes: dict[Remote, frozenset[str]] = {}
    by_groups: dict[tuple[str, ...], RuleFlows] = {}
    claimed: defaultdict[int, list[str]] = defaultdict(list)
    for port_id, attachment in attachments.items():
        claimed[attachment.ofport].append(port_id)
    for port_id, attachment in fair(attachments.items()):
        try:
            if len(claimed[attachment.ofport]) > 1:
                raise Uncompilable(
                    ErrorType.CONFLICT, f"several ports claim ofport {attachment.ofport}: "
                    + ", ".join(sorted(claimed[attachment.ofport])),
                )  # fmt: skip
            port = desired.ports.get(port_id)
            if port is None:
                raise Uncompilable(
                    ErrorType.MISSING_SPEC, f"no spec of port {port_id} is known here"
                )
            groups = tuple(sorted(set(port.security_groups)))
            rules = _NO_RULES
            if _filtered(port):
                if groups not in by_groups:
                    by_groups[groups] = compile_groups(groups, desired, conjunctions)
                rules = by_groups[groups]
                for remote, referring in rules.remotes.items():
                    remotes[remote] = remotes.get(remote, frozenset()) | referring
            ports[port_id] = compile_port(port, attachment, rules, pipeline, before.get(port_id))
        except Uncompilable as exc:
            errors[port_id] = exc.error
        except ValueError as exc:
            # A value that no flow can have, from :mod:`.flow`.
            errors[port_id] = TaskError(ErrorType.UNSUPPORTED, str(exc))
    return Compiled(ports, errors, remotes)


_NO_RULES = RuleFlows("", frozenset(), {})


def _filtered(port: PortSpec) -> bool:
    return port.admin_state_up and port.port_security_enabled and not port.trusted


def compile_port(
    port: PortSpec,
    attachment: Attachment,
    rules: RuleFlows,
    pipeline: Pipeline,
    before: OwnFlows | None = None,
) -> PortFlows:
    """``rules`` are those of the port's groups; they matter only if the port is filtered.
    ``before`` is what was compiled for the port earlier."""
    filtered = _filtered(port)
    stateless = filtered and rules.stateless
    if before is not None and before.are_of(port, attachment, stateless=stateless):
        own = before
    else:
        text, destinations = _own(port, attachment, pipeline, stateless=stateless)
        own = OwnFlows(text, destinations, attachment, port, stateless)
    groups = frozenset(port.security_groups)
    if not filtered:
        return PortFlows(own, groups=groups)
    groups |= {remote.id for remote in rules.remotes}
    return PortFlows(own, rules.template, rules.uses, groups)


def _own(
    port: PortSpec, attachment: Attachment, pipeline: Pipeline, *, stateless: bool
) -> tuple[str, Mapping[Destination, bool]]:
    ofport, vlan = attachment.ofport, attachment.vlan
    if not port.admin_state_up:
        return str(Flow(*pipeline.door, (flow.in_port(ofport),))), {}
    if not _filtered(port):
        return _unfiltered(port, attachment, pipeline)
    pairs = pairs_of(port)
    lines = list(map(str, _way_in(attachment, Table.BASE_EGRESS, pipeline)))
    lines.append(str(_way_out(ofport)))
    if stateless:
        lines += map(str, _not_tracked(ofport))
    ways = Ways(flow.to(pipeline.without_rule), _TO_RULES[stateless])
    lines.append(flow.of_port(antispoofing(port.mac_address, pairs, ways), ofport))
    return "\n".join(lines), _destinations(port, vlan, pairs, pipeline)


_TO_RULES = {False: flow.track(Table.RULES_EGRESS), True: flow.to(Table.RULES_EGRESS)}
"""By whether the port is stateless."""


def _unfiltered(
    port: PortSpec, attachment: Attachment, pipeline: Pipeline
) -> tuple[str, Mapping[Destination, bool]]:
    """Without port security, or trusted. On Neutron's bridge NORMAL leads to it."""
    ofport, vlan = attachment.ofport, attachment.vlan
    own = [*_way_in(attachment, Table.ACCEPT_OR_INGRESS, pipeline)]
    destinations: dict[Destination, bool] = {}
    if pipeline.home is Home.OWN:
        own += [_way_out(ofport), _everything_in(ofport)]
        destinations = _destinations(port, vlan, pairs_of(port), pipeline)
        destinations[Destination(vlan, Everyone.UNKNOWN)] = True
    return "\n".join(map(str, own)), destinations


def _way_in(attachment: Attachment, first: Table, pipeline: Pipeline) -> Iterator[Flow]:
    """From the port into the pipeline: frames without a VLAN tag only."""
    in_port = flow.in_port(attachment.ofport)
    yield Flow(
        *pipeline.door,
        (in_port, flow.UNTAGGED),
        (
            flow.load(Register.PORT, attachment.ofport),
            flow.load(Register.NETWORK, attachment.vlan),
            flow.to(first),
        ),
    )
    if pipeline.home is Home.NEUTRON:
        # With a tag it would be taken for a packet of the uplink.
        yield Flow(Table.TRANSIENT, Transient.TAGGED, (in_port,))


def _way_out(ofport: int) -> Flow:
    return Flow(
        Table.LAST_DOOR,
        LastDoor.PORT,
        (flow.register(Register.PORT, ofport),),
        (flow.output(ofport),),
    )


def _everything_in(ofport: int) -> Flow:
    return Flow(
        Table.BASE_INGRESS,
        BaseIngress.NO_PORT_SECURITY,
        (flow.register(Register.PORT, ofport),),
        (flow.to(Table.ACCEPT_INGRESS),),
    )


def _not_tracked(ofport: int) -> Iterator[Flow]:
    """What a stateful local port sends stays tracked, so that its connection is committed once
    this port's rules allow the packet; the register is for this port alone, and there may be
    further receivers."""
    for ethertype in Ethertype:
        yield Flow(
            Table.BASE_INGRESS,
            BaseIngress.STATELESS,
            (flow.protocol(ethertype), flow.register(Register.PORT, ofport)),
            (
                flow.load(Register.STATELESS, 1),
                flow.to(Table.RULES_INGRESS),
                flow.load(Register.STATELESS, 0),
            ),
        )


def _destinations(
    port: PortSpec, vlan: int, pairs: Iterable[Pair], pipeline: Pipeline
) -> dict[Destination, bool]:
    """What the port receives for, and whether the MAC is its own."""
    macs = {mac: mac == port.mac_address for mac, _ in pairs}
    macs[flow.mac(port.mac_address)] = True
    if pipeline.home is Home.OWN:
        found = {Destination(vlan, mac): own for mac, own in macs.items()}
        found[Destination(vlan, Everyone.FLOOD)] = True
        return found
    found = {Destination(vlan, mac, beside_normal=True): True for mac in macs}
    network = port.network
    if pipeline.distributed_routing and network.physical_network is not None:
        segment = network.segmentation_id or 0
        found |= {Destination(vlan, mac, segment): True for mac in macs}
    return found
