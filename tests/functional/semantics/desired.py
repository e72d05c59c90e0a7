"""What a tenant may desire, in Neutron's words: rules, groups, networks."""

import uuid
from collections.abc import Iterable, Mapping

from agent_flows.rpc import codec
from agent_flows.spec import AddressGroupSpec, NetworkSpec, NetworkType, SecurityGroupSpec
from lab.vm import Vm

PHYSICAL = "physnet1"
Rule = dict[str, object]


def rule(direction: str = "ingress", **fields: object) -> Rule:
    """In Neutron's words; ``port`` stands for both ends of the range."""
    made: Rule = {"direction": direction, **fields}
    if port := made.pop("port", None):
        made["port_range_min"] = made["port_range_max"] = port
    return made


def everything(direction: str) -> list[Rule]:
    return [rule(direction), rule(direction, ethertype="IPv6")]


def group(
    *rules: Rule, members: Iterable[Vm] = (), addresses: Iterable[str] = (), **fields: object
) -> SecurityGroupSpec:
    """``members`` with all their addresses, and more ``addresses`` of members."""
    known = [ip for vm in members for ip in addresses_of(vm)]
    raw = {
        "kind": "security_group",
        "version": "1.0",
        "id": str(uuid.uuid4()),
        "revision": 1,
        "rules": list(rules),
        "members": [{"address": each} for each in [*known, *addresses]],
        **fields,
    }
    made = codec.spec_from_wire(raw)
    assert isinstance(made, SecurityGroupSpec)
    return made


def addresses_of(vm: Vm) -> list[str]:
    return [address.partition("/")[0] for address in vm.addresses]


def ip(vm: Vm, version: int = 4) -> str:
    return next(each for each in addresses_of(vm) if (":" in each) == (version == 6))


def flat() -> NetworkSpec:
    return NetworkSpec(
        id=str(uuid.uuid4()), network_type=NetworkType.FLAT, physical_network=PHYSICAL
    )


def vlan(segment: int) -> NetworkSpec:
    return NetworkSpec(
        id=str(uuid.uuid4()),
        network_type=NetworkType.VLAN,
        physical_network=PHYSICAL,
        segmentation_id=segment,
    )


def address_group(*addresses: str, id_: str | None = None) -> AddressGroupSpec:
    raw: Mapping[str, object] = {
        "kind": "address_group",
        "version": "1.0",
        "id": id_ or str(uuid.uuid4()),
        "addresses": list(addresses),
    }
    made = codec.spec_from_wire(raw)
    assert isinstance(made, AddressGroupSpec)
    return made
