"""What the API and the agents exchange, made in one call: fields as the API names them, and
valid values for those that a test does not care about."""

import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from agent_flows.report import FlowName, FlowReport, Step, TaskError, TaskOutcome, TaskState
from agent_flows.rpc import codec
from agent_flows.spec import (
    AddressGroupSpec,
    DesiredState,
    NetworkSpec,
    PortSpec,
    SecurityGroupSpec,
)

HOST = "host-1"
PHYSICAL_NETWORK = "physnet1"
Fields = dict[str, object]
Rule = Fields
S = TypeVar("S", PortSpec, SecurityGroupSpec, AddressGroupSpec)


class Machine(Protocol):
    """Anything with addresses, with or without a prefix length."""

    @property
    def addresses(self) -> Sequence[str]: ...


def new_id() -> str:
    return str(uuid.uuid4())


def numbered_id(kind: int, number: int) -> str:
    """The same id in every run."""
    return str(uuid.UUID(int=kind << 64 | number))


def random_mac() -> str:
    tail = uuid.uuid4().bytes[:3]
    return "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in tail)


def addresses_of(machine: Machine) -> tuple[str, ...]:
    """Without prefix lengths."""
    return tuple(address.partition("/")[0] for address in machine.addresses)


def ip(machine: Machine, version: int = 4) -> str:
    """The machine's first address of IPv4 or IPv6."""
    return next(each for each in addresses_of(machine) if (":" in each) == (version == 6))


# Rules.


def rule(direction: str = "ingress", *, port: int | None = None, **fields: object) -> Rule:
    """An IPv4 rule; ``port`` is both ends of the range."""
    made = {"direction": direction, "ethertype": "IPv4", **fields}
    if port is not None:
        made["port_range_min"] = made["port_range_max"] = port
    return made


def ingress(**fields: Any) -> Rule:
    """A rule for what reaches the VM."""
    return rule("ingress", **fields)


def egress(**fields: Any) -> Rule:
    """A rule for what the VM sends."""
    return rule("egress", **fields)


def everything(*directions: str) -> list[Rule]:
    """Rules that allow all IPv4 and IPv6 traffic in these directions (default: both)."""
    return [
        rule(direction, ethertype=ethertype)
        for direction in directions or ("ingress", "egress")
        for ethertype in ("IPv4", "IPv6")
    ]


def egress_to_anywhere() -> list[Rule]:
    """What Neutron puts into every new group."""
    return everything("egress")


# Specs: desired state as the server sends it to an agent.


def port_fields(**fields: object) -> dict[str, Any]:
    """A port's spec in wire form."""
    network = {"id": numbered_id(3, 1), "network_type": "local"}
    return {
        "kind": "port", "version": "1.0", "id": new_id(), "revision": 1, "host": HOST,
        "network": network, "mac_address": "fa:16:3e:00:00:01", **fields,
    }  # fmt: skip


def group_fields(*rules: Mapping[str, object], **fields: object) -> dict[str, Any]:
    """A security group's spec in wire form."""
    return {
        "kind": "security_group", "version": "1.0", "id": new_id(), "revision": 1,
        "rules": list(rules), **fields,
    }  # fmt: skip


def port(*groups: SecurityGroupSpec, **fields: object) -> PortSpec:
    """A port in ``groups``, on a local network."""
    values = {"security_groups": [group.id for group in groups], **fields}
    return _spec(PortSpec, port_fields(**values))


def group(
    *rules: Mapping[str, object],
    members: Iterable[Machine | str | Mapping[str, str]] = (),
    **fields: object,
) -> SecurityGroupSpec:
    """A security group. Each of ``members`` is a machine (with all its addresses), an address, or
    a mapping as in the wire form."""
    return _spec(SecurityGroupSpec, group_fields(*rules, members=list(_members(members)), **fields))


def open_group() -> SecurityGroupSpec:
    """A group whose ports may send and receive everything."""
    return group(*everything())


def _members(
    members: Iterable[Machine | str | Mapping[str, str]],
) -> Iterable[Mapping[str, str]]:
    for member in members:
        if isinstance(member, Mapping):
            yield member
        else:
            addresses = (member,) if isinstance(member, str) else addresses_of(member)
            yield from ({"address": address} for address in addresses)


def address_group(*addresses: str, **fields: object) -> AddressGroupSpec:
    identity = {"kind": "address_group", "version": "1.0", "id": new_id()}
    return _spec(AddressGroupSpec, {**identity, "addresses": list(addresses), **fields})


def _spec(kind: type[S], fields: Mapping[str, object]) -> S:
    made = codec.spec_from_wire(fields)
    if not isinstance(made, kind):
        raise TypeError(made)
    return made


def network(network_type: str = "local", **fields: Any) -> NetworkSpec:
    """A network; a flat or VLAN one is on ``PHYSICAL_NETWORK``."""
    if network_type in {"flat", "vlan"}:
        fields.setdefault("physical_network", PHYSICAL_NETWORK)
    return NetworkSpec(**{"id": new_id(), "network_type": network_type, **fields})


# Reports: what an agent did.

WIRE = {
    "locate-interface": Step.L2,
    "raise-link": Step.L2,
    "provision-network": Step.L2,
    "apply-security-groups": Step.SECURITY_GROUPS,
    "verify-security-groups": Step.SECURITY_GROUPS,
    "bind-vlan": Step.L2,
    "verify-wiring": Step.L2,
    "commit-security-groups": Step.SECURITY_GROUPS,
}
TASKS: Mapping[FlowName, Mapping[str, Step]] = {
    FlowName.WIRE: WIRE,
    FlowName.RESYNC: WIRE,
    FlowName.REFRESH: {n: step for n, step in WIRE.items() if step is Step.SECURITY_GROUPS},
    FlowName.UNWIRE: {
        "close-port": Step.L2,
        "remove-security-groups": Step.SECURITY_GROUPS,
        "release-vlan": Step.L2,
    },
    FlowName.AUDIT: {"compare-switch": Step.SECURITY_GROUPS},
}
REFUSED = TaskError("SwitchError", "the switch refused a flow", "OFPFMFC_TABLE_FULL")


def group_revisions(desired: DesiredState, port: PortSpec) -> dict[str, int]:
    """The revisions that a report for ``port`` must contain."""
    groups = port.security_groups_in_force
    return {group: desired.security_groups[group].revision for group in groups}


def flow_report(fails: str | None = None, **fields: Any) -> FlowReport:
    """A report in which every task succeeded, or ``fails`` did and the flow was reverted."""
    began = datetime.datetime.now(datetime.UTC)
    values: dict[str, Any] = {
        "id": new_id(),
        "host": "host-a",
        "resource_id": new_id(),
        "flow": FlowName.WIRE,
        "revision": 1,
        "attempt": 1,
        "sequence": 1,
        "started_at": began,
        "finished_at": began + datetime.timedelta(seconds=1),
        **fields,
    }
    values.setdefault("tasks", tuple(_outcomes(TASKS[values["flow"]], fails, began)))
    return FlowReport(**values)


def _outcomes(
    tasks: Mapping[str, Step], fails: str | None, began: datetime.datetime
) -> Iterable[TaskOutcome]:
    """Those before the task that failed were reverted, those after it never ran."""
    failed_at = len(tasks) if fails is None else list(tasks).index(fails)
    for place, (name, step) in enumerate(tasks.items()):
        if place > failed_at:
            yield TaskOutcome(name, step, TaskState.PENDING)
            continue
        if fails is None:
            state = TaskState.SUCCEEDED
        else:
            state = TaskState.FAILED if place == failed_at else TaskState.REVERTED
        started = began + datetime.timedelta(milliseconds=place)
        error = REFUSED if state is TaskState.FAILED else None
        yield TaskOutcome(name, step, state, started, 0.001, error)
